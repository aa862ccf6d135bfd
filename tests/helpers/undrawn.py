"""Runs without drawing, for tests that do not look at it: plots and page take a third of a tiny training."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from det_seg_agent.reporting import data_page, plots, report


def grey(path: Path) -> Path:
    """Write a small picture."""
    Image.new("RGB", (8, 8)).save(path)
    return path


@contextmanager
def undrawn() -> Iterator[None]:
    """Put small pictures in the place of plots, and no page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_run", lambda history, times, trace, folder: grey(Path(folder) / "agent.png"))
        patch.setattr(report, "plot_levels", lambda classes, folder: grey(Path(folder) / "classes.png"))
        patch.setattr(data_page.DataPage, "html", lambda self: "")
        yield
