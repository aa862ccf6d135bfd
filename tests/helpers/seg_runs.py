"""Runs of the real MMEngine Runner on tiny scenes."""

import copy
import functools
import itertools
from pathlib import Path
from typing import Any

import torch

from det_seg_agent.seg.compat import prepare_host

prepare_host()  # before mmseg is imported

from mmcv.transforms import BaseTransform  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import HOOKS  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from mmseg.registry import TRANSFORMS  # noqa: E402
from mmseg.utils import register_all_modules  # noqa: E402
from torch.utils.data import get_worker_info  # noqa: E402

register_all_modules(init_default_scope=True)

CONFIG = Path(__file__).parents[2] / "configs/seg/upernet_light_scenes.py"
NUMBER = itertools.count()
# A UperNet of a quarter of the light one's weights.
TINY = {
    "model.backbone.base_channels": 8, "model.backbone.stem_channels": 8,
    "model.decode_head.in_channels": [8, 16, 32, 64], "model.decode_head.channels": 8,
    "model.auxiliary_head.in_channels": 32, "model.auxiliary_head.channels": 8,
}  # fmt: skip
# Eight passes of it over 48 scenes in batches of eight, by either loop.
EPOCHS = {
    "train_cfg": {"_delete_": True, "type": "AgentEpochLoop", "max_epochs": 8, "val_interval": 3},
    "default_hooks.checkpoint": {"_delete_": True, "type": "CheckpointHook", "interval": 1},
    "param_scheduler": [{"type": "PolyLR", "power": 0.9, "by_epoch": True, "convert_to_iter_based": True, "end": 8}],
    **TINY,
}
ITERS = {
    "train_cfg": {"_delete_": True, "type": "AgentIterLoop", "max_iters": 48, "val_interval": 20},
    "default_hooks.checkpoint": {"_delete_": True, "type": "CheckpointHook", "by_epoch": False, "interval": 5},
    "param_scheduler": [{"type": "PolyLR", "power": 0.9, "by_epoch": False, "begin": 0, "end": 48}],
    **TINY,
}


class Stop(Exception):
    """The end of a run that is to be resumed."""


@TRANSFORMS.register_module(force=True)
class NoteWorker(BaseTransform):
    """Notes the worker's seed, which is another for every worker that is started."""

    def transform(self, results: dict) -> dict:
        info = get_worker_info()
        results["worker"] = None if info is None else info.seed
        return results


@HOOKS.register_module(force=True)
class Notes(Hook):
    """Keeps what the batches show, and stops before iteration `stop`."""

    priority = "VERY_LOW"

    def __init__(self, stop: int | None = None):
        self.stop = stop
        self.stream: list[list[int]] = []
        self.workers: set[Any] = set()
        self.rates: list[float] = []
        self.validated: list[int] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.stop:
            raise Stop
        samples = data_batch["data_samples"]
        self.stream.append([sample.metainfo.get("sample_idx", -1) for sample in samples])
        self.workers |= {sample.metainfo.get("worker") for sample in samples}
        self.rates.append(runner.optim_wrapper.get_lr()["lr"][0])

    def before_val(self, runner: Any) -> None:
        self.validated.append(runner.iter)


def merge(config: Config, options: dict[str, Any]) -> None:
    """Set dotted keys, with __ for a dot; a dict with `_delete_` replaces what is there."""
    for key, value in options.items():
        *parents, name = key.replace("__", ".").split(".")
        node = config
        for parent in parents:
            node = node[parent]
        if isinstance(value, dict) and "_delete_" not in value and isinstance(node.get(name), dict):
            node[name].update(value)
        elif isinstance(value, dict):
            node[name] = {k: v for k, v in value.items() if k != "_delete_"}
        else:
            node[name] = value


@functools.cache
def light() -> dict[str, Any]:
    """Return the light config; to find its base the host reads a YAML file for each of its own recipes."""
    return dict(Config.fromfile(CONFIG).to_dict())


def config_of(scenes: Path, work_dir: Path, **options: Any) -> Config:
    """Return the light config on tiny scenes, with options as `merge` takes them."""
    # Formatting takes half the time of a tiny run, and `fromfile` forgets that it is not wanted (mmengine 0.10.7).
    config = Config(copy.deepcopy(light()), filename=str(CONFIG), format_python_code=False)
    for name in ("train", "val", "test"):
        config[f"{name}_dataloader"].dataset.data_root = str(scenes)
    config.train_dataloader.dataset.pipeline[2].scale = (64, 64)
    config.train_dataloader.dataset.pipeline[3].crop_size = (64, 64)
    config.model.data_preprocessor.size = (64, 64)
    merge(config, options)
    config.work_dir = str(work_dir)
    config.experiment_name = config.visualizer.name = f"test_{next(NUMBER)}"  # the host keeps both by name
    config.default_hooks.logger.interval = 5
    config.log_level = "ERROR"
    return config


def fit(config: Config, stop: int | None = None) -> tuple[Runner, Notes]:
    """Train and return the runner and what was noted."""
    config.custom_hooks = [*config.get("custom_hooks", []), {"type": "Notes", "stop": stop}]
    runner = Runner.from_cfg(config)
    notes = next(hook for hook in runner.hooks if isinstance(hook, Notes))
    try:
        runner.train()
    except Stop:
        if stop is None:
            raise
    return runner, notes


def same_weights(one: Runner, two: Runner) -> bool:
    """Return whether two models are equal bit for bit."""
    a, b = one.model.state_dict(), two.model.state_dict()
    return all(torch.equal(a[key], b[key]) for key in a)
