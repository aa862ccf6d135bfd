"""A run that starts from an earlier one's samples, in each toolbox."""

from pathlib import Path
from typing import Any

import pytest
from adapters import ADAPTERS

from det_seg_agent import ConfigError
from det_seg_agent.reporting.samples import read_samples
from det_seg_agent.reporting.trace import read

pytestmark = pytest.mark.slow  # it trains


@pytest.mark.parametrize("name", ADAPTERS)
def test_it_begins_with_a_selection(name: str, scenes: Path, tmp_path: Path) -> None:
    adapter: Any = ADAPTERS[name](scenes, tmp_path)
    first = adapter.train("first", ratio=0.4, strategy="random")
    again = adapter.train("again", ratio=0.4, strategy="loss", init=str(first.folder))
    assert [row["selected"] for row in again.selector.history] == [*[19] * 7, 48]
    loss = read_samples(first.folder)["loss"].to_pylist()
    trace = read(again.folder / "trace")
    assert trace is not None
    chosen = {i for i, is_in in enumerate(trace.slice(0, 48)["selected"].to_pylist()) if is_in}
    highest = sorted(range(48), key=lambda i: -loss[i])[:19]
    assert len(chosen & set(highest)) >= 18, "ties of rounded losses aside"
    with pytest.raises(ConfigError, match="its samples.parquet cannot be read"):
        adapter.train("none", ratio=0.4, strategy="loss", init=str(tmp_path / "nowhere"))
