"""`samples.parquet` and `samples.csv`: what a run knows about each sample, a row each. `Report` writes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from torch import Tensor

from det_seg_agent.classes import Classes
from det_seg_agent.files import printable, replacing
from det_seg_agent.reporting.suspects import TELL, Suspects, suspects_of
from det_seg_agent.table import ScoreTable

# Name: (type, meaning). docs/data.md repeats it.
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "sample": (pa.int32(), "position in the data set of the run"),
    "file": (pa.string(), "image file"),
    "classes": (pa.string(), "classes of its labels, the largest share first; at most 8"),
    "selected": (pa.int32(), "times selected"),
    "seen": (pa.int32(), "passes that observed it"),
    "last_pass": (pa.int32(), "last pass that trained on it, from 1"),
    "loss": (pa.float32(), "loss in the last pass that observed it"),
    "loss_mean": (pa.float32(), "mean loss over the passes that observed it"),
    "entropy": (pa.float32(), "predictive entropy, 0 to 1, in the last pass that observed it"),
    "agreement": (pa.float32(), "probability of its labels, 0 to 1, in the last pass that observed it"),
    "agreement_mean": (pa.float32(), "mean of that over the passes that observed it"),
    "sufficiency": (pa.float32(), "min of precision and recall, 0 to 1, where the model tells it"),
    "score": (pa.float32(), "last score that the strategy gave it"),
    "suspect": (pa.float32(), "suspicion of a label error, 0 to 1"),
    "why": (pa.string(), f"why it is suspected, where suspect is at least {TELL:g}"),
    "duplicates": (pa.int32(), "its group of near-duplicates, once `inspect images=true run=RUN` has found them"),
}
DIGITS = 4  # after the point


def sample_rows(
    table: ScoreTable, files: Sequence[str], classes: Classes | None = None, suspects: Suspects | None = None
) -> pa.Table:
    """Return a row per sample with the columns `COLUMNS`; unknown values are null.

    Args:
        table: the score table of the run.
        files: image file of each sample.
        classes: the classes of the samples; only with its shares read are they known.
        suspects: what `suspects_of` returns; computed if it is None.
    """
    shares = None if classes is None else classes.shares
    found = suspects_of(table, shares) if suspects is None else suspects
    seen, agreed = table.seen.clamp(min=1).float(), table.agreed.clamp(min=1).float()
    nothing = float("nan")
    numbers: dict[str, Tensor] = {
        "loss": table.loss,
        "loss_mean": (table.loss_sum / seen).where((table.seen > 0) & table.loss.isfinite(), nothing),
        "entropy": table.entropy,
        "agreement": table.agreement,
        "agreement_mean": (table.agreement_sum / agreed).where(table.agreed > 0, nothing),
        "sufficiency": table.sufficiency,
        "score": table.score,
        "suspect": found.score,
    }
    columns: dict[str, pa.Array] = {name: _floats(values) for name, values in numbers.items()}
    for name in ("selected", "seen"):
        columns[name] = pa.array(getattr(table, name).numpy())
    last = table.last_pass.numpy()
    columns["last_pass"] = pa.array(last + 1, mask=last < 0)
    columns["sample"] = pa.array(np.arange(len(table), dtype=np.int32))
    columns["file"] = pa.array([file if file.isprintable() else printable(file) for file in files], pa.string())
    columns["classes"] = _class_lists(classes, len(table))
    columns["why"] = _reasons(found, table.agreed)
    columns["duplicates"] = pa.nulls(len(table), pa.int32())
    fields = [pa.field(name, kind, metadata={"meaning": text}) for name, (kind, text) in COLUMNS.items()]
    return pa.table([columns[name].cast(COLUMNS[name][0]) for name in COLUMNS], pa.schema(fields))


def _floats(values: Tensor) -> pa.Array:
    numbers = np.round(values.numpy().astype(np.float64), DIGITS).astype(np.float32)
    return pa.array(numbers, mask=~np.isfinite(numbers))


def _class_lists(classes: Classes | None, rows: int) -> pa.Array:
    if classes is None or classes.shares is None:
        return pa.nulls(rows, pa.string())
    index = classes.shares.index.numpy()
    counts = (index >= 0).sum(1)
    names = pa.array([printable(name) for name in classes.names]).take(pa.array(index[index >= 0].astype(np.int32)))
    ends = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), names), "; ")


def _reasons(suspects: Suspects, agreed: Tensor) -> pa.Array:
    score, passes = suspects.score.numpy(), agreed.tolist()
    reasons: list[str | None] = [None] * len(score)
    for index in np.flatnonzero(score >= TELL).tolist():
        reasons[index] = suspects.why(index, passes[index])
    return pa.array(reasons, pa.string())


def write_samples(rows: pa.Table, folder: Path) -> list[Path]:
    """Write `samples.parquet` and `samples.csv` to a folder, atomically, and return their paths."""
    paths = [Path(folder) / f"samples.{kind}" for kind in ("parquet", "csv")]
    for path, write in zip(paths, (_parquet, pyarrow.csv.write_csv), strict=True):
        # Open the file in Python: pyarrow only accepts UTF-8 paths.
        with replacing(path) as part, part.open("wb") as file:
            write(rows, file)
    return paths


def _parquet(rows: pa.Table, file: object) -> None:
    pq.write_table(rows, file, compression="zstd")


def read_samples(folder: Path) -> pa.Table:
    """Return the rows of a run, from its `samples.parquet`.

    Raises:
        OSError: if there is none.
        pyarrow.ArrowInvalid: if it is damaged.
    """
    with (Path(folder) / "samples.parquet").open("rb") as file:
        return pq.read_table(file)
