"""The pictures of what was selected, and the table of how often by kind."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compare_runs import write
from PIL import Image

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.matrix import read
from det_seg_agent.compare.pictures import draw_sheets, pictures
from det_seg_agent.compare.selection import selection_figures
from det_seg_agent.scenes import kinds, write_scenes

IMAGES = 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Scenes of all kinds."""
    return write_scenes(tmp_path / "scenes", IMAGES, 4, 64, duplicates=30, wrong_labels=20, classes=8, long_tail=10)


def leave_trace(folder: Path, passes: list[np.ndarray]) -> Path:
    """Write the trace of a run with these selections; the score rises with the index."""
    folder.mkdir(parents=True)
    for i, chosen in enumerate(passes):
        table = pa.table({"selected": chosen, "score": np.arange(len(chosen), dtype=np.float32)})
        pq.write_table(table, folder / f"pass_{i:04d}.parquet")
    return folder


def selections(root: Path) -> list[np.ndarray]:
    """Return passes: a full one, then twice all duplicates and nothing else, then what is no duplicate."""
    duplicate = np.array([kind == "duplicate" for kind in kinds(root).values()])
    return [np.ones(IMAGES, bool), duplicate, duplicate, ~duplicate]


def finish(folder: Path, cell: Cell, **result: Any) -> tuple[Cell, dict[str, Any]]:
    """Leave a finished cell."""
    place = folder / f"{cell.folder}-abcdef"
    place.mkdir(parents=True, exist_ok=True)
    content = {"key": cell.key, "sources": "s", "finished": "now", "place": str(place), **result}
    (place / "result.json").write_text(json.dumps(content))
    return cell, content


def test_sheets_show_the_selecting_passes(tmp_path: Path, root: Path) -> None:
    leave_trace(tmp_path / "cell/run/trace", selections(root))
    draw_sheets(tmp_path / "cell", root)
    first = next(f"{root}/train/{name}" for name, kind in reversed(kinds(root).items()) if kind == "duplicate")
    with Image.open(tmp_path / "cell/most_selected.jpg") as sheet, Image.open(first) as image:
        mine = np.asarray(sheet.convert("RGB").crop((30, 36, 170, 176)).resize((32, 32)), float)
        side = 146
        shown = Image.new("RGB", (194, 146), "white")
        shown.paste(image.resize((side, side)), ((194 - side) // 2, 0))
        expected = np.asarray(shown.crop((27, 2, 167, 142)).resize((32, 32)), float)
    assert np.abs(mine - expected).mean() < 12, "of equal counts the highest score comes first"
    leave_trace(tmp_path / "full/run/trace", [np.ones(IMAGES, bool)])
    draw_sheets(tmp_path / "full", root)
    assert not list((tmp_path / "full").glob("*.jpg"))


def test_the_page_holds_the_pictures_of_each_strategy_and_how_often_each_kind(tmp_path: Path, root: Path) -> None:
    _, cells = read(write(tmp_path / "c.yaml", strategies=["loss", "agent"]))
    trace = leave_trace(tmp_path / "trace", selections(root))
    figures = selection_figures(trace, list(kinds(root).values()))
    assert sum(figures["numbers"].values()) == IMAGES and figures["numbers"]["duplicate"] == 12
    done = [finish(tmp_path, cell, selection=figures if cell.role == "selection" else {}) for cell in cells]
    mean = (2 * 12 + 28) / 3 / IMAGES
    text = pictures(done)
    table = dict(re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text))
    assert table.keys() == {"random 0.5", "even 0.5", "quality 0.5", "loss 0.5", "agent 0.5"}
    values = dict(zip(figures["numbers"], re.findall(r"<td>(.*?)</td>", table["agent 0.5"]), strict=True))
    assert values["duplicate"] == f"{2 / 3 / mean:.2f}" and values["wrong"] == f"{1 / 3 / mean:.2f}"
    assert "<img" not in text, "no run has left a sheet"

    for label, grey in (("agent", 50), ("loss", 200)):
        cell = next(cell for cell in cells if cell.label == label)
        (tmp_path / f"{cell.folder}-abcdef" / "run").mkdir()
        Image.new("L", (8, 8), grey).save(tmp_path / f"{cell.folder}-abcdef" / "run/most_selected.jpg")
    sheets = re.findall(r'src="data:image/jpeg;base64,(.*?)"', pictures(done))
    greys = [Image.open(io.BytesIO(base64.b64decode(data))).getpixel((4, 4)) for data in sheets]
    assert greys == [pytest.approx(50, abs=4), pytest.approx(200, abs=4)], "the agent first, then the other strategy"
    captions = re.findall(r"<figcaption>Images that (.*?) selected most often", pictures(done))
    assert captions == ["detection agent 0.5 seed 0", "detection loss 0.5 seed 0"]


def test_nothing_selected_has_no_section(tmp_path: Path) -> None:
    _, cells = read(write(tmp_path / "c.yaml"))
    assert pictures([finish(tmp_path, cells[0], selection={})]) == ""


def test_a_model_of_its_own_stands_beside_the_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "c.yaml")
    host = {"model": "yolov8n.yaml", "epochs": 2, "optimizer": "SGD"}
    monkeypatch.chdir("/")
    _, cells = read(write(config, host=host))
    assert {cell.host["model"] for cell in cells} == {str(tmp_path / "yolov8n.yaml")}
    _, cells = read(write(config, host={**host, "model": "yolov8s.yaml"}))
    assert {cell.host["model"] for cell in cells} == {"yolov8s.yaml"}, "one of the host's"
