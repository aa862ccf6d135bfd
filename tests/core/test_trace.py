"""The trace: what is written comes back, once, whatever was interrupted."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from det_seg_agent.reporting.trace import Trace, read, read_passes, rounded
from det_seg_agent.table import ScoreTable


def table_of(rows: int, pass_index: int, seen: list[int]) -> ScoreTable:
    """Return a table in which pass `pass_index` showed `seen`, and pass 0 the rest."""
    table = ScoreTable(rows)
    table.loss, table.entropy = torch.rand(rows), torch.rand(rows)
    table.last_pass[:] = 0
    table.last_pass[seen] = pass_index
    return table


def test_a_pass_comes_back_with_nulls_where_nothing_is_known(tmp_path: Path) -> None:
    score = torch.tensor([0.1, float("nan"), 0.3, 0.4])
    table = table_of(4, 7, [0, 2])
    path = Trace(tmp_path / "trace").write(7, table, torch.tensor([2, 0]), score)
    assert path.name == "pass_0007.parquet"
    got = read(tmp_path / "trace")
    assert got is not None
    types = [str(field.type) for field in got.schema]
    assert dict(zip(got.column_names, types)) == {
        "pass": "int16",
        "sample": "int32",
        "selected": "bool",
        "times": "uint8",
        "score": "float",
        "loss": "float",
        "entropy": "float",
        "agreement": "float",
    }
    rows = got.to_pydict()
    assert rows["pass"] == [7] * 4
    assert rows["sample"] == [0, 1, 2, 3]
    assert rows["selected"] == [True, False, True, False]
    assert rows["score"] == [
        pytest.approx(0.1, rel=1e-3),
        None,
        pytest.approx(0.3, rel=1e-3),
        pytest.approx(0.4, rel=1e-3),
    ]
    for name, column in (("loss", table.loss), ("entropy", table.entropy)):
        assert [value is None for value in rows[name]] == [False, True, False, True]
        assert rows[name][2] == pytest.approx(float(column[2]), rel=1e-3)


def test_writing_a_pass_again_replaces_it(tmp_path: Path) -> None:
    trace, table = Trace(tmp_path), ScoreTable(3)
    trace.write(0, table, torch.tensor([0]), torch.zeros(3))
    trace.write(0, table, torch.tensor([1]), torch.ones(3))
    got = read(tmp_path)
    assert got is not None
    assert got["selected"].to_pylist() == [False, True, False]
    assert got["score"].to_pylist() == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["pass_0000.parquet"]


def test_passes_are_read_in_order_and_dropped_from_a_pass_on(tmp_path: Path) -> None:
    trace, table = Trace(tmp_path), ScoreTable(2)
    for pass_index in (10, 2, 0, 9):
        trace.write(pass_index, table, torch.tensor([0]), torch.zeros(2))
    got = read(tmp_path)
    assert got is not None
    assert got["pass"].to_pylist() == [0, 0, 2, 2, 9, 9, 10, 10]
    trace.drop_from(9)
    got = read(tmp_path)
    assert got is not None
    assert got["pass"].to_pylist() == [0, 0, 2, 2]
    trace.drop_from(0)
    assert read(tmp_path) is None


def test_a_write_that_was_killed_leaves_the_pass_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, table = Trace(tmp_path), ScoreTable(2)
    trace.write(0, table, torch.tensor([0]), torch.zeros(2))

    def killed(data: object, file: Any, **options: object) -> None:
        part = Path(file.name)
        assert part.parent == tmp_path and part.name.startswith(".")
        file.write(b"PAR1 half a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", killed)
        for pass_index in (0, 1):
            with pytest.raises(KeyboardInterrupt):
                trace.write(pass_index, table, torch.tensor([1]), torch.ones(2))
    got = read(tmp_path)
    assert got is not None
    assert got["pass"].to_pylist() == [0, 0] and got["score"].to_pylist() == [0, 0]
    trace.write(1, table, torch.tensor([1]), torch.ones(2))
    got = read(tmp_path)
    assert got is not None and got["pass"].to_pylist() == [0, 0, 1, 1]


def test_passes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for pass_index in (9_999, 10_000, 2):
        Trace(tmp_path).write(pass_index, ScoreTable(1), torch.tensor([0]), torch.zeros(1))
    assert [index for index, _ in read_passes(tmp_path)] == [2, 9_999, 10_000]


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8, 0.999])
def test_a_damaged_file_is_never_taken_for_a_whole_one(tmp_path: Path, place: float) -> None:
    """A few wrong bytes anywhere, as a disk may have them."""
    trace = Trace(tmp_path)
    paths = [trace.write(p, table_of(500, p, [*range(250)]), torch.arange(250), torch.rand(500)) for p in range(2)]
    content = bytearray(paths[0].read_bytes())
    at = int(place * (len(content) - 8))
    content[at : at + 8] = bytes(255 - byte for byte in content[at : at + 8])
    paths[0].write_bytes(content)
    said: list[str] = []
    assert [index for index, _ in read_passes(tmp_path, warn=said.append)] == [1]
    assert len(said) == 1 and "pass_0000.parquet cannot be read and is left out: " in said[0]


def test_there_is_no_trace_before_the_first_pass(tmp_path: Path) -> None:
    assert read(tmp_path / "none") is None
    Trace(tmp_path / "none").drop_from(0)


def test_rounding_keeps_ten_bits_and_what_is_not_finite() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    got = rounded(values)
    assert got.dtype == np.float32
    assert np.all(got.view(np.int32) & ((1 << 13) - 1) == 0)
    assert np.abs(got / values - 1).max() <= 2**-11
    assert rounded(np.array([0, np.inf, -np.inf], np.float32)).tolist() == [0, np.inf, -np.inf]
    assert np.isnan(rounded(np.array([np.nan], np.float32))).all()


def test_a_row_takes_few_bytes(tmp_path: Path) -> None:
    rows = 20_000
    seen = torch.randperm(rows)[: int(0.6 * rows)]
    path = Trace(tmp_path).write(3, table_of(rows, 3, seen.tolist()), seen, torch.rand(rows))
    assert path.stat().st_size / rows < 6
