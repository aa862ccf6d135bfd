"""The trace of a run: one Parquet file per pass, one row per sample. `Report` writes it; plots and users read it."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from det_seg_agent.files import printable, replacing
from det_seg_agent.table import ScoreTable


def rounded(values: np.ndarray) -> np.ndarray:
    """Round float32 values to 10 bits of mantissa (about three digits), so that they compress well."""
    bits = values.astype(np.float32).view(np.int32)
    return (
        np.where(np.isfinite(values), (bits + (1 << 12)) & ~np.int32((1 << 13) - 1), bits)
        .astype(np.int32)
        .view(np.float32)
    )


class Trace:
    """Writes `folder/pass_0000.parquet` and so on; `read` returns all files as one table.

    Columns: pass int16 (from 0), sample int32, selected bool, times uint8 (how often, where a strategy repeats), score,
    loss, entropy and agreement float32. What was not observed in the pass is null, and so are unknown scores.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def write(self, pass_index: int, table: ScoreTable, selected: Tensor, score: Tensor) -> Path:
        """Write the file of a pass atomically and return its path.

        Args:
            pass_index: index of the pass, from 0.
            table: the score table after the pass.
            selected: (n,) int64, indices of the selection.
            score: (num_samples,) float32.
        """
        rows = len(table)
        times = np.bincount(selected.numpy(), minlength=rows)
        unseen = table.last_pass.numpy() != pass_index
        columns = {"score": score.numpy(), "loss": table.loss.numpy(), "entropy": table.entropy.numpy()}
        columns["agreement"] = table.agreement.numpy()
        data = {
            "pass": pa.array(np.full(rows, pass_index, np.int16)),
            "sample": pa.array(np.arange(rows, dtype=np.int32)),
            "selected": pa.array(times > 0),
            "times": pa.array(times.clip(max=255).astype(np.uint8)),
        }
        for name, values in columns.items():
            mask = np.isnan(values) | (unseen if name != "score" else False)
            data[name] = pa.array(rounded(values), mask=mask)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"pass_{pass_index:04d}.parquet"
        encoding = {"sample": "DELTA_BINARY_PACKED", **{name: "BYTE_STREAM_SPLIT" for name in columns}}
        options = {"compression": "zstd", "use_dictionary": ["pass"], "write_page_checksum": True}
        # Open the file in Python: pyarrow only accepts UTF-8 paths.
        with replacing(path) as part, part.open("wb") as file:
            pq.write_table(pa.table(data), file, column_encoding=encoding, **options)
        return path

    def drop_from(self, pass_index: int) -> None:
        """Delete the files of pass `pass_index` and later, which a resumed run writes again."""
        for index, path in files(self.folder).items():
            if index >= pass_index:
                path.unlink()


def files(folder: Path) -> dict[int, Path]:
    """Return the files by pass index, in ascending order."""
    found = {path: re.fullmatch(r"pass_(\d+)\.parquet", path.name) for path in Path(folder).glob("pass_*.parquet")}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def read_passes(
    folder: Path, columns: Sequence[str] | None = None, warn: Callable[[str], object] = warnings.warn
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (pass index, table) in order, with one pass in memory at a time.

    Args:
        folder: folder of the trace.
        columns: names of the columns to read; by default all.
        warn: called once at the end with a message if files were unreadable; they are skipped.
    """
    broken: list[tuple[Path, Exception]] = []
    for index, path in files(folder).items():
        try:
            with path.open("rb") as file:
                table = pq.read_table(file, columns=columns, page_checksum_verification=True)
        except Exception as error:  # a damaged file raises many kinds of errors
            broken.append((path, error))
            continue
        yield index, table
    if broken:
        path, reason = broken[0]
        more = f", as are {len(broken) - 1} more files" if len(broken) > 1 else ""
        warn(printable(f"{path} cannot be read and is left out{more}: {reason}"))


def read(folder: Path) -> pa.Table | None:
    """Return all readable passes as one table, in order; None if there are none."""
    tables = [table for _, table in read_passes(folder)]
    return pa.concat_tables(tables) if tables else None
