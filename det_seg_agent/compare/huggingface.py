"""Training and evaluation of a cell of transformers. `compare.child` runs it in a child process."""

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from det_seg_agent.compare.attempts import note_weights, restart
from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.data import Aside
from det_seg_agent.compare.fingerprint import (
    digest,
    digest_of_files,
    digest_of_weights,
    portable,
    versions,
)
from det_seg_agent.compare.selection import selection_figures
from det_seg_agent.errors import ConfigError

# Settings that cannot change a result, or that the key covers elsewhere.
NEUTRAL = frozenset({
    "agent", "data", "validation", "resume", "output_dir", "seed", "num_train_epochs", "disable_tqdm", "log_level",
    "report_to", "logging_steps", "logging_strategy", "save_strategy", "save_steps", "save_total_limit",
    "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory",
})  # fmt: skip
TASKS = {"classification": "classify", "instruction": "instruct"}
ALWAYS = {
    "eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 1, "report_to": "none",
    "load_best_model_at_end": False, "disable_tqdm": True,
}  # fmt: skip


class HuggingFace:
    """Trains and evaluates a model of transformers by a recipe.

    Quality is the accuracy of classification, in percent. Of instruction tuning it is 100 / perplexity: the geometric
    mean of the probabilities of the held-out answers' tokens, in percent, which rises as the perplexity falls.

    Args:
        cell: the cell.
        folder: folder of the cell.
    """

    def __init__(self, cell: Cell, folder: Path):
        self.cell, self.folder, self.run = cell, folder, folder / "run"
        self.root = Path(cell.data)

    def recipe(self, epochs: int, resume: bool = False) -> Any:
        """Return the cell's recipe, of a number of epochs.

        Raises:
            ConfigError: if it is of the other task, has settings of ours, or lacks what is judged on.
        """
        from det_seg_agent.hf.cli import numbers_of, set_word, values_of
        from det_seg_agent.hf.recipe import recipe_of

        values = values_of([str(self.cell.config)])
        for key, value in self.cell.host.items():
            if key != "epochs":
                set_word(values, key.split("."), value)
        values.pop("agent", None)  # the matrix has it
        if values.get("task", "classify") != TASKS[self.cell.task]:
            raise ConfigError(f"{self.cell.task}.config: it is not of task {TASKS[self.cell.task]!r}.")
        train = {**(values.get("train") or {}), **ALWAYS}
        train |= {"output_dir": str(self.run), "seed": self.cell.seed, "num_train_epochs": epochs}
        agent = self.cell.agent if self.cell.role == "selection" else {"strategy": "full"}
        made = recipe_of(
            {**values, "data": self.cell.data, "train": numbers_of(train), "agent": agent, "resume": resume}
        )
        if made.train.get("max_steps"):
            raise ConfigError(f"{self.cell.task}: train.max_steps overrides the epochs of the matrix; remove it.")
        if self.cell.task == "instruction" and not made.validation:
            raise ConfigError("instruction.host.validation is missing: a file of JSON lines that is judged on.")
        return made

    @property
    def epochs(self) -> int:
        """Epochs of full training."""
        return int(self.cell.host["epochs"])

    def prepare(self) -> dict[str, str]:
        """Read recipe and data.

        Returns:
            Digests of the recipe, the data and versions; see `fingerprint`.
        """
        from det_seg_agent.hf.recipe import trainer_of

        recipe = self.recipe(self.epochs)
        trainer = trainer_of(recipe)
        return {
            "config": digest(portable(recipe.model_dump(), NEUTRAL)),
            "data": digest([self._split(data) for data in (trainer.train_dataset, trainer.eval_dataset)]),
            "versions": digest(versions(self.cell.task)),
        }

    def _split(self, data: Any) -> list[Any]:
        if self.cell.task == "classification":
            return [data.classes, digest_of_files([path for path, _ in data.samples]), list(data.targets)]
        return [digest(data.rows)]

    def train(self, calibrate: bool, resume: bool = False) -> dict[str, Any]:
        """Train and return quality, cost, curve and selection.

        Args:
            calibrate: whether to train one epoch of full data.
            resume: whether to go on with an attempt that was stopped, from its newest checkpoint, if it has one.
        """
        from transformers import TrainerCallback

        from det_seg_agent.hf.recipe import trainer_of

        going_on = resume and self._resumable()
        if resume and not going_on:
            restart(self.folder)
        epochs = 1 if calibrate else self.cell.epochs if self.cell.epochs is not None else self.epochs
        trainer = trainer_of(self.recipe(epochs, going_on))
        weights = note_weights(self.folder, digest_of_weights(trainer.model))
        began, seconds = time.perf_counter(), dict[float, float]()

        class Clock(TrainerCallback):  # type: ignore[misc]
            """Notes when each evaluation begins."""

            def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
                """Note the time."""
                seconds[round(state.epoch)] = time.perf_counter() - began

        trainer.add_callback(Clock())
        trainer.train(resume_from_checkpoint=going_on or None)
        trained = [row for row in trainer.state.log_history if "train_runtime" in row][-1]["train_runtime"]
        result = json.loads((self.run / "metrics.json").read_text(encoding="utf-8"))
        with Aside() as aside:
            judged = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval")
            by_class = {} if calibrate or self.cell.task != "classification" else self._by_class(trainer, judged)
            metrics = self._metrics(judged.metrics)
        here = sum(row["images"] for row in trainer.run.selector.history[-1:])
        for checkpoint in self.run.glob("checkpoint-*"):  # the weights stay in `run`
            shutil.rmtree(checkpoint)
        trainer.save_model(str(self.run / "model"))
        return {
            "quality": metrics["quality"],
            "metrics": metrics,
            **by_class,
            "aside": aside.spent,
            "initial_weights": weights,
            "images": result["images_trained"],
            "full_images": self.epochs * len(trainer.train_dataset),
            "samples": len(trainer.train_dataset),
            "batch": trainer.args.train_batch_size,
            "processes": 1,
            "schedule": f"{epochs} epochs",
            "per_image_s": trained / max(here, 1),
            "resumed": going_on,
            "curve": self._curve(trainer, seconds),
            "selection": {} if calibrate else selection_figures(self.run / "trace", []),
        }

    def _metrics(self, row: dict[str, float]) -> dict[str, float]:
        """Return the figures of an evaluation, with `quality`."""
        if self.cell.task == "classification":
            return {"quality": 100 * row["eval_accuracy"], "loss": row["eval_loss"]}
        return {"quality": 100 / row["eval_perplexity"], "perplexity": row["eval_perplexity"]}

    def _curve(self, trainer: Any, seconds: dict[float, float]) -> dict[str, Any]:
        images = {int(row["pass"]) + 1: int(row["images"]) for row in trainer.run.selector.history}
        rows = {round(row["epoch"]): row for row in trainer.state.log_history if "eval_loss" in row}
        known = [epoch for epoch in rows if epoch in images]
        name = "accuracy, %" if self.cell.task == "classification" else "100 / perplexity"
        return {
            "name": name,
            "points": [[images[epoch], self._metrics(rows[epoch])["quality"]] for epoch in known],
            "seconds": [seconds.get(epoch) for epoch in known],
        }

    def _by_class(self, trainer: Any, judged: Any) -> dict[str, Any]:
        """Return the accuracy by class in the host's predictions `judged`, and how often each class occurs."""
        names = trainer.train_dataset.classes
        right = judged.predictions.argmax(1) == judged.label_ids
        tested = Counter(int(label) for label in judged.label_ids)
        hits = Counter(int(label) for label in judged.label_ids[right])
        trained = Counter(trainer.train_dataset.targets)
        return {
            "by_class": {name: 100 * hits[i] / tested[i] if tested[i] else None for i, name in enumerate(names)},
            "classes": {
                "train_images": {name: trained[i] for i, name in enumerate(names)},
                "test_images": {name: tested[i] for i, name in enumerate(names)},
            },
        }

    def _resumable(self) -> bool:
        """Return whether there is a whole checkpoint of a run that was not finished."""
        from det_seg_agent.hf.checkpoints import newest_whole

        if (self.run / "metrics.json").exists():
            return False
        try:
            newest_whole(self.run, 1)
        except ConfigError:
            return False
        return True
