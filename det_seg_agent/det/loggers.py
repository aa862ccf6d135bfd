"""The run's pictures in those of Ultralytics' loggers that are on."""

from typing import Any

import numpy as np
from ultralytics.utils import SETTINGS

from det_seg_agent.reporting.report import Report


def show_pictures(trainer: Any, report: Report) -> None:
    """Give a run's pictures to the loggers.

    W&B, ClearML and DVC log what is registered as a plot, and MLflow all pictures of the folder when training ends. The
    host's callbacks of TensorBoard and Comet log no plots but its own, so theirs go to the writer or experiment.
    """
    for path in report.pictures:
        trainer.on_plot(path)
    for name, add in (("tensorboard", _to_tensorboard), ("comet", _to_comet)):
        if SETTINGS.get(name) is True:
            report.show(lambda name, image, add=add: add(name, image, trainer.epoch + 1))  # type: ignore[misc]


def _to_tensorboard(name: str, image: np.ndarray, step: int) -> None:
    from ultralytics.utils.callbacks import tensorboard

    writer = getattr(tensorboard, "WRITER", None)  # not there if it is not installed
    if writer is not None:
        writer.add_image(name, image, step, dataformats="HWC")


def _to_comet(name: str, image: np.ndarray, step: int) -> None:
    from ultralytics.utils.callbacks import comet

    experiment = comet.comet_ml and comet.comet_ml.get_running_experiment()
    if experiment:
        experiment.log_image(image, name=name, step=step)
