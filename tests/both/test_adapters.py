"""What both adapters promise, on the real toolboxes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import ADAPTERS
from undrawn import undrawn

from det_seg_agent import ConfigError, StateError
from det_seg_agent.reporting.trace import read

pytestmark = pytest.mark.slow  # it trains

RATIO = {"ratio": 0.4}


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest, scenes: Path, tmp_path: Path) -> Any:
    """An adapter with a folder of its own."""
    return ADAPTERS[request.param](scenes, tmp_path)


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """Return whether two models are equal bit for bit."""
    return all(torch.equal(one[key], two[key]) for key in one)


def test_full_is_the_stock_training(adapter: Any) -> None:
    full = adapter.train("full", strategy="full")
    assert same(adapter.train("stock", stock=True).weights, full.weights)
    assert full.selector is not None and bool((full.selector.table.selected == 8).all())


def check_what_is_left(run: Any, strategy: str) -> None:
    """Check selections, trace, pictures, figures and columns; `test_report.py` has all strategies."""
    counts = [48, *[19] * 6, 48]
    assert run.selector is not None
    assert [row["selected"] for row in run.selector.history] == counts
    table = read(run.folder / "trace")
    assert table is not None and len(table) == 8 * 48
    by_pass = table.group_by("pass").aggregate([("selected", "sum")])["selected_sum"].to_pylist()
    assert by_pass == counts
    assert run.selector.table.selected.sum() == sum(counts)
    assert bool((run.selector.table.seen > 0).all()) and bool(run.selector.table.loss.isfinite().all())
    for name in ("agent.png", "most_selected.jpg", "least_selected.jpg"):
        assert (run.folder / name).stat().st_size > 1000
    figures = json.loads((run.folder / "metrics.json").read_text())
    assert figures["images_trained"] == run.selector.history[-1]["images"] and figures["passes"] == 8
    assert "agent/selected" in run.scalars and "agent/images" in run.scalars
    assert ("agent/balance" in run.scalars) == (strategy == "agent")


@pytest.mark.draws
@pytest.mark.parametrize(
    ("adapter", "strategy"),
    [*((name, "agent") for name in ADAPTERS), ("detection", "infobatch"), ("segmentation-iterations", "infobatch")],
    indirect=["adapter"],
)
def test_a_run_leaves_everything_and_goes_on_exactly_after_a_stop(adapter: Any, strategy: str) -> None:
    """Stopped within a pass after the last checkpoint: the same selections, signals and weights as without a stop."""
    whole = adapter.train("whole", **RATIO, strategy=strategy)
    check_what_is_left(whole, strategy)
    with undrawn():
        adapter.train("cut", stop=True, **RATIO, strategy=strategy)
        again = adapter.train("cut", resume=True, **RATIO, strategy=strategy)
    one, two = read(whole.folder / "trace"), read(again.folder / "trace")
    assert one is not None and one.equals(two)
    assert same(whole.weights, again.weights)
    # as text: what a strategy does not have is NaN
    assert json.dumps(whole.selector.history) == json.dumps(again.selector.history)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.5}, "agent.ratio=1.5"),
        ({"ratios": 0.5}, "Did you mean agent.ratio"),
        ({"strategy": "magic"}, "infobatch"),
        ({"options": {"lrr": 1}}, "Did you mean agent.options.lr"),
    ],
)
def test_wrong_settings_stop_before_training(adapter: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, StateError), match=message):
        adapter.train("wrong", **settings)
    assert not [path for path in (adapter.folder / "wrong").glob("**/*") if path.suffix in (".pt", ".pth")]
