"""What a run leaves, without a toolbox: for every strategy, whatever fails, in folders of any name."""

import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from class_rows import some_classes
from PIL import Image

from det_seg_agent import Selection, Selector, Strategy
from det_seg_agent.reporting.report import STATS, Report
from det_seg_agent.reporting.trace import read
from det_seg_agent.strategies import strategy_names

SAMPLES, PASSES = 40, 6
PICTURES = ("agent.png", "most_selected.jpg", "least_selected.jpg")
DRAWN = ("det_seg_agent.reporting.plots.plot_run", "det_seg_agent.reporting.sheets.contact_sheets")


class First(Strategy):
    """A user's own: the first samples, and one figure."""

    stat_names = ("reward",)

    def select(self, request: Any) -> Selection:
        """Return them."""
        return Selection(torch.arange(request.count))

    def stats(self) -> dict[str, float]:
        """Return it."""
        return {"reward": 0.5}


class Unlike(First):
    """A user's own that names a figure which nothing shows, and gives one that it does not name."""

    stat_names = ("novelty",)

    def stats(self) -> dict[str, float]:
        """Return them."""
        return {"novelty": 1.0, "balance": 0.5}


FIGURES = {"agent": 3, "agent, oscillating": 3, "data_agent_paper": 3, "own": 1}  # of `STATS`; others have none
STRATEGIES: dict[str, dict[str, Any]] = {
    **{name: {"strategy": name} for name in strategy_names()},
    "agent, oscillating": {"schedule": "oscillating", "low": 0.2, "high": 0.6},
    **{f"{name}, native": {"strategy": name, "options": {"native": True}} for name in ("infobatch", "afss")},
    "own": {"strategy": "test_report:First"},
    "own, unlike": {"strategy": "test_report:Unlike"},
}


def report_of(folder: Path, full_images: int | None = None, batch: int = 1, **settings: Any) -> Report:
    """Return the report of a run that has not begun; its images lie in the folder."""
    files = [folder / f"{i:02d}.png" for i in range(SAMPLES)]
    for i, file in enumerate(files):
        Image.new("L", (8, 8), 6 * i).save(file)
    selector = Selector(
        SAMPLES, PASSES, batch=batch, applies_weights=True, classes=some_classes(SAMPLES), **{"ratio": 0.4, **settings}
    )
    return Report(folder, selector, [str(file) for file in files], True, full_images)


def passes(made: Report, which: range) -> list[dict[str, float]]:
    """Make passes; return what the loggers get after each."""
    g = torch.Generator().manual_seed(1)
    features = torch.randn(SAMPLES, 12, generator=g)
    loss, entropy = features[:, 0].exp(), features[:, 1].sigmoid()
    rows = []
    for p in which:
        made.selector.begin_pass(p)
        made.mark()
        for index in torch.tensor(list(made.selector.sampler)).split(8):
            enough = 1 - entropy[index]
            made.selector.observe(index, loss[index], entropy[index], features[index], sufficiency=enough)
        made.add(made.selector.end_pass())
        rows.append(made.scalars())
    return rows


def whole_run(folder: Path, **settings: Any) -> Report:
    """Return the report of a run to its end."""
    made = report_of(folder, **settings)
    made.begin(0)
    passes(made, range(PASSES))
    return made


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_leaves_everything(tmp_path: Path, strategy: str) -> None:
    made = report_of(tmp_path, **STRATEGIES[strategy])
    made.begin(0)
    rows = passes(made, range(PASSES))
    made.end({"quality": 3})
    history = made.selector.history
    table = read(tmp_path / "trace")
    assert table is not None and len(table) == PASSES * SAMPLES
    counts = table.group_by("pass").aggregate([("times", "sum")])["times_sum"].to_pylist()
    assert counts == [row["selected"] for row in history] == [row["agent/selected"] for row in rows]
    assert all((tmp_path / name).stat().st_size > 1000 for name in PICTURES)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["quality"] == 3 and written["images_trained"] == sum(counts) and written["passes"] == PASSES


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_columns_are_those_that_the_strategy_has_in_every_pass(tmp_path: Path, strategy: str) -> None:
    """A CSV file has one header; a column of nothing but NaN tells nothing."""
    rows = passes(report_of(tmp_path, **STRATEGIES[strategy]), range(PASSES))
    assert all(list(row) == list(rows[0]) for row in rows)
    assert all(any(math.isfinite(row[name]) for row in rows) for name in rows[0])
    assert len({name.removeprefix("agent/") for name in rows[0]} & set(STATS)) == FIGURES.get(strategy, 0)


# The end ------------------------------------------------------------------------------------------------------------

FAULTS = [
    OSError(28, "No space left on device"),
    MemoryError(),
    ValueError("bad value"),
    pa.ArrowInvalid("not a Parquet file"),
    RuntimeError("font"),
    SyntaxError("broken PNG"),  # PIL raises it
    AssertionError(),
]


def failing(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises."""

    def fail(*args: object, **options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_nothing_that_only_shows_a_run_can_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: io.StringIO, error: Exception
) -> None:
    made = report_of(tmp_path)
    for name in DRAWN:
        monkeypatch.setattr(name, failing(error))
    assert made.trace is not None
    monkeypatch.setattr(made.trace, "write", failing(error))
    monkeypatch.setattr(made.trace, "drop_from", failing(error))
    made.begin(0)
    passes(made, range(PASSES))
    closing = made.end({"quality": 3})
    assert "trained on" in closing
    assert json.loads((tmp_path / "metrics.json").read_text())["quality"] == 3
    lines = [line for line in messages.getvalue().splitlines() if line.startswith("det_seg_agent: ")]
    assert [line.partition(" cannot")[0] for line in lines] == [
        f"det_seg_agent: {what}" for what in ("the trace", "the plot", "the contact sheets")
    ], "once of each"
    assert all("the run goes on" in line and (str(error) or type(error).__name__) in line for line in lines)


@pytest.mark.parametrize("name", DRAWN)
def test_the_figures_are_written_before_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A stop while a picture is drawn leaves them; and it does stop."""
    made = whole_run(tmp_path)
    monkeypatch.setattr(name, failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        made.end()
    assert json.loads((tmp_path / "metrics.json").read_text())["passes"] == PASSES


def test_a_damaged_trace_is_read_without_its_damaged_files(tmp_path: Path, messages: io.StringIO) -> None:
    made = whole_run(tmp_path)
    trace = tmp_path / "trace"
    whole = (trace / "pass_0001.parquet").read_bytes()
    (trace / "pass_0000.parquet").unlink()
    (trace / "pass_0001.parquet").write_bytes(whole[: len(whole) // 2])
    (trace / "pass_0002.parquet").write_bytes(b"")
    (trace / "pass_0003.parquet").unlink()
    (trace / "pass_0003.parquet").mkdir()
    (trace / "pass_notes.parquet").write_bytes(b"not ours")
    with pytest.warns(UserWarning, match="pass_0001.parquet cannot be read and is left out, as are 2 more files"):
        table = read(trace)
    assert table is not None and sorted(set(table["pass"].to_pylist())) == [4, 5]
    made.end()
    assert all((tmp_path / name).is_file() for name in ("metrics.json", *PICTURES))
    assert messages.getvalue().count("left out") == 1


def test_a_picture_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = whole_run(tmp_path)
    for name in PICTURES:
        (tmp_path / name).write_bytes(b"before")

    def half(self: object, file: Path, *args: object, **options: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    monkeypatch.setattr(Image.Image, "save", half)
    made.finish()
    assert [(tmp_path / name).read_bytes() for name in PICTURES] == [b"before"] * 3
    assert not list(tmp_path.glob(".*.part"))


def test_names_of_any_bytes(tmp_path: Path, messages: io.StringIO) -> None:
    """A folder and images whose names are no UTF-8, as a zip made on Windows unpacks on Linux."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9cran\n"))
    folder.mkdir()
    made = report_of(folder)
    for i, file in enumerate(made.files):
        made.files[i] = str(folder / os.fsdecode(b"\xe9 %d.png" % i))
        os.rename(file, made.files[i])
    made.begin(0)
    passes(made, range(PASSES))
    made.end({"judged_on": made.files[0]})
    assert json.loads((folder / "metrics.json").read_text())["judged_on"] == made.files[0]
    assert all((folder / name).stat().st_size > 1000 for name in PICTURES)
    table = read(folder / "trace")
    assert table is not None and len(table) == PASSES * SAMPLES
    assert "cannot" not in messages.getvalue()
    (folder / "trace/pass_0001.parquet").write_bytes(b"")
    made.finish()
    assert "d\\udce9cran\\n/trace/pass_0001.parquet cannot be read" in messages.getvalue()


def test_loggers_get_the_pictures_and_one_that_fails_ends_nothing(tmp_path: Path, messages: io.StringIO) -> None:
    made, got = whole_run(tmp_path), dict[str, Any]()
    made.show(got.__setitem__)
    assert got == {}, "there are none before the end"
    made.end()
    made.show(got.__setitem__)
    assert list(got) == [path.name for path in made.pictures] and set(PICTURES) <= set(got)
    assert all(image.ndim == 3 and image.shape[2] == 3 and image.dtype == "uint8" for image in got.values())
    made.show(failing(ConnectionError("the server is away")))
    made.show(failing(ConnectionError("the server is away")))
    assert messages.getvalue().count("cannot be written (the server is away): they are in the run's folder") == 1


# Panel and closing sentence -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "ratio", "full_images"), [(1, 0.4, None), (8, 0.4, None), (16, 0.3, None), (8, 0.4, 6 * 48), (8, 1, None)]
)
def test_panel_and_closing_tell_the_same_budget(
    tmp_path: Path, batch: int, ratio: float, full_images: int | None
) -> None:
    made = report_of(tmp_path, full_images, batch, ratio=ratio, strategy="random")
    passes(made, range(PASSES))
    budget = f"{made.cost()['budget']:.0%}"
    assert f"about {budget} of the images of full training, padding included" in made.panel()
    assert f"(budget {budget}, padding included)" in made.closing(5)


@pytest.mark.parametrize("strategy", ["infobatch", "afss"])
def test_no_budget_is_promised_where_the_rule_decides_it(tmp_path: Path, strategy: str) -> None:
    """Nor the ratio, which the rule does not read; how many passes are full the schedule still says."""
    panel = report_of(tmp_path, strategy=strategy, options={"native": True}).panel()
    assert (
        "budget    follows from the strategy's rule" in panel and "in 2 of 6 passes, in the others as many as" in panel
    )
    assert "%" not in panel and "ratio" not in panel and "saves" not in panel
    made = whole_run(tmp_path, strategy=strategy, options={"native": True})
    images = sum(row["selected"] for row in made.selector.history)
    assert f"trained on {images:.0f} of the {SAMPLES * PASSES} images" in made.closing(5)


def test_the_time_of_full_data_is_told_where_it_says_something(tmp_path: Path) -> None:
    made = whole_run(tmp_path, strategy="random")
    assert "full data about" in made.closing(100) and "full data" not in made.closing(7)
    made.pass_seconds = made.pass_seconds[3:]
    assert "100 s since the resume" in made.closing(100) and "full data" not in made.closing(100)
    full = whole_run(tmp_path, strategy="full")
    assert "full data" not in full.closing(100)
