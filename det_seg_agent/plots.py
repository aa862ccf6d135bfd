"""The plot of what a strategy did over a run."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def plot_run(history: list[dict[str, float]], folder: Path, trace: pa.Table | None) -> Path:
    """Write `folder/agent.png` from the rows of `Selector.history` and the trace; readable without colour."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    passes = np.array([row["pass"] for row in history]) + 1
    columns = None if trace is None else {name: trace[name].to_numpy() for name in trace.column_names}
    _budget(axes[0, 0], passes, history)
    _scores(axes[0, 1], columns)
    _agent(axes[1, 0], passes, history)
    _frequency(axes[1, 1], columns)
    last = int(passes.max(initial=1))
    ticks = MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]).tick_values(1, last)
    for ax in (axes[0, 0], axes[0, 1], axes[1, 0]):
        ax.set(xlabel="pass", xlim=(0.5, last + 0.5), xticks=[1, *(tick for tick in ticks if 1 < tick <= last)])
    path = Path(folder) / "agent.png"
    figure.savefig(path, dpi=110)
    return path


def _marks(passes: int) -> int:
    """Return the step between markers that keeps them apart."""
    return max(1, passes // 20)


def _legend(ax: Axes, lines: list[Artist] | None = None) -> None:
    """Put the legend below the panel, where it covers no data."""
    lines = ax.get_legend_handles_labels()[0] if lines is None else lines
    labels = [str(line.get_label()) for line in lines]
    ax.legend(lines, labels, frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)


def _note(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="0.35")


def _budget(ax: Axes, passes: np.ndarray, history: list[dict[str, float]]) -> None:
    ax.plot(passes, np.cumsum([row["total"] for row in history]), "k--", label="full data")
    ax.plot(passes, [row["images"] for row in history], "k-o", ms=4, markevery=_marks(len(passes)), label="this run")
    ax.set(title="Budget", ylabel="images trained on", ylim=(0, None))
    ax.legend(frameon=False, loc="upper left")


def _scores(ax: Axes, columns: dict[str, np.ndarray] | None) -> None:
    ax.set(title="Scores by pass", ylabel="score")
    if columns is None or not np.isfinite(columns["score"].astype(float)).any():
        _note(ax, "no scores in this run")
        return
    rows = []
    for index in np.unique(columns["pass"]):
        here = columns["pass"] == index
        score = columns["score"][here].astype(float)
        chosen = score[columns["selected"][here]]
        if np.isfinite(score).any():
            rows.append([index + 1, *np.nanpercentile(score, [5, 25, 50, 75, 95]), np.nanmedian(chosen)])
    x, low, q1, mid, q3, high, chosen = np.array(rows).T
    ax.fill_between(x, low, high, color="0.88", label="5 to 95 % of all samples")
    ax.fill_between(x, q1, q3, color="0.7", label="25 to 75 %")
    ax.plot(x, mid, "k-", label="median")
    ax.plot(x, chosen, "k--s", ms=4, markevery=_marks(len(x)), label="median of the selection")
    _legend(ax)


def _agent(ax: Axes, passes: np.ndarray, history: list[dict[str, float]]) -> None:
    ax.set(title="Balance and policy entropy")
    w = np.array([row["balance"] for row in history])
    if not np.isfinite(w).any():
        _note(ax, "not used by this strategy")
        return
    every = _marks(len(passes))
    ax.plot(passes, w, "k-o", ms=4, markevery=every, label="balance w (left)")
    ax.set(ylabel="balance w", ylim=(0, 1))
    other = ax.twinx()
    entropy = [row["policy_entropy"] for row in history]
    other.plot(passes, entropy, "k--^", ms=4, mfc="w", markevery=every, label="policy entropy (right)")
    other.set_ylabel("policy entropy, nats")
    _legend(ax, [*ax.get_lines(), *other.get_lines()])


def _frequency(ax: Axes, columns: dict[str, np.ndarray] | None) -> None:
    ax.set(title="How often samples were selected", xlabel="share of passes", ylabel="samples")
    if columns is None:
        _note(ax, "no trace in this run")
        return
    counts = np.bincount(columns["sample"], weights=columns["selected"].astype(float))
    total = len(np.unique(columns["pass"]))
    step = -(-total // 20)  # whole passes a bar: bars of unequal numbers of passes would look like peaks
    edges = (np.array([*range(0, total + 1, step), total + 1]) - 0.5) / total  # the last bar may be narrower
    ax.hist(counts / total, bins=edges.tolist(), color="0.75", edgecolor="k", hatch="//")
    ax.set_xlim(-0.04 - 0.5 / total, 1.04 + 0.5 / total)
    ax.set_xticks(np.linspace(0, 1, 6) if total > 1 else [0, 1])
