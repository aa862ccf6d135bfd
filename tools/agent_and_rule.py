"""Compare the agent's policy with the rule that its reward is based on, on the embedded scenes.

For each selection of the agent, compute those of `quality` (the weight of a sample is q itself) and `even` from the
same round-robin priorities, and measure which scores predict the losses observed next.

    python tools/agent_and_rule.py detection segmentation
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from det_seg_agent import Request, Selection
from det_seg_agent.compare.matrix import read
from det_seg_agent.scenes import write_scenes
from det_seg_agent.strategies import Agent
from det_seg_agent.strategies.data_agent.reward import quality, ranks
from det_seg_agent.strategies.data_agent.state import ENTROPY, LOSS
from det_seg_agent.strategies.weights_to_selection import RoundRobin
from det_seg_agent.sums import SampleSignals

RECIPES = Path(__file__).parents[1] / "configs/compare/scenes.yaml"
ROWS: list[dict[str, float]] = []


def correlation(one: Tensor, other: Tensor) -> float:
    """Return Spearman's rank correlation."""
    return float(torch.corrcoef(torch.stack([ranks(one), ranks(other)]))[0, 1])


class AgentBesideRule(Agent):
    """The agent; it also records what the rule would have selected."""

    def select(self, request: Request) -> Selection:
        """Select as the agent does, and compare the selection with the rule's."""
        priority = self.round_robin.priority.clone()
        selection = super().select(request)
        index = self.levels.rows[:, ENTROPY].isfinite().nonzero().squeeze(1)
        q = torch.full((len(self.table),), 0.5)
        q[index] = ranks(quality(self.levels.difficulty(index, "loss"), self.levels.known(index)[:, ENTROPY])[0])
        row = {"weight and q": correlation(self.table.score[index], q[index])}
        for name, weight in (("quality", q), ("even", torch.ones(len(q)))):
            rounds = RoundRobin(0, None)
            rounds.priority = priority.clone()
            floor = self.options.floor if name == "quality" else 1.0
            picks = rounds.take(weight, request.count, floor, self.table.never_seen(), torch.Generator())
            row[f"picks shared with {name}"] = float(torch.isin(picks, selection.indices).float().mean())
        self._foretold: dict[str, Tensor] = {
            "weight": self.table.score.clone(),
            "q": q,
            "loss level": self.levels.rows[:, LOSS].float(),
        }
        self._row = row
        return selection

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Compare predicted with observed losses, then learn as the agent does."""
        for name, values in getattr(self, "_foretold", {}).items():
            known = values[samples.index].isfinite()
            seen = samples.relative[known, 0]
            self._row[f"next loss and {name}"] = correlation(values[samples.index][known], seen)
        if hasattr(self, "_row"):
            ROWS.append(self._row)
            del self._row
        self._foretold = {}
        super().observe(samples, pass_index, total_passes)


def train(task: str, folder: Path, seed: int) -> None:
    """Train as the demo does, with `AgentBesideRule` as the strategy."""
    cell = next(cell for cell in read(RECIPES)[1] if cell.task == task)
    root = write_scenes(folder / "scenes", **cell.scenes)
    strategy = f"{AgentBesideRule.__module__}:AgentBesideRule"
    if task == "detection":
        from det_seg_agent.det.cli import train

        host = {**cell.host, "data": str(root), "project": str(folder), "name": "run", "seed": seed, "val": False}
        train({**host, "plots": False, "verbose": False}, {"strategy": strategy, "ratio": 0.5})
        return
    from det_seg_agent.seg.cli import main

    options: dict[str, Any] = {f"{name}_dataloader.dataset.data_root": root for name in ("train", "val", "test")}
    options |= {"agent.strategy": strategy, "agent.ratio": 0.5, "randomness.seed": seed, **cell.host}
    options |= {"train_cfg.max_iters": cell.iterations, "param_scheduler.0.end": cell.iterations}
    settings = [f"{k}={v}" for k, v in options.items()]
    main([str(cell.config), "--work-dir", str(folder / "run"), "--cfg-options", *settings])


def main() -> int:
    """Train, and print as JSON the means over the passes that select."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=["detection", "segmentation"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = {}
    for task in options.tasks:
        ROWS.clear()
        with tempfile.TemporaryDirectory() as folder:
            train(task, Path(folder), options.seed)
        means = {name: round(sum(row[name] for row in ROWS) / len(ROWS), 3) for name in ROWS[0]}
        result[task] = {"selections": len(ROWS), "seed": options.seed, **means}
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    import agent_and_rule  # by module name, by which the strategy is found

    sys.exit(agent_and_rule.main())
