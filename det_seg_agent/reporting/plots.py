"""The plot `agent.png` of a run: budget, scores, policy and selection frequency. `Report` writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from det_seg_agent.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa


def plot_run(
    history: list[dict[str, float]], times_selected: np.ndarray, trace: Iterable[tuple[int, pa.Table]], folder: Path
) -> Path:
    """Write `folder/agent.png` and return its path; see `draw` for the arguments."""
    path = Path(folder) / "agent.png"
    figure = draw(history, times_selected, trace)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)
    return path


def draw(history: list[dict[str, float]], times_selected: np.ndarray, trace: Iterable[tuple[int, pa.Table]]) -> Figure:
    """Return a figure of a run with four panels, legible without colour.

    Args:
        history: rows of `Selector.history`.
        times_selected: (N,) int, number of passes that selected each sample.
        trace: (pass index, table with the columns selected and score) of each pass, consumed one at a time.
    """
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    passes = np.array([row["pass"] for row in history]) + 1
    _budget(axes[0, 0], passes, history)
    _scores(axes[0, 1], trace)
    _agent(axes[1, 0], passes, history)
    _frequency(axes[1, 1], times_selected, len(history))
    last = int(passes.max(initial=1))
    ticks = MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]).tick_values(1, last)
    for ax in (axes[0, 0], axes[0, 1], axes[1, 0]):
        ax.set(xlabel="pass", xlim=(0.5, last + 0.5), xticks=[1, *(tick for tick in ticks if 1 < tick <= last)])
    return figure


def _marks(passes: int) -> int:
    """Return the step between markers, so that they do not overlap."""
    return max(1, passes // 20)


def _legend(ax: Axes, lines: list[Artist] | None = None) -> None:
    """Draw the legend below the panel, where it covers no data."""
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


def _scores(ax: Axes, trace: Iterable[tuple[int, pa.Table]]) -> None:
    ax.set(title="Scores by pass", ylabel="score")
    rows = []
    for index, table in trace:
        score = table["score"].to_numpy()
        known = np.isfinite(score)
        if known.any():
            chosen = score[known & table["selected"].to_numpy()]
            middle = np.median(chosen) if len(chosen) else np.nan
            rows.append([index + 1, *np.percentile(score[known], [5, 25, 50, 75, 95]), middle])
    if not rows:
        _note(ax, "no scores in this run")
        return
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
    lines: list[Artist] = [*ax.get_lines()]
    entropy = np.array([row["policy_entropy"] for row in history])
    if np.isfinite(entropy).any():
        other = ax.twinx()
        lines += other.plot(passes, entropy, "k--^", ms=4, mfc="w", markevery=every, label="policy entropy (right)")
        other.set_ylabel("policy entropy, nats")
    _legend(ax, lines)


def _frequency(ax: Axes, times_selected: np.ndarray, passes: int) -> None:
    ax.set(title="How often samples were selected", xlabel="share of passes", ylabel="samples")
    if not passes:
        _note(ax, "no pass in this run")
        return
    step = -(-passes // 20)  # whole passes per bar: bars covering unequal numbers of passes would look like peaks
    edges = (np.array([*range(0, passes + 1, step), passes + 1]) - 0.5) / passes  # the last bar may be narrower
    ax.hist(times_selected / passes, bins=edges.tolist(), color="0.75", edgecolor="k", hatch="//")
    ax.set_xlim(-0.04 - 0.5 / passes, 1.04 + 0.5 / passes)
    ax.set_xticks(np.linspace(0, 1, 6) if passes > 1 else [0, 1])
