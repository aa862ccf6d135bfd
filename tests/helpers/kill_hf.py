"""Kills runs of the `Trainer` by SIGKILL, and resumes them: `python kill_hf.py FOLDER SCENES MODEL=MOMENT,MOMENT ...`.

A moment is `kind:n`, the n-th time that something happens since the run was resumed. One process imports the toolbox,
and forks for every resume.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from hf_runs import Images, data_of, model_of, trainer_of
from kills import Kill, in_child, trap_replace, trap_trace
from transformers import TrainerCallback, TrainerState

OPTIONS: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 1, "logging_steps": 50}


class KillCallback(TrainerCallback):
    """Kills after the n-th step, before anything else has seen it."""

    def __init__(self, n: int):
        self.kill = Kill(n)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.kill.due():
            self.kill.now()


def arm(kind: str, n: int) -> list[Any]:
    """Lay the trap in this process; return the callbacks that a run needs for it."""
    kill = Kill(n)
    if kind == "step":
        return [KillCallback(n)]
    if kind in ("replace", "replaced"):  # our file takes its place in a checkpoint, or a file of the trace
        trap_replace(kill, kind == "replace")
    elif kind == "trace":
        trap_trace(kill)
    elif kind == "optimizer":  # half a checkpoint
        stock_save = torch.save

        def save(obj: Any, where: Any, **given: Any) -> None:
            stock_save(obj, where, **given)
            if str(where).endswith("optimizer.pt") and kill.due():
                path = Path(where)
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                kill.now()

        torch.save = save  # type: ignore[assignment]
    else:  # all of a checkpoint but the end of its last file
        assert kind == "state"
        stock_json = TrainerState.save_to_json

        def save_to_json(self: Any, json_path: str) -> None:
            stock_json(self, json_path)
            if kill.due():
                path = Path(json_path)
                path.write_text(path.read_text()[:200])
                kill.now()

        TrainerState.save_to_json = save_to_json  # type: ignore[method-assign]
    return []


def train(name: str, scenes: Path, folder: Path, moment: str | None = None, resume: bool = False) -> None:
    """Train, up to the moment; leave the final weights and what the run holds."""
    callbacks = arm(*((kind := moment.split(":"))[0], int(kind[1]))) if moment else []
    data = Images(noise=True) if name == "vit" else data_of(name, scenes)
    trainer = trainer_of(model_of(name, data), data, folder, {"ratio": 0.5}, callbacks=callbacks, **OPTIONS)
    trainer.train(
        resume_from_checkpoint=True if resume and any(folder.glob("checkpoint-*/trainer_state.json")) else None
    )
    torch.save({"weights": trainer.model.state_dict(), "history": trainer.run.selector.history}, folder / "final.pt")


def main(folder: Path, scenes: Path, name: str, moments: list[str]) -> None:
    """Train without a stop, then with a kill at each moment and on to the end; note how each process ended."""
    folder.mkdir()
    ends = [in_child(lambda: train(name, scenes, folder / "whole"))]
    for moment in [*moments, None]:
        ends.append(in_child(lambda moment=moment: train(name, scenes, folder / "killed", moment, resume=True)))  # type: ignore[misc]
    (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    gc.freeze()  # the host collects garbage, and a fork would copy what the imports made
    for word in sys.argv[3:]:
        model, _, listed = word.partition("=")
        main(Path(sys.argv[1]) / model, Path(sys.argv[2]), model, listed.split(","))
