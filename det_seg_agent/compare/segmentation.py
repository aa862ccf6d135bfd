"""Training and evaluation of a segmentation cell. `compare.child` runs it in a child process."""

import argparse
import json
from pathlib import Path
from typing import Any

from det_seg_agent.compare.attempts import restart
from det_seg_agent.compare.cells import Cell, shorter
from det_seg_agent.compare.data import Aside, data_root, kinds_of
from det_seg_agent.compare.fingerprint import digest, digest_of_files, modules, portable, versions
from det_seg_agent.compare.images import save
from det_seg_agent.compare.selection import selection_figures
from det_seg_agent.errors import ConfigError
from det_seg_agent.messages import LOGGER

CALIBRATION = 20  # iterations of segmentation
# Settings that cannot change a result, or that the key covers elsewhere.
NEUTRAL = frozenset({
    "agent", "data_root", "work_dir", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor",
    "log_level", "launcher", "resume", "experiment_name", "visualizer", "vis_backends", "env_cfg",
    "log_processor",
})  # fmt: skip
NEUTRAL_HOOKS = {"logger", "timer", "checkpoint", "visualization"}


class Segmentation:
    """Trains and evaluates a segmenter by the host's Runner.

    Args:
        cell: the cell.
        folder: folder of the cell.
    """

    def __init__(self, cell: Cell, folder: Path):
        self.cell, self.folder = cell, folder
        self.root = data_root(cell, folder)

    def config(self, resume: bool = False) -> tuple[Any, int]:
        """Return the config, loaded as by the command line, and the iterations of full training."""
        from det_seg_agent.seg.compat import prepare_host

        prepare_host()
        from det_seg_agent.seg.cli import load_config

        options: dict[str, Any] = {
            f"{s}_dataloader.dataset.data_root": str(self.root) for s in ("train", "val", "test")
        }
        options |= {f"agent.{key}": value for key, value in self.cell.agent.items()}
        if self.cell.role != "selection":
            options["agent.strategy"] = "full"
        options |= {"randomness.seed": self.cell.seed, "experiment_name": self.cell.folder}
        options["visualizer.name"] = str(self.folder)  # must be unique in a process
        words = argparse.Namespace(
            config=self.cell.config, cfg_options=options, work_dir=str(self.folder / "run"), launcher="none",
            amp=False, resume=resume,
        )  # fmt: skip
        config = load_config(words)
        if self.cell.iterations is not None:
            self.lasts(config, self.cell.iterations)
        config.merge_from_dict(self.cell.host)
        if config.train_cfg.get("type") != "AgentIterLoop":
            raise ConfigError(f"train_cfg.type={config.train_cfg.get('type')!r}: AgentIterLoop alone can be compared.")
        return config, int(config.train_cfg.max_iters)

    @staticmethod
    def lasts(config: Any, iterations: int) -> None:
        """Set the length of a run and scale all settings that count iterations, as `AgentIterLoop` does."""
        from det_seg_agent.seg.recipe import shorten

        if left := shorten(config, iterations):
            LOGGER.warning(left)

    def budget(self, config: Any, iterations: int, samples: int) -> float:
        """Return the budget of the matched selections in iterations, by `AgentIterLoop`'s rule."""
        from det_seg_agent.seg.recipe import plan

        return plan(self.cell.schedule(), iterations, samples, config.train_dataloader.batch_size).budget

    def prepare(self) -> dict[str, str]:
        """Read config and data.

        Returns:
            Digests of the resolved config, the data and versions; see `fingerprint`.

        Raises:
            ConfigError: if the config contains our settings, which the controls would not have.
        """
        config, _ = self.config()
        own = sorted(set(config.get("agent") or {}) - {"strategy", "ratio"})
        if own:
            raise ConfigError(
                f"config {self.cell.config}: agent.{', agent.'.join(own)}: in a comparison all settings of ours stand "
                "in the YAML, under segmentation.agent, as the controls have to follow them. Move them there."
            )
        content = config.to_dict()
        hooks = content.get("default_hooks", {}).items()
        content["default_hooks"] = {name: hook for name, hook in hooks if name not in NEUTRAL_HOOKS}
        content["randomness"].pop("seed")
        imported = modules(content.get("custom_imports", {}).get("imports", []))
        return {
            "config": digest([portable(content, NEUTRAL), imported]),
            "data": digest([self.split(config, name) for name in ("train", "val")]),
            "versions": digest(versions("segmentation")),
        }

    def split(self, config: Any, name: str) -> list[Any]:
        """Return the metainfo of a split, and digests of its images and masks."""
        dataset = self.dataset(config, name)
        samples = [dataset.get_data_info(i) for i in range(len(dataset))]
        images = [str(sample["img_path"]) for sample in samples]
        masks = [str(sample.get("seg_map_path")) for sample in samples]
        return [portable(dataset.metainfo), digest_of_files(images), digest_of_files(masks, content=True)]

    @staticmethod
    def dataset(config: Any, name: str) -> Any:
        """Build the host's data set of a split."""
        from mmseg.registry import DATASETS
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        return DATASETS.build(config[f"{name}_dataloader"].dataset)

    def train(self, calibrate: bool, resume: bool = False) -> dict[str, Any]:
        """Train and return quality, cost, curve and selection.

        Args:
            calibrate: whether to train a few iterations of full data.
            resume: whether to go on with an attempt that was stopped, from its newest checkpoint, if it has one.
        """
        going_on = resume and self.resumable()
        if resume and not going_on:
            restart(self.folder)
        config, full = self.config(going_on)
        samples, batch, run = (
            len(self.dataset(config, "train")),
            int(config.train_dataloader.batch_size),
            self.folder / "run",
        )
        if self.cell.role == "short":
            self.lasts(config, shorter(full, self.budget(config, full, samples)))
        validated = -(-full // config.train_cfg.get("val_interval", 1000))
        if calibrate:
            self.lasts(config, min(full, CALIBRATION))
            config.train_cfg.val_interval = config.train_cfg.max_iters
        from mmengine.runner import Runner

        from det_seg_agent.compare.areas import Areas

        note = Areas(self.folder)
        runner = Runner.from_cfg(config)
        runner.register_hook(note)
        runner.train()
        with Aside() as aside:
            by_image = {} if calibrate else self.by_image(config, note)
        pace = runner.message_hub.get_scalar("train/time").mean() / batch
        result = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        # a calibration validates only once, so the time of the other validations is added
        later = (validated - 1) * (result["wall_time_s"] - pace * result["images_trained"]) if calibrate else 0.0
        points = validations(run, batch)
        return {
            "quality": result["iou"]["mIoU"],
            "metrics": {key: value for key, value in result["iou"].items() if key != "by_class"},
            "initial_weights": note.weights,
            "by_class": {name: row.get("IoU") for name, row in result["iou"].get("by_class", {}).items()},
            **by_image,
            "aside": aside.spent,
            "images": result["images_trained"],
            "full_images": full * batch,
            "samples": samples,
            "batch": batch,
            "processes": 1,
            "schedule": f"{runner.train_loop.max_iters} iterations",
            "per_image_s": pace,
            "resumed": going_on,
            "later_s": later,
            "curve": {
                "name": "mIoU, %",
                "points": points,
                "seconds": [note.seconds.get(round(x / batch)) for x, _ in points],
            },
            "selection": {} if calibrate else selection_figures(run / "trace", kinds_of(self.cell, self.root)),
        }

    def resumable(self) -> bool:
        """Return whether there is a whole checkpoint of a run that was not finished."""
        from det_seg_agent.seg.compat import prepare_host

        prepare_host()
        from det_seg_agent.seg.checkpoints import newest_whole

        run = self.folder / "run"
        return newest_whole(run, None) is not None and not (run / "metrics.json").exists()

    def by_image(self, config: Any, note: Any) -> dict[str, Any]:
        """Return how often each class occurs; store the areas of each test image."""
        from det_seg_agent.compare.areas import images_of_classes

        dataset = self.dataset(config, "train")
        arrays = note.arrays(list(dataset.metainfo["classes"]))
        if not arrays:
            return {}
        save(self.folder, arrays)
        label = arrays["label"]
        cache = self.folder.parent / f"classes-{self.cell.resolved.get('data', self.folder.name)}.json"
        return {
            "classes": {
                "train_images": images_of_classes(dataset, cache),
                "test_images": dict(zip(arrays["names"].tolist(), (label > 0).sum(0).tolist())),
            }
        }


def validations(run: Path, batch: int) -> list[list[float]]:
    """Return [images, mIoU] of each validation from the host's scalars.json."""
    found: dict[int, float] = {}  # after a stop, the later of two validations of a step counts
    for path in sorted(run.glob("*/vis_data/scalars.json")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found |= {row["step"]: row["mIoU"] for row in rows if "mIoU" in row}
    return [[step * batch, value] for step, value in sorted(found.items())]
