"""The trace of a run: one Parquet file a pass, one row a sample."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from det_seg_agent.files import replacing
from det_seg_agent.table import ScoreTable


def rounded(values: np.ndarray) -> np.ndarray:
    """Return float32 values with 10 bits of mantissa, about three digits, so that they compress."""
    bits = values.astype(np.float32).view(np.int32)
    return (
        np.where(np.isfinite(values), (bits + (1 << 12)) & ~np.int32((1 << 13) - 1), bits)
        .astype(np.int32)
        .view(np.float32)
    )


class Trace:
    """Writes `folder/pass_0000.parquet` and on; `read` returns them as one table.

    Columns: pass int16 (from 0), sample int32, selected bool, score float32, and loss and entropy float32 of the
    samples that the pass showed; what is not known is null.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def write(self, pass_index: int, table: ScoreTable, selected: Tensor, score: Tensor) -> Path:
        """Write, or replace, the file of a pass at once; `selected` (n,) are indices, `score` is (num_samples,)."""
        rows = len(table)
        chosen = np.zeros(rows, bool)
        chosen[selected.numpy()] = True
        unseen = table.last_pass.numpy() != pass_index
        columns = {"score": score.numpy(), "loss": table.loss.numpy(), "entropy": table.entropy.numpy()}
        data = {
            "pass": pa.array(np.full(rows, pass_index, np.int16)),
            "sample": pa.array(np.arange(rows, dtype=np.int32)),
            "selected": pa.array(chosen),
        }
        for name, values in columns.items():
            mask = np.isnan(values) | (unseen if name != "score" else False)
            data[name] = pa.array(rounded(values), mask=mask)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"pass_{pass_index:04d}.parquet"
        encoding = {"sample": "DELTA_BINARY_PACKED", **{name: "BYTE_STREAM_SPLIT" for name in columns}}
        with replacing(path) as part:
            pq.write_table(pa.table(data), part, compression="zstd", use_dictionary=["pass"], column_encoding=encoding)
        return path

    def drop_from(self, pass_index: int) -> None:
        """Delete the files of pass `pass_index` and later, which are to be made again."""
        for path in self.folder.glob("pass_*.parquet"):
            if int(path.stem.split("_")[1]) >= pass_index:
                path.unlink()


def read(folder: Path) -> pa.Table | None:
    """Return all passes as one table, in order; None where there are none."""
    files = sorted(Path(folder).glob("pass_*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in files]) if files else None
