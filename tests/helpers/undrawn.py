"""Runs without drawing, for tests that do not look at it: plots and page take a third of a tiny training."""

from pathlib import Path
from typing import Any

from PIL import Image

from det_seg_agent.reporting import data_page, plots, report


def grey(path: Path) -> Path:
    """Write a small picture."""
    Image.new("RGB", (8, 8)).save(path)
    return path


def leave_out(patch: Any) -> None:
    """Have `patch`, which sets attributes as `setattr` does, put small pictures in the place of plots, and no page."""
    patch(plots, "plot_run", lambda history, times, trace, folder: grey(Path(folder) / "agent.png"))
    patch(report, "plot_levels", lambda classes, folder: grey(Path(folder) / "classes.png"))
    patch(data_page.DataPage, "html", lambda self: "")
