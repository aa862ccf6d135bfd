"""The levels of the classes: a table and a heat map of a run."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from det_seg_agent import Selector
from det_seg_agent.classes import Classes
from det_seg_agent.reporting.class_levels import ROWS, plot_levels
from det_seg_agent.reporting.report import Report

NAMES = ("sky, and clouds", "road")


def run(folder: Path, counts: list[torch.Tensor | None], names: tuple[str, ...] = NAMES) -> Report:
    """Train `len(counts)` passes whose class counts are given; return the report at the end."""
    classes = Classes(names, lambda: [np.ones(len(names), int)] * 4)
    selector = Selector(4, len(counts), ratio=0.5, warmup=0, final_full=0, classes=classes)
    report = Report(folder, selector, ["x.png"] * 4, trace=False)
    for number, given in enumerate(counts):
        chosen = selector.begin_pass(number).indices
        zeros = torch.zeros(len(chosen))
        selector.observe(chosen, zeros, zeros, torch.zeros(len(chosen), 2), class_counts=given)
        report.add(selector.end_pass())
    report.end()
    return report


def test_a_row_per_pass_has_the_level_of_each_class(tmp_path: Path) -> None:
    first, second = torch.tensor([[1.0, 0], [2, 1], [3, 0]]), torch.tensor([[3.0, 1], [3, 1], [3, 4]])
    run(tmp_path, [first, second])
    with (tmp_path / "classes.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["pass", *NAMES], ["1", "0.2500", ""], ["2", "1.0000", "0.2500"]]
    assert json.loads((tmp_path / "metrics.json").read_text())["passes"] == 2


def test_the_heat_map_is_dark_where_the_level_is_high(tmp_path: Path) -> None:
    high, low = torch.tensor([[1.0, 0], [1, 1], [1, 1]]), torch.tensor([[0.0, 0], [1, 1], [1, 1]])
    run(tmp_path, [low, low, high])
    dark = imread(tmp_path / "classes.png")[..., :3].max(2) < 0.1
    width = dark.shape[1] // 2
    assert dark[:, width:].mean() > dark[:, :width].mean(), "the last pass, on the right, is dark in one row"


@pytest.mark.parametrize("count", [ROWS - 1, ROWS + 40])
def test_a_heat_map_of_many_classes_stays_readable(tmp_path: Path, count: int) -> None:
    classes = Classes([f"class {i}" for i in range(count)], list)
    classes.level = torch.linspace(0, 1, count)
    classes.passes = {0: classes.level.tolist(), 2: classes.level.tolist()}
    height, width = imread(plot_levels(classes, tmp_path)).shape[:2]
    assert height < 1800 and width == 880


def test_a_run_without_counts_writes_neither(tmp_path: Path) -> None:
    run(tmp_path, [None, None])
    assert not list(tmp_path.glob("classes.*"))
