"""The run's pictures in those of Ultralytics' loggers that are on."""

from collections.abc import Callable
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
    for add in (_tensorboard(), _comet()):
        if add is not None:
            report.show(lambda name, image, add=add: add(name, image, trainer.epoch + 1))  # type: ignore[misc]


def _tensorboard() -> Callable[[str, np.ndarray, int], object] | None:
    if SETTINGS.get("tensorboard") is not True:
        return None
    from ultralytics.utils.callbacks import tensorboard

    writer = getattr(tensorboard, "WRITER", None)
    return None if writer is None else lambda name, image, step: writer.add_image(name, image, step, dataformats="HWC")


def _comet() -> Callable[[str, np.ndarray, int], object] | None:
    if SETTINGS.get("comet") is not True:
        return None
    from ultralytics.utils.callbacks import comet

    experiment = None if comet.comet_ml is None else comet.comet_ml.get_running_experiment()
    return None if experiment is None else lambda name, image, step: experiment.log_image(image, name=name, step=step)
