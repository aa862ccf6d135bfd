"""What a run selected, in a few figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq


def selection_figures(trace: Path, kind_of: list[str]) -> dict[str, Any]:
    """Return figures on the passes that selected less than everything; {} where there is none.

    Args:
        trace: folder of the trace.
        kind_of: the kind of each sample, by dataset index, or nothing.

    Returns:
        "coverage": share of samples that were in at least one such selection; "turnover": mean share of a selection
        that the one before did not hold; "top_tenth": share of all picks that went to the most picked tenth of samples;
        "kinds": kind -> mean share of its samples that a selection held; "thirds": kind -> that share in the first and
        in the last third of these passes.
    """
    counts: np.ndarray | None = None
    before: np.ndarray | None = None
    new: list[float] = []
    by_pass: list[list[float]] = []
    names = np.array(kind_of)
    listed = list(dict.fromkeys(kind_of))
    for path in sorted(Path(trace).glob("pass_*.parquet")):
        chosen = pq.read_table(path, columns=["selected"])["selected"].to_numpy()
        if chosen.all():
            continue
        counts = chosen.astype(int) if counts is None else counts + chosen
        if before is not None:
            new.append(float((chosen & ~before).sum() / chosen.sum()))
        before = chosen
        by_pass.append([chosen[names == kind].mean() for kind in listed])
    if counts is None:
        return {}
    tenth = np.sort(counts)[::-1][: max(1, round(len(counts) / 10))]
    part = -(-len(by_pass) // 3)
    shares = np.array(by_pass)
    return {
        "coverage": float((counts > 0).mean()),
        "turnover": float(np.mean(new)) if new else None,
        "top_tenth": float(tenth.sum() / counts.sum()),
        "kinds": {kind: float(shares[:, i].mean()) for i, kind in enumerate(listed)},
        "thirds": {
            kind: [float(shares[:part, i].mean()), float(shares[-part:, i].mean())] for i, kind in enumerate(listed)
        },
    }
