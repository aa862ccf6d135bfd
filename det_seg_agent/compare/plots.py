"""Plots of the results page: quality over cost, and learning curves, legible without colour."""

import html
import io
import re
import zlib
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from det_seg_agent.compare.cells import EVEN, FULL, QUALITY, RANDOM, SHORT
from det_seg_agent.compare.rows import Row, front, spread
from det_seg_agent.compare.stats import band

MARKERS = "sDv^<>Pp*hX8d"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)), (0, (3, 1)))
GREYS = ("0.0", "0.45", "0.2", "0.6")
FIXED = {FULL: "o", SHORT: "$s$", RANDOM: "x", EVEN: "$e$", QUALITY: "$q$"}


def styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return marker, line style and grey of each label, the same in every plot of a task."""
    labels = list(dict.fromkeys(row.label for row in rows))
    free = iter(MARKERS * 3)
    return {
        label: {
            "marker": FIXED.get(label) or next(free),
            "linestyle": LINES[i % len(LINES)],
            "color": GREYS[i % len(GREYS)],
        }
        for i, label in enumerate(labels)
    }


def svg(figure: Figure, label: str) -> str:
    """Return a figure as an SVG element with `label` as its accessible name, and ids that are unique on the page."""
    FigureCanvasSVG(figure)
    out = io.StringIO()
    with rc_context({"svg.hashsalt": label}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    mine = f"f{zlib.crc32(label.encode()):x}-"
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{mine}", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _below(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def quality_over_cost(rows: Sequence[Row], unit: str) -> str:
    """Return an SVG of mean quality, with its spread over seeds, against the budget; a line marks the Pareto front."""
    figure = Figure(figsize=(8.4, 4.9), layout="constrained")
    ax = figure.subplots()
    best = front(rows)
    style = styles(rows)
    at: dict[float, list[Row]] = {}
    for row in rows:
        at.setdefault(round(row.budget, 2), []).append(row)
    place = {}
    for row in rows:
        near = at[round(row.budget, 2)]
        place[row.name] = 100 * row.budget + (near.index(row) - (len(near) - 1) / 2) * 0.6  # side by side
    ax.plot([place[row.name] for row in best], [row.mean for row in best], "-", color="0.75", lw=5, zorder=0)
    for row in rows:
        look = {**style[row.label], "linestyle": ""}
        error = spread(list(row.quality.values()))
        ax.errorbar(
            place[row.name], row.mean, yerr=error, ms=7, mfc="white" if row.is_control else None,
            capsize=3, elinewidth=0.8, label=row.label, **look,
        )  # fmt: skip
    ax.set(xlabel="images trained on, % of full training (side by side where equal)", ylabel=f"{unit}, %")
    ax.grid(alpha=0.25)
    _below(figure, ax)
    return svg(figure, f"{unit} over the images trained on")


def learning_curves(rows: Sequence[Row], ratio: float, over: str = "images") -> tuple[str, str] | None:
    """Return an SVG of the curves of full data and of each strategy at a ratio, and the name of the values.

    A line is the mean over seeds, a band reaches from the lowest to the highest seed.

    Args:
        rows: the rows of a task.
        ratio: the ratio.
        over: "images" or "seconds" of the training, with its validations.

    Returns:
        None if no row has such a curve.
    """
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    ax = figure.subplots()
    style, name = styles(rows), ""
    for row in rows:
        curves = row.curves if over == "images" else row.timed_curves
        found = band([points for _, points in curves.values()]) if row.ratio in (1.0, ratio) else None
        if found is None:
            continue
        name = next(iter(curves.values()))[0]
        x, y, low, high = found
        look = style[row.label]
        if len(curves) > 1:
            ax.fill_between(x, low, high, color=look["color"], alpha=0.1, lw=0)
        ax.plot(x, y, ms=5, lw=1.2, markevery=max(1, len(x) // 8), label=row.label, **look)
    if not name:
        return None
    unit = "images trained on" if over == "images" else "seconds of training and validation"
    ax.set(xlabel=unit, ylabel=name, xlim=(0, None))
    ax.grid(alpha=0.25)
    _below(figure, ax)
    return svg(figure, f"{name} over {over}, ratio {ratio:g}"), name
