"""What a run says about each sample: the rows, the suspects and the page."""

import re
from pathlib import Path

import pyarrow.csv
import pytest
import torch
from class_rows import some_classes
from PIL import Image
from signal_rows import sample_signals

from det_seg_agent.classes import Classes
from det_seg_agent.reporting.data_page import DataPage, write_page
from det_seg_agent.reporting.looks import Look, drawn, focus
from det_seg_agent.reporting.samples import COLUMNS, read_samples, sample_rows, write_samples
from det_seg_agent.reporting.suspects import TELL, suspects_of
from det_seg_agent.sums import SampleSignals
from det_seg_agent.table import ScoreTable

SAMPLES, PASSES, WRONG = 40, 8, 7
DOCS = Path(__file__).parents[2] / "docs/data.md"


def signals(index: torch.Tensor, loss: torch.Tensor, agreement: torch.Tensor) -> SampleSignals:
    """Return the signals of a pass."""
    half = torch.full((len(index),), 0.5)
    return sample_signals(index, loss=loss, entropy=half, agreement=agreement, relative=torch.zeros(len(index), 3))


def trained() -> tuple[ScoreTable, Classes]:
    """Return a table after some passes: agreement rises, a rare class is learnt worse, sample 7 is disagreed with.

    Odd samples are seen in every second pass, and the last one never.
    """
    classes = some_classes(SAMPLES)
    classes.read_shares(SAMPLES)
    table = ScoreTable(SAMPLES, classes)
    for number in range(PASSES):
        index = torch.arange(SAMPLES - 1)
        index = index[(index % 2 == 0) | (number % 2 == 0)]
        agreement = torch.full((len(index),), 0.1 + 0.1 * number)
        agreement[index % 16 == 0] *= 0.5  # they show the rare class
        agreement[index == WRONG] = 0.02
        table.update(signals(index, index.float() + number, agreement), number)
        table.selected[index] += 1
    return table, classes


def test_rows_have_the_documented_columns() -> None:
    table, classes = trained()
    rows = sample_rows(table, [f"{i}.png" for i in range(SAMPLES)], classes)
    assert rows.column_names == list(COLUMNS) and rows.schema.types == [kind for kind, _ in COLUMNS.values()]
    documented = re.findall(
        r"^\| `(\w+)` \| [^|]*\|$", DOCS.read_text(encoding="utf-8").partition("## After")[2], flags=re.M
    )
    assert documented[: len(COLUMNS)] == list(COLUMNS)
    first, odd, never = (rows.slice(i, 1).to_pylist()[0] for i in (2, 3, SAMPLES - 1))
    assert (first["selected"], first["seen"], first["last_pass"], first["file"]) == (8, 8, 8, "2.png")
    assert first["loss"] == 9 and first["loss_mean"] == pytest.approx(5.5)
    assert first["agreement_mean"] == pytest.approx(0.45) and first["classes"] == "sky; road"
    assert odd["seen"] == 4 and odd["loss_mean"] == pytest.approx(3 + 3)
    assert never["selected"] == 0
    assert all(never[name] is None for name in ("last_pass", "loss", "loss_mean", "agreement_mean", "suspect", "why"))


def test_what_is_disagreed_with_in_its_class_is_suspected() -> None:
    """Neither a class that is learnt worse, nor a sample that was seen in other passes."""
    table, classes = trained()
    found = suspects_of(table, classes.shares)
    assert int(found.score.nan_to_num(nan=-1).argmax()) == WRONG and found.score[WRONG] > 0.7
    others = [i for i in range(SAMPLES - 1) if i != WRONG]
    assert float(found.score[others].max()) < TELL
    assert "agreement 0.02 in 4 passes" not in found.why(0, 4) and found.why(0, 4) == ""
    assert re.fullmatch(r"agreement 0\.\d\d in 4 passes, usual for its classes 0\.\d\d", found.why(WRONG, 4))


def test_few_passes_say_little() -> None:
    table = ScoreTable(4)
    for number in range(6):
        index = torch.arange(4 if number == 0 else 3)
        table.update(signals(index, torch.ones(len(index)), torch.tensor([0.0, 0.5, 0.5, 0.0])[: len(index)]), number)
    score = suspects_of(table, None).score
    assert score[0] > 0.85 > 0.67 > score[3] > 0.4


def test_a_state_goes_on_with_its_sums() -> None:
    table, _ = trained()
    again = ScoreTable(SAMPLES)
    again.load_state_dict(table.state_dict())
    assert all(torch.equal(getattr(again, name), getattr(table, name)) for name in ScoreTable.SUMS)


def test_parquet_and_csv_hold_the_same(tmp_path: Path) -> None:
    table, classes = trained()
    rows = sample_rows(table, ['a "b", c.png', "\udce4.png", *(f"{i}.png" for i in range(2, SAMPLES))], classes)
    write_samples(rows, tmp_path)
    assert read_samples(tmp_path).equals(rows)
    csv = pyarrow.csv.read_csv(tmp_path / "samples.csv")
    assert csv["file"].to_pylist() == rows["file"].to_pylist()
    assert csv["loss_mean"].to_pylist() == pytest.approx(rows["loss_mean"].to_pylist(), nan_ok=True)


def page_of(tmp_path: Path, **more: object) -> str:
    """Return the page of the trained table, with images."""
    table, classes = trained()
    classes.passes = {0: [0.9, 0.4, 0.05, float("nan"), 0.2], 1: [0.95, 0.45, float("nan"), float("nan"), 0.3]}
    files = [str(tmp_path / f"<{i}>.png") for i in range(SAMPLES)]
    for i, file in enumerate(files):
        if i % 5:
            Image.new("L", (40, 30), 5 * i).save(file)
    rows = sample_rows(table, files, classes)
    content = DataPage(rows, files, PASSES, "agent", classes, **more).html()  # type: ignore[arg-type]
    assert write_page(content, tmp_path / "data.html").read_text(encoding="utf-8") == content
    return content


def test_the_page_is_one_file_without_scripts(tmp_path: Path) -> None:
    def labels(indices: object) -> list[Look | None]:
        return [Look(torch.tensor([[0.1, 0.1, 0.5, 0.5]]).numpy(), ["<b>"]) for _ in indices]  # type: ignore

    content = page_of(tmp_path, labels=labels)
    assert "<script" not in content and "http" not in content and "&lt;1&gt;.png" in content and "<1>" not in content
    assert set(re.findall(r'src="([^,]*),', content)) == {"data:image/jpeg;base64"}
    assert "unreadable" in content and "width=device-width" in content
    for heading in (
        "Suspected label errors",
        "Most selected",
        "Least selected",
        "Hardest",
        "Most uncertain",
        "Classes",
    ):
        assert f"<h2>{heading}</h2>" in content
    assert "Not learnt (level under 0.1): car." in content and "Learnt (level at least 0.5): sky." in content
    assert "&lt;7&gt;.png: agreement" in content


def test_a_page_does_without_what_fails(tmp_path: Path) -> None:
    said: list[str] = []

    def failing(indices: object) -> list[Look | None]:
        raise RuntimeError("no model")

    content = page_of(tmp_path, predictions=failing, warn=said.append)
    assert said == ["data.html shows no predictions: RuntimeError: no model"] and "<h2>Hardest</h2>" in content


def test_boxes_borders_and_names_are_drawn() -> None:
    image = Image.new("RGB", (100, 80), "#808080")
    boxed = drawn(image, Look(torch.tensor([[0.2, 0.5, 0.6, 0.9]]).numpy(), ["car"]))
    assert boxed.getpixel((20, 60)) == (255, 255, 255) and boxed.getpixel((40, 55)) == (128, 128, 128)
    mask = torch.zeros(8, 10, dtype=torch.uint8)
    mask[:, 5:] = 3
    masked = drawn(image, Look(mask=mask.numpy(), classes={0: "sky", 3: "road"}))
    assert masked.getpixel((50, 5)) == (255, 255, 255) and masked.getpixel((49, 5)) == (0, 0, 0)
    assert masked.getpixel((5, 5)) == (128, 128, 128)
    assert drawn(image, None) is image


def test_small_objects_are_shown_from_near() -> None:
    small = focus([Look(torch.tensor([[0.9, 0.9, 0.95, 0.95]]).numpy(), ["a"])])
    assert small is not None and small[2] - small[0] == pytest.approx(0.3) and small[2] == pytest.approx(1)
    assert focus([Look(torch.tensor([[0.1, 0.1, 0.9, 0.5]]).numpy(), ["a"]), None]) is None
    assert focus([None]) is None
