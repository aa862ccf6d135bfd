"""Results of comparisons, made by hand: what finished cells leave."""

from pathlib import Path
from typing import Any

import numpy as np
from compare_runs import write

from det_seg_agent.compare.cells import EVEN, FULL, QUALITY, RANDOM, SHORT, Cell
from det_seg_agent.compare.matrix import read

SEEDS = 6
BASE = {FULL: 40.0, SHORT: 30.0, RANDOM: 32.0, EVEN: 33.0, QUALITY: 34.0, "loss": 35.0, "entropy": 32.0}
COUNTS = {  # of the six classes one has too few test objects
    "train_images": {"a": 5, "b": 90, "c": 80, "d": 1, "e": 9, "f": 70, "g": 60},
    "test_images": dict.fromkeys("abcdefg", 10),
    "test_objects": {"a": 20, "b": 50, "c": 50, "d": 19, "e": 30, "f": 50, "g": 40},
}


def result_of(cell: Cell) -> dict[str, Any]:
    """Return what a finished cell leaves; classes differ from its mean by their place in the alphabet."""
    noise = np.random.default_rng([cell.seed, len(cell.label)]).normal(0, 0.4)
    mean = BASE[cell.label] + (0.0 if cell.label == FULL else noise) + 0.1 * cell.seed
    by_class = {name: mean + i - 3 for i, name in enumerate("abcdefg")}
    images = {"full": 100, "selection": 75, "short": 50 * (cell.epochs or 0)}[cell.role]
    return {
        "quality": mean, "images": images, "full_images": 100, "wall_s": 20.0, "cpu_s": 10.0, "samples": 50,
        "curve": {
            "name": "mAP50-95, %", "points": [[25, 10.0], [50, mean - 5], [images, mean]], "seconds": [2.0, 5.0, 9.0],
        },
        "initial_weights": "w", "selection": {}, "machine": {"torch": "2"}, "finished": "2026-01-01", "sources": "s",
        "schedule": f"{cell.epochs or 2} epochs", "metrics": {"AP": mean, "AP50": mean + 10}, "by_class": by_class,
        "by_class50": {name: value + 10 for name, value in by_class.items()}, "classes": COUNTS,
    }  # fmt: skip


def finished_of(tmp_path: Path, seeds: int = SEEDS) -> list[tuple[Cell, dict[str, Any]]]:
    """Return results made by hand."""
    content = {"strategies": ["loss", "entropy"], "ratios": {0.5: list(range(seeds))}}
    return [(cell, result_of(cell)) for cell in read(write(tmp_path / "c.yaml", **content))[1]]
