"""Tables of results in a document."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from compare_results import SEEDS, finished_of, result_of
from compare_runs import write

from det_seg_agent.compare import pool
from det_seg_agent.compare.cells import RANDOM
from det_seg_agent.compare.cli import main
from det_seg_agent.compare.documents import write_tables
from det_seg_agent.compare.fingerprint import sources
from det_seg_agent.compare.matrix import read
from det_seg_agent.compare.report import Report
from det_seg_agent.compare.store import Store
from det_seg_agent.compare.summary import summarise
from det_seg_agent.errors import ConfigError

DOCUMENT = """# Mine

Text before.

<!-- compare: c detection 0.5 -->
| an | old | table |
<!-- end of compare -->

Between.

<!-- compare: c detection 0.5 classes -->
<!-- end of compare -->

<!-- compare: other detection 0.5 -->
| stays |
<!-- end of compare -->
"""


def test_tables_are_made_between_their_marks_and_all_else_stays(tmp_path: Path) -> None:
    path, summary = tmp_path / "d.md", summarise("detection", finished_of(tmp_path), Report())
    path.write_text(DOCUMENT)
    assert write_tables(path, "c", [summary]) == 2
    text = path.read_text()
    assert "old" not in text and text.startswith("# Mine\n\nText before.\n\n<!-- compare: c detection 0.5 -->\n\n| ")
    assert "Between." in text and "<!-- compare: other detection 0.5 -->\n| stays |\n<!-- end of compare -->\n" in text
    rows = {
        line.split(" | ")[0].removeprefix("| "): line.removesuffix(" |").split(" | ")
        for line in text.splitlines()
        if line.startswith("| ")
    }
    loss = summary.primary["loss 0.5"][RANDOM]
    assert loss.interval is not None
    assert rows["strategy"] == [
        "| strategy", "macro AP", "AP", "rarest AP", "AP50", "seeds", "images", "CPU s", "less random", "Holm p",
        "less full, shorter",
    ]  # fmt: skip
    assert rows["loss"][5] == ", ".join(map(str, range(SEEDS))) and rows["loss"][6:8] == ["75", "10"]
    assert rows["loss"][8] == f"{loss.mean:+.2f} [{loss.interval[0]:+.2f}, {loss.interval[1]:+.2f}]"
    assert rows["loss"][9] == f"{loss.p_holm:.3f}" and rows["full"][8:] == ["-", "-", "-"]
    assert rows["d"][1:4] == ["1", "10", "19"], "images, test images and test objects of a class"
    assert "tests in the family" in text
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert max(map(len, lines)) <= 100, "as the documents' own lines"
    assert write_tables(path, "c", [summary]) == 2 and path.read_text() == text, "once more changes nothing"


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("", "it has no place for c. Mark one by <!-- compare: NAME TASK RATIO"),
        ("<!-- compare: other detection 0.5 -->\n<!-- end of compare -->", "it has no place for c"),
        ("<!-- compare: c detection -->\n<!-- end of compare -->", "is not of the form"),
        ("<!-- compare: c detection 0.5 class -->\n<!-- end of compare -->", "0.5 class --> is not of the form"),
        ("<!-- compare: c detection 0.3 -->\n<!-- end of compare -->", "0.3 -->: there is no finished cell"),
        ("<!-- compare: c segmentation 0.5 -->\n<!-- end of compare -->", "there is no finished cell of this task"),
    ],
)
def test_a_wrong_mark_is_named(tmp_path: Path, mark: str, message: str) -> None:
    path, summary = tmp_path / "d.md", summarise("detection", finished_of(tmp_path, 1), Report())
    path.write_text(f"Text.\n{mark}\n")
    with pytest.raises(ConfigError, match=message):
        write_tables(path, "c", [summary])
    assert path.read_text() == f"Text.\n{mark}\n"
    with pytest.raises(ConfigError, match="--tables .*none.md"):
        write_tables(tmp_path / "none.md", "c", [summary])


def test_the_command_writes_them_from_the_folder_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder, document = write(tmp_path / "c.yaml"), tmp_path / "out", tmp_path / "d.md"
    document.write_text(DOCUMENT)
    resolved = {"data": "d"}
    monkeypatch.setattr(
        pool.Runner, "prepare", lambda self, cells, *_: [replace(cell, resolved=resolved) for cell in cells]
    )
    for cell in (replace(cell, resolved=resolved) for cell in read(config)[1]):
        place = Store(folder).place(cell)
        place.mkdir(parents=True)
        result = {**result_of(cell), "key": cell.key, "sources": sources(cell.task, cell.strategy)}
        (place / "result.json").write_text(json.dumps(result))
    assert main([str(config), "--folder", str(folder), "--tables", str(document)]) == 0
    assert f"{document}: 2 tables" in capsys.readouterr().out
    text = document.read_text()
    assert "| loss | 3" in text and "One seed decides nothing" in text
    assert (folder / "results.json").exists() and (folder / "classes.csv").exists()
