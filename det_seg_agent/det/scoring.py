"""`det-seg-agent score`: a full pass with trained weights and without training, for the same rows as a run."""

import os
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import RTDETR, YOLO

from det_seg_agent.det.arguments import parse_arguments
from det_seg_agent.det.cli import check_host
from det_seg_agent.det.coco_convert import prepare_data
from det_seg_agent.det.judge import TASKS
from det_seg_agent.det.trainer import AgentTrainerMixin
from det_seg_agent.det.trainers import trainer_for
from det_seg_agent.errors import ConfigError
from det_seg_agent.hosts.input_errors import input_errors, tidied

# One pass, over images as they are.
PLAIN: dict[str, Any] = {
    "epochs": 1, "mosaic": 0.0, "close_mosaic": 0, "mixup": 0.0, "cutmix": 0.0, "copy_paste": 0.0, "hsv_h": 0.0,
    "hsv_s": 0.0, "hsv_v": 0.0, "degrees": 0.0, "translate": 0.0, "scale": 0.0, "shear": 0.0, "perspective": 0.0,
    "flipud": 0.0, "fliplr": 0.0, "bgr": 0.0, "erasing": 0.0, "auto_augment": None, "plots": False,
}  # fmt: skip


class ScoringMixin(AgentTrainerMixin):
    """A trainer that changes no weight: it observes the forward passes, and takes no step. Must be the first base."""

    def _on_pretrain_routine_end(self) -> None:
        super()._on_pretrain_routine_end()
        self.report.trains = False

    def _model_train(self) -> None:
        super()._model_train()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.Dropout):
                module.eval()  # as in prediction; in training mode their statistics would change as well

    def optimizer_step(self) -> None:
        """Discard the gradients."""
        self._batches = 0
        self.optimizer.zero_grad()

    def validate(self) -> tuple[dict[str, float], float]:
        """Return no metrics: the weights are judged by `evaluate`."""
        return {}, 0.0

    def save_model(self) -> None:
        """Save nothing: the weights are those that were given."""


def score(words: list[str]) -> Any:
    """Score a data set and return the trainer.

    Raises:
        ConfigError: if weights, data or a setting are invalid.
    """
    given = [word.partition("=")[2] for word in words if word.startswith("weights=")]
    host, agent = parse_arguments([word for word in words if not word.startswith("weights=")])
    if agent:
        raise ConfigError(f"agent.{sorted(agent)[0]}: nothing is selected or trained; score takes no agent settings.")
    if not given or not os.path.isfile(given[-1]):
        raise ConfigError(f"weights={given[-1] if given else ''}: there is no such file; give trained weights (.pt).")
    if wrong := sorted({"model", "resume", *PLAIN} & host.keys()):
        raise ConfigError(f"{wrong[0]}={host[wrong[0]]} does not go with score: it shows each image once, as it is.")
    if not host.get("data"):
        raise ConfigError(
            "data= is missing; give an Ultralytics data YAML, the folder of an MS-COCO download or an MMEngine config."
        )
    weights, data = given[-1], str(host["data"])
    with input_errors(f"weights={weights}", "ultralytics", remedy="Give weights of an Ultralytics training."):
        model = RTDETR(weights) if "rtdetr" in Path(weights).stem.lower() else YOLO(weights)
    if not isinstance(model.model, nn.Module):  # the host takes names without .pt for exported models
        raise ConfigError(f"weights={weights}: these are no weights of an Ultralytics training (.pt).")
    cls = trainer_for(model)
    if os.path.isdir(data) and model.task in TASKS:
        host["data"] = prepare_data(data, segments=model.task == "segment")
    imgsz = model.overrides.get("imgsz")
    settings = {"name": "score", **({"imgsz": imgsz} if imgsz else {}), **host, **PLAIN, "task": model.task}
    settings["model"] = weights
    folder = check_host(settings, model.task)
    scoring = type(f"Scoring{cls.__name__}", (ScoringMixin, cls.configured(strategy="full", trace=False)), {})
    with tidied(folder, lambda: False), input_errors("ultralytics", "ultralytics"):
        trainer = scoring(overrides=settings)
        there, known = trainer.data.get("names", {}), model.names
        if len(there) != len(known):
            raise ConfigError(
                f"weights={weights} are of {len(known)} classes, data={data} has {len(there)}: the head would be a new "
                "one. Give weights that were trained on these classes."
            )
        trainer.train()
    return trainer


def main(words: list[str]) -> int:
    """Score, and say where the rows are."""
    print(f"{Path(score(words).save_dir)} has samples.csv and data.html")
    return 0
