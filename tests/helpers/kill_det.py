"""Kills detection runs by SIGKILL at given moments and goes on with each: `python kill_det.py DATA FOLDER MOMENTS...`.

A moment is `kind:n`, the n-th time that something happens. One process imports the toolbox, and forks for every run.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import polars  # noqa: F401  (so that no fork imports them)
import torch
import torchvision  # noqa: F401
from det_runs import fit, write_model
from kills import Kill, in_child, trap_bytes, trap_replace, trap_trace
from ultralytics import YOLO
from ultralytics.utils.torch_utils import init_seeds
from undrawn import undrawn

from det_seg_agent.det.trainer import AgentDetectionTrainer

RUN: dict[str, Any] = {"epochs": 4, "nbs": 24, "warmup_epochs": 2, "optimizer": "SGD", "val": False}
AGENT = {"ratio": 0.4, "final_full": 0.25}


def arm(kind: str, n: int) -> type:
    """Lay the trap in this process; return the trainer to use."""
    kill, trainer = Kill(n), AgentDetectionTrainer.configured(**AGENT)
    if kind == "batch":

        class Killed(trainer):  # type: ignore[misc,valid-type]
            def preprocess_batch(self, batch: Any) -> Any:
                if kill.due():
                    kill.now()
                return super().preprocess_batch(batch)

        return Killed
    if kind == "last":  # the host's checkpoint
        trap_bytes(kill)
    elif kind == "state":  # half of our bytes are written
        stock_save = torch.save

        def save(value: Any, where: Any, *args: Any, **options: Any) -> None:
            stock_save(value, where, *args, **options)
            if "agent_" in str(where) and kill.due():
                os.truncate(where, os.stat(where).st_size // 2)
                kill.now()

        torch.save = save
    elif kind == "trace":
        trap_trace(kill)
    else:
        assert kind in ("replace", "replaced")
        trap_replace(kill, kind == "replace")
    return trainer


def go_on(model: str, data: str, folder: Path, name: str) -> None:
    """Resume, or start anew over what lies there where there is no checkpoint yet."""
    last = folder / name / "weights/last.pt"
    if last.exists():
        YOLO(last).train(trainer=AgentDetectionTrainer, resume=True)
    else:
        fit(model, data, folder, name, arm("batch", 0), **RUN)


def main(data: str, folder: Path, moments: list[str]) -> None:
    """Train without a stop, then with a kill at each moment; note how each process ended."""
    model = write_model(folder)
    whole = in_child(lambda: fit(model, data, folder, "whole", arm("batch", 0), **RUN))
    ends: dict[str, list[int]] = {"whole": [whole]}
    for moment in moments:
        (kind, n), name = moment.split(":"), moment.replace(":", "_")
        killed = in_child(lambda k=kind, n=n, name=name: fit(model, data, folder, name, arm(k, int(n)), **RUN))  # type: ignore[misc]
        ends[moment] = [killed, in_child(lambda name=name: go_on(model, data, folder, name))]  # type: ignore[misc]
    (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    init_seeds(0, deterministic=True)  # imports a part of torch that each fork would import, for two seconds
    gc.freeze()  # the host collects garbage, and a fork would copy what the imports made
    with undrawn():
        main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
