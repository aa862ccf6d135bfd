"""Cheap tests on the traces of a comparison on the embedded scenes, before anything is trained with an idea.

For each finished `full` cell, whose passes show all images: does a signal separate the images with wrong labels, as a
mean over the passes so far? And would a reward that is known only afterwards be predictable: does a sample's fall of a
signal until it is next seen correlate between two disjoint sets of passes?

    python tools/trace_tests.py runs/compare/noise
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, spearmanr

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.data import data_root
from det_seg_agent.reporting.trace import read
from det_seg_agent.scenes import truth_of

SIGNALS = {"loss": 1, "entropy": 1, "agreement": -1}  # which end is suspect: high or low values


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve of `score` (n,) for `positive` (n,) bool; NaN if all are alike."""
    found, count = int(positive.sum()), len(positive)
    if found in (0, count):
        return float("nan")
    return float((rankdata(score)[positive].sum() - found * (found + 1) / 2) / (found * (count - found)))


def falls(values: np.ndarray) -> dict[str, float]:
    """Return rank correlations of a sample's fall: that of its rank in one pass until the next.

    Args:
        values: (passes, samples) float64, at least five passes.

    Returns:
        "repeats": of the mean falls in two disjoint sets of passes; falls of neighbouring passes share an observation,
        so that every other pass is left out. "level" and "level before": of the fall and the rank in the pass that it
        starts from, and in the one before, means over passes.
    """
    rank = np.stack([rankdata(row) / len(row) for row in values])
    fall = rank[:-1] - rank[1:]
    later = range(1, len(fall))
    return {
        "repeats": float(spearmanr(fall[1::4].mean(0), fall[3::4].mean(0))[0]),
        "level": float(np.mean([spearmanr(rank[p], fall[p])[0] for p in later])),
        "level before": float(np.mean([spearmanr(rank[p - 1], fall[p])[0] for p in later])),
    }


def tests_of(cell: Path, wrong: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the figures of each signal of a cell; `wrong` (samples,) bool marks the images with wrong labels."""
    table = read(cell / "run/trace")
    if table is None:
        return {}
    table = table.sort_by([("pass", "ascending"), ("sample", "ascending")])
    figures = {}
    for name, sign in SIGNALS.items():
        values = np.array(table[name].to_pylist(), dtype=np.float64).reshape(-1, len(wrong))
        if not np.isfinite(values).all():
            continue
        seen = np.cumsum(values, 0) / np.arange(1, len(values) + 1)[:, None]
        passes = sorted({1, 3, 5, 8, len(values)} & set(range(1, len(values) + 1)))
        figures[name] = {f"AUROC, {count} passes": auroc(sign * seen[count - 1], wrong) for count in passes}
        figures[name].update({f"fall: {key}": value for key, value in falls(values).items()})
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Print the figures of all `full` cells."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of a comparison on the embedded scenes")
    folder = parser.parse_args(arguments).folder
    cells = [path.parent for path in sorted(folder.glob("*-full-seed-*/result.json"))]
    if not cells:
        print(f"error: {folder}: no `full` cell of a comparison is finished there.", file=sys.stderr)
        return 2
    for cell in cells:
        root = data_root(Cell(**json.loads((cell / "cell.json").read_text(encoding="utf-8"))), cell)
        wrong = np.array([row["wrong"] is not None for row in truth_of(root).values()])
        print(cell.name)
        for signal, figures in tests_of(cell, wrong).items():
            print(f"  {signal:<10}" + "  ".join(f"{key} {value:.2f}" for key, value in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
