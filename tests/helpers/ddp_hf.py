"""Runs of the `Trainer` under torchrun, gloo on a CPU: `torchrun --nproc_per_node 2 ddp_hf.py ...`.

Arguments: the folder of the runs, and names of `RUNS`. Each rank leaves what it holds in `rank_<r>.pt`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hf_runs import COUNT, Images, Texts, llama, trainer_of, vit
from transformers import TrainerCallback

RUNS: dict[str, dict[str, Any]] = {
    "vit": {"model": vit, "agent": {"ratio": 0.5}, "save_strategy": "steps", "save_steps": 2},
    # 19 of 40 samples, in steps of 2 x 4 x 2: the last batches are filled up
    "llama": {"model": llama, "agent": {"ratio": 0.475, "strategy": "loss"}, "gradient_accumulation_steps": 2},
    "weights": {"model": vit, "agent": {"ratio": 0.5, "strategy": "infobatch"}},
    "full": {"model": vit, "agent": {"strategy": "full"}},
    "stock": {"model": vit, "stock": True},
}


class Stop(Exception):
    """Ends a run within a pass."""


class KeepPasses(TrainerCallback):
    """Keeps what each pass selects."""

    def __init__(self) -> None:
        self.passes: dict[int, torch.Tensor] = {}
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        selector = self.trainer.run.selector
        self.passes[selector.pass_index] = selector.selection.indices


def run(folder: Path, resume: str | None = None, **options: Any) -> dict[str, Any]:
    """Train and return what this process holds."""
    model = options.pop("model")
    data = Texts() if model is llama else Images(COUNT)
    keep = KeepPasses()
    stock = options.get("stock", False)
    batch = 8 // int(os.environ.get("WORLD_SIZE", 1))
    trainer = trainer_of(
        model, data, folder, callbacks=[] if stock else [keep], per_device_train_batch_size=batch,
        num_train_epochs=3, ddp_backend="gloo", **options,
    )  # fmt: skip
    keep.trainer = trainer
    trainer.train(resume_from_checkpoint=resume)
    result = {"weights": trainer.model.state_dict(), "steps": trainer.state.global_step}
    if not stock:
        result |= {"passes": keep.passes, "state": trainer.run.selector.state_dict(), "plan": trainer.run.plan}
    return result


def main(folder: Path, names: list[str]) -> None:
    """Make the runs; that of vit is resumed from a checkpoint within a pass as well."""
    results = {}
    for name in names:
        results[name] = run(folder / name, **RUNS[name])
        if name == "vit":
            results["vit_resumed"] = run(folder / name, str(folder / name / "checkpoint-6"), **RUNS[name])
    torch.save(results, folder / f"rank_{os.environ.get('RANK', 0)}.pt")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
