"""The same run in each toolbox: 48 scenes, eight passes of batches of eight."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import det_runs
import pytest
import seg_runs
from seg_runs import EPOCHS, ITERS
from torch import Tensor
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

from det_seg_agent import Selector
from det_seg_agent.det.coco_convert import prepare_data
from det_seg_agent.det.trainer import AgentDetectionTrainer


@dataclass
class Run:
    """What a training left."""

    folder: Path
    weights: dict[str, Tensor]
    selector: Selector | None  # None: a stock run
    scalars: str  # the host's own record of them


class Detection:
    """Ultralytics; a run can stop within its fourth epoch."""

    def __init__(self, scenes: Path, folder: Path):
        self.data, self.folder = prepare_data(scenes), folder
        self.model = det_runs.write_model(folder)

    def train(self, name: str, stock: bool = False, stop: bool = False, resume: bool = False, **agent: Any) -> Run:
        cls: Any = DetectionTrainer if stock else AgentDetectionTrainer.configured(**agent)

        class Stopping(cls):  # type: ignore[misc]
            def optimizer_step(self) -> None:
                super().optimizer_step()
                if stop and self.epoch == 3:
                    raise seg_runs.Stop

        more = {"epochs": 8, "nbs": 24, "warmup_epochs": 6, "close_mosaic": 2}
        if resume:
            model = YOLO(self.folder / name / "weights/last.pt")
            model.train(trainer=AgentDetectionTrainer, resume=True)
            trainer = model.trainer
        elif stop:
            with pytest.raises(seg_runs.Stop):
                det_runs.fit(self.model, self.data, self.folder, name, Stopping, **more)
            return Run(self.folder / name, {}, None, "")
        else:
            trainer = det_runs.fit(self.model, self.data, self.folder, name, cls, **more)
        scalars = (trainer.save_dir / "results.csv").read_text()
        return Run(trainer.save_dir, trainer.ema.ema.state_dict(), getattr(trainer, "selector", None), scalars)


class Segmentation:
    """MMEngine; a run can stop within a pass."""

    options: dict[str, Any]
    stock_loop: str
    stock_sampler: str

    def __init__(self, scenes: Path, folder: Path):
        self.scenes, self.folder = scenes, folder

    def train(self, name: str, stock: bool = False, stop: bool = False, resume: bool = False, **agent: Any) -> Run:
        config = seg_runs.config_of(self.scenes, self.folder / name, **self.options, resume=resume)
        config.agent = agent
        if stock:
            config.custom_hooks = []
            config.train_cfg.type = self.stock_loop
            config.train_dataloader.sampler.type = self.stock_sampler
        runner, _ = seg_runs.fit(config, 20 if stop else None)
        hook = [hook for hook in runner.hooks if type(hook).__name__ == "AgentHook"]
        scalars = sorted((self.folder / name).glob("*/vis_data/scalars.json"))
        text = scalars[-1].read_text() if scalars else ""
        return Run(self.folder / name, runner.model.state_dict(), hook[0].selector if hook else None, text)


class Epochs(Segmentation):
    """The epoch-based loop."""

    options, stock_loop, stock_sampler = EPOCHS, "EpochBasedTrainLoop", "DefaultSampler"


class Iterations(Segmentation):
    """The iteration-based loop."""

    options, stock_loop, stock_sampler = ITERS, "IterBasedTrainLoop", "InfiniteSampler"


ADAPTERS = {"detection": Detection, "segmentation-epochs": Epochs, "segmentation-iterations": Iterations}
