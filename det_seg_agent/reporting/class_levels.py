"""How well each class was done in each pass: `classes.csv` and the heat map `classes.png`. `Report` writes them."""

import csv
from pathlib import Path

import numpy as np

from det_seg_agent.classes import Classes
from det_seg_agent.files import printable, replacing

ROWS = 60  # classes that a heat map shows


def write_levels(classes: Classes, folder: Path) -> Path:
    """Write `folder/classes.csv`: a row per pass, and a column per class with its level, see `Classes.level`.

    A level is empty if the pass did not show the class.
    """
    path = Path(folder) / "classes.csv"
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["pass", *map(printable, classes.names)])
        for number, levels in sorted(classes.passes.items()):
            rows.writerow([number + 1, *("" if level != level else f"{level:.4f}" for level in levels)])
    return path


def plot_levels(classes: Classes, folder: Path) -> Path:
    """Write `folder/classes.png`, a heat map with a row per class, best last pass first; the lowest `ROWS` if more."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not above: `classes.csv` needs none of it
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    path = Path(folder) / "classes.png"
    passes = sorted(classes.passes)
    levels = np.array([classes.passes[number] for number in passes], dtype=np.float64).T
    last = np.where(np.isfinite(classes.level.numpy()), classes.level.numpy(), -1.0)
    order = np.argsort(-last, kind="stable")[-ROWS:]
    figure = Figure(figsize=(8, 1.6 + 0.2 * len(order)), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    edges = (passes[0] + 0.5, passes[-1] + 1.5, len(order) - 0.5, -0.5)
    shown = np.full((len(order), passes[-1] - passes[0] + 1), np.nan)  # a pass without counts stays empty
    shown[:, np.array(passes) - passes[0]] = levels[order]
    ax.set_facecolor("white")
    ax.patch.set_hatch("////")
    ax.patch.set_edgecolor("0.75")
    image = ax.imshow(shown, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=edges)
    ax.set_yticks(range(len(order)), [short(classes.names[row]) for row in order], fontsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    more = f", the lowest {ROWS} of {len(classes)}" if len(classes) > ROWS else ""
    ax.set(xlabel="pass", title=f"Level of each class in training{more}; hatched: not shown")
    figure.colorbar(image, ax=ax, label="level")
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)
    return path


def short(name: str) -> str:
    """Return a class's name in at most 24 characters."""
    name = printable(name)
    return name if len(name) <= 24 else name[:23] + "\u2026"
