"""Statistics of a run's selections, from its trace. The cells' child processes compute them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq


def selection_figures(trace: Path, kind_of: list[str]) -> dict[str, Any]:
    """Return statistics over the passes that did not select everything; {} if there are none.

    Args:
        trace: folder of the trace.
        kind_of: kind of each sample, by dataset index; may be empty.

    Returns:
        A dict with fractions in [0, 1]. "coverage": of the samples, those in at least one such selection. "turnover":
        of a selection, those not in the previous one (mean). "top_tenth": of all picks, those of the most selected
        tenth of samples. "kinds": for each kind, the mean fraction of its samples in a selection. "thirds": the same
        in the first and in the last third of these passes. "numbers": for each kind, its number of samples.
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
        "numbers": {kind: int((names == kind).sum()) for kind in listed},
        "coverage": float((counts > 0).mean()),
        "turnover": float(np.mean(new)) if new else None,
        "top_tenth": float(tenth.sum() / counts.sum()),
        "kinds": {kind: float(shares[:, i].mean()) for i, kind in enumerate(listed)},
        "thirds": {
            kind: [float(shares[:part, i].mean()), float(shares[-part:, i].mean())] for i, kind in enumerate(listed)
        },
    }
