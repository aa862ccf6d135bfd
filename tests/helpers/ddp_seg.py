"""Segmentation runs under torchrun, gloo on a CPU: `python -m torch.distributed.run --nproc_per_node 2 ddp_seg.py ...`.

Arguments: the scenes, the folder of the runs, and names of `RUNS`. Each rank leaves what it holds in `rank_<r>.pt`.
"""

import gc
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from seg_runs import CONFIG, EPOCHS, ITERS, config_of, fit

from det_seg_agent.seg import cli

LOOPS = {"epochs": EPOCHS, "iterations": ITERS}
# What depends on the batch of one process, or draws from its random stream, is off: 2 processes can equal 1.
PLAIN = {
    "train_dataloader.dataset.pipeline": [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs"},
    ],
    "model.backbone.norm_cfg": {"_delete_": True, "type": "GN", "num_groups": 4},
    "model.decode_head.norm_cfg": {"_delete_": True, "type": "GN", "num_groups": 4},
    "model.auxiliary_head.norm_cfg": {"_delete_": True, "type": "GN", "num_groups": 4},
    "model.decode_head.dropout_ratio": 0,
    "model.auxiliary_head.dropout_ratio": 0,
}
SHORT = {"train_cfg.max_epochs": 4, "agent__final_full": 0.25}
RUNS: dict[str, dict[str, Any]] = {
    "iterations": {"loop": "iterations"},
    "iterations_cut": {"loop": "iterations", "stop": 18},
    "epochs": {"loop": "epochs", **SHORT},
    "epochs_cut": {"loop": "epochs", "stop": 10, **SHORT},
    # not the agent: its rates lie so close together that the rounding of losses tips some
    "plain": {"loop": "iterations", "agent__strategy": "loss", **PLAIN},
}


@HOOKS.register_module(force=True)
class KeepPasses(Hook):
    """Keeps each pass's selection and the padding of its walk."""

    def __init__(self) -> None:
        self.passes: dict[int, tuple[torch.Tensor, int]] = {}

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        selector = next(hook for hook in runner.hooks if type(hook).__name__ == "AgentHook").selector
        self.passes[selector.pass_index] = selector.selection.indices, selector.sampler.padding


def run(scenes: Path, folder: Path, batch: int, resume: bool = False, **options: Any) -> dict[str, Any]:
    """Train and return what this process holds."""
    loop, stop = options.pop("loop"), options.pop("stop", None)
    options = {**LOOPS[loop], "agent__ratio": 0.4, "train_dataloader.batch_size": batch, **options}
    config = config_of(scenes, folder, **options, resume=resume)
    config.custom_hooks = [*config.custom_hooks, {"type": "KeepPasses"}]
    if dist.is_initialized():
        config.launcher = "pytorch"
        config.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
    runner, notes = fit(config, None if resume else stop)
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "AgentHook")
    model = runner.model.module if dist.is_initialized() else runner.model
    return {
        "stream": notes.stream,
        "passes": next(hook for hook in runner.hooks if isinstance(hook, KeepPasses)).passes,
        "iterations": [hook.run.iterations_of(p) for p in range(hook.selector.total_passes)],
        "state": hook.selector.state_dict(),
        "weights": model.state_dict(),
    }


def command_line(scenes: Path, folder: Path) -> int:
    """Train by the command line and the host's launcher, which finds the group set up; return the exit status."""
    settings = {f"{name}_dataloader.dataset.data_root": scenes for name in ("train", "val", "test")}
    settings |= {"train_cfg.max_iters": 12, "train_cfg.val_interval": 6, "param_scheduler.0.end": 12}
    settings |= {"model_wrapper_cfg.device_ids": None, "train_dataloader.batch_size": 8 // dist.get_world_size()}
    settings |= {"experiment_name": "ddp", "visualizer.name": "ddp", "log_level": "ERROR", "agent.final_full": 0}
    words = [f"{key}={value}" for key, value in settings.items()]
    return cli.main([str(CONFIG), "--work-dir", str(folder), "--launcher", "pytorch", "--cfg-options", *words])


def main(scenes: Path, folder: Path, names: list[str]) -> None:
    """Make the runs; one that is cut is resumed."""
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    results = {}
    for name in names:
        if name == "command_line":
            results[name] = {"status": command_line(scenes, folder / name)}
            continue
        options, batch = RUNS[name], 8 // world
        results[name] = run(scenes, folder / name, batch, **options)
        if "stop" in options:
            results[name] = run(scenes, folder / name, batch, resume=True, **options)
    torch.save(results, folder / f"rank_{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()  # else the host's threads abort the process


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    gc.freeze()  # the host collects garbage for every data set
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
