"""A start from what an earlier run knew: `agent.init`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from class_rows import some_classes

from det_seg_agent import ConfigError, Selector, Settings
from det_seg_agent.earlier import earlier
from det_seg_agent.reporting.samples import sample_rows, write_samples
from det_seg_agent.settings import parse
from det_seg_agent.strategies import strategy_names
from det_seg_agent.table import EARLIER, ScoreTable

FILES = [f"/old/data/train/{i:02d}.png" for i in range(40)]
NOW = [f"/new/place/data/train/{i:02d}.png" for i in range(40)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run over 40 samples with rising losses; the last two gave no signal."""
    table = ScoreTable(40)
    table.loss[:38] = torch.arange(38.0)
    table.entropy[:38], table.agreement[:38], table.sufficiency[:38] = 0.5, 0.4, 0.3
    table.score[:38] = torch.linspace(0, 1, 38)
    table.seen[:38], table.last_pass[:38], table.agreed[:38] = 3, 7, 3
    table.agreement_sum[:38] = 1.2
    write_samples(sample_rows(table, FILES), tmp_path)
    return tmp_path


def selector(run: Path, files: list[str] = NOW, **settings: Any) -> Selector:
    """Return a selector that starts from the run."""
    return Selector(
        len(files), 8, samples=files, applies_weights=True, classes=some_classes(len(files)), init=str(run),
        **{"ratio": 0.25, "strategy": "loss", **settings},
    )  # fmt: skip


def test_the_first_selection_follows_the_earlier_run(run: Path) -> None:
    made = selector(run)
    assert made.settings.warmup == 0, "the first full pass is not needed"
    assert made.begin_pass(0).indices.tolist() == [*range(30, 40)], "what gave no signal, then the highest losses"
    assert made.table.last_pass[:38].unique().tolist() == [EARLIER] and int(made.table.seen.sum()) == 0
    rows = sample_rows(made.table, NOW)
    assert rows["last_pass"].null_count == rows["loss_mean"].null_count == 40, "of this run alone"


@pytest.mark.parametrize("strategy", strategy_names())
def test_every_strategy_goes_on_from_it(run: Path, strategy: str) -> None:
    made = selector(run, strategy=strategy)
    for number in range(3):
        index = made.begin_pass(number).indices
        assert len(index) == (40 if made.selects_all else 10)
        for batch in index.split(5):
            half = torch.full((len(batch),), 0.5)
            made.observe(batch, half + batch, half, torch.rand(len(batch), 6), sufficiency=half, agreement=half)
        made.end_pass()
        assert bool((made.table.seen[index] > 0).all()) and bool((made.table.last_pass[index] == number).all())


def test_new_images_come_first_and_lost_ones_do_not_matter(run: Path) -> None:
    files = [*NOW[:20], *(f"/new/place/data/train/extra{i}.png" for i in range(5))]
    assert selector(run, files, ratio=0.4).begin_pass(0).indices.tolist() == [*range(15, 25)]


def test_files_are_recognised_by_unique_names_in_other_folders(run: Path) -> None:
    signals, score = earlier(run, ["/else/a/07.png", "/else/b/03.png"])
    assert signals.loss.tolist() == [7, 3] and score.tolist() == pytest.approx([7 / 37, 3 / 37], abs=1e-4)
    with pytest.raises(ConfigError, match="it knows none of the 2 images, /else/a/07.png first"):
        earlier(run, ["/else/a/07.png", "/else/b/07.png"])


def test_a_resumed_run_does_not_read_it_again(run: Path) -> None:
    made = selector(run)
    made.begin_pass(0)
    made.end_pass()
    state = made.state_dict()
    (run / "samples.parquet").unlink()
    again = selector(run)
    again.load_state_dict(state)
    assert again.begin_pass(1).indices.tolist() == made.begin_pass(1).indices.tolist()


def test_warmup_is_kept_where_it_is_given() -> None:
    assert parse(Settings, {"init": "run", "warmup": 2}).warmup == 2
    assert parse(Settings, {"init": "run"}).warmup == 0 and parse(Settings, {}).warmup == 1
    saved = parse(Settings, {"init": "run", "warmup": 1}).model_dump()
    assert parse(Settings, saved).warmup == 1


def test_what_cannot_be_started_from_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent.init=.*nowhere: its samples.parquet cannot be read"):
        selector(tmp_path / "nowhere").begin_pass(0)
    (tmp_path / "samples.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ConfigError, match="its samples.parquet cannot be read"):
        selector(tmp_path).begin_pass(0)
    with pytest.raises(ConfigError, match="this loop does not tell its image files"):
        Selector(40, 8, init=str(run), strategy="loss").begin_pass(0)
