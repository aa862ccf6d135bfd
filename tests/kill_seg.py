"""Kills a segmentation run by SIGKILL, again and again, and resumes it: `python kill_seg.py SCENES FOLDER MOMENTS...`.

A moment is `kind:n`, the n-th time that something happens since the run was resumed. One process imports the toolbox,
and forks for every resume.
"""

import builtins
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from seg_runs import TINY, config_of, fit

OPTIONS: dict[str, Any] = {
    "train_cfg": {"_delete_": True, "type": "AgentIterLoop", "max_iters": 60, "val_interval": 100},
    "default_hooks.checkpoint": {
        "_delete_": True, "type": "CheckpointHook", "by_epoch": False, "interval": 5, "max_keep_ckpts": 1,
    },
    "param_scheduler": [{"type": "PolyLR", "power": 0.9, "by_epoch": False, "begin": 0, "end": 60}],
    "agent__ratio": 0.4,
    **TINY,
}  # fmt: skip


def die() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


class Counter:
    """Calls `die` the n-th time it is asked."""

    def __init__(self, n: int):
        self.left = n

    def due(self) -> bool:
        """Return whether this is the time."""
        self.left -= 1
        return self.left == 0


@HOOKS.register_module(force=True)
class Kill(Hook):
    """Kills after the n-th step, before anything else has seen it."""

    priority = "HIGHEST"

    def __init__(self, n: int):
        self.counter = Counter(n)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.counter.due():
            die()


def arm(kind: str, n: int) -> list[dict[str, Any]]:
    """Lay the trap in this process; return the hooks that a run needs for it."""
    counter = Counter(n)
    if kind == "step":
        return [{"type": "Kill", "n": n}]
    if kind == "checkpoint":  # half of its bytes are written
        stock_write = Path.write_bytes

        def write_bytes(self: Path, data: bytes) -> int:
            if ".pth" in self.name and counter.due():
                stock_write(self, data[: len(data) // 2])
                die()
            return stock_write(self, data)

        Path.write_bytes = write_bytes  # type: ignore[method-assign,assignment]
    elif kind in ("replace", "replaced"):  # before or after a file takes the place of the old one
        stock_replace = os.replace

        def replace(*args: Any) -> None:
            now = counter.due()
            if now and kind == "replace":
                die()
            stock_replace(*args)
            if now:
                die()

        os.replace = replace  # type: ignore[assignment]
    elif kind == "trace":  # half of its bytes are written
        stock_table = pq.write_table

        def write_table(table: Any, where: Path, **options: Any) -> None:
            stock_table(table, where, **options)
            if counter.due():
                os.truncate(where, where.stat().st_size // 2)
                die()

        pq.write_table = write_table
    elif kind == "note":  # last_checkpoint is empty
        stock_open = builtins.open

        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            handle = stock_open(file, mode, *args, **options)
            if str(file).endswith("last_checkpoint") and mode == "w" and counter.due():
                die()
            return handle

        builtins.open = opened  # type: ignore[assignment]
    else:  # an old checkpoint is about to go
        assert kind == "remove"
        stock_unlink = Path.unlink

        def unlink(self: Path, missing_ok: bool = False) -> None:
            if self.name.startswith("iter_") and counter.due():
                die()
            stock_unlink(self, missing_ok)

        Path.unlink = unlink  # type: ignore[method-assign,assignment]
    return []


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a fork; return its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


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
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
