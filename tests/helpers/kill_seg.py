"""Kills a segmentation run by SIGKILL, again and again, and resumes it: `python kill_seg.py SCENES FOLDER MOMENTS...`.

A moment is `kind:n`, the n-th time that something happens since the run was resumed. One process imports the toolbox,
and forks for every resume.
"""

import builtins
import gc
import json
import sys
from pathlib import Path
from typing import Any

from kills import Kill, in_child, trap_bytes, trap_replace, trap_trace
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from seg_runs import TINY, config_of, fit, light
from undrawn import undrawn

OPTIONS: dict[str, Any] = {
    "train_cfg": {"_delete_": True, "type": "AgentIterLoop", "max_iters": 60, "val_interval": 100},
    "default_hooks.checkpoint": {
        "_delete_": True, "type": "CheckpointHook", "by_epoch": False, "interval": 5, "max_keep_ckpts": 1,
    },
    "param_scheduler": [{"type": "PolyLR", "power": 0.9, "by_epoch": False, "begin": 0, "end": 60}],
    "agent__ratio": 0.4,
    **TINY,
}  # fmt: skip


@HOOKS.register_module(force=True)
class KillHook(Hook):
    """Kills after the n-th step, before anything else has seen it."""

    priority = "HIGHEST"

    def __init__(self, n: int):
        self.kill = Kill(n)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.kill.due():
            self.kill.now()


def arm(kind: str, n: int) -> list[dict[str, Any]]:
    """Lay the trap in this process; return the hooks that a run needs for it."""
    kill = Kill(n)
    if kind == "step":
        return [{"type": "KillHook", "n": n}]
    if kind == "checkpoint":
        trap_bytes(kill, ".pth")
    elif kind in ("replace", "replaced"):
        trap_replace(kill, kind == "replace")
    elif kind == "trace":
        trap_trace(kill)
    elif kind == "remove":  # an old checkpoint is about to go
        stock_unlink = Path.unlink

        def unlink(self: Path, missing_ok: bool = False) -> None:
            if self.name.startswith("iter_") and kill.due():
                kill.now()
            stock_unlink(self, missing_ok)

        Path.unlink = unlink  # type: ignore[method-assign,assignment]
    else:  # last_checkpoint is empty
        assert kind == "note"
        stock_open = builtins.open

        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            handle = stock_open(file, mode, *args, **options)
            if str(file).endswith("last_checkpoint") and mode == "w" and kill.due():
                kill.now()
            return handle

        builtins.open = opened  # type: ignore[assignment]
    return []


def train(scenes: Path, folder: Path, moment: str | None = None, resume: bool = False) -> None:
    """Train, up to the moment."""
    config = config_of(scenes, folder, **OPTIONS, resume=resume)
    if moment is not None:
        kind, n = moment.split(":")
        config.custom_hooks = [*config.custom_hooks, *arm(kind, int(n))]
    fit(config)


def main(scenes: Path, folder: Path, moments: list[str]) -> None:
    """Train without a stop, then with a kill at each moment and on to the end; note how each process ended."""
    ends = [in_child(lambda: train(scenes, folder / "whole"))]
    for moment in [*moments, None]:
        ends.append(in_child(lambda moment=moment: train(scenes, folder / "killed", moment, resume=True)))  # type: ignore[misc]
    (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    light()  # read once, for all forks
    gc.freeze()  # the host collects garbage, and a fork would copy what the imports made
    with undrawn():
        main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
