"""The tool that tests ideas on traces: its figures by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from trace_tests import auroc, falls, main


def test_auroc_by_hand() -> None:
    positive = np.array([True, False, True, False])
    assert auroc(np.array([4.0, 1, 3, 2]), positive) == 1
    assert auroc(np.array([4.0, 3, 1, 2]), positive) == 0.5
    assert auroc(np.array([1.0, 1, 1, 1]), positive) == 0.5
    assert np.isnan(auroc(np.arange(4.0), np.zeros(4, bool)))


def test_a_lasting_fall_repeats_and_noise_does_not() -> None:
    draw = np.random.default_rng(0)
    speed = draw.normal(size=400)
    steady = np.arange(16)[:, None] * speed + draw.normal(size=400) * 10
    assert falls(steady)["repeats"] > 0.3
    found = falls(draw.normal(size=(16, 400)))
    assert abs(found["repeats"]) < 0.15 and found["level"] > 0.5 and abs(found["level before"]) < 0.1


def test_a_folder_without_cells_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2 and "no `full` cell" in capsys.readouterr().err
