"""What an earlier run knew of the samples, from its `samples.parquet`; for `agent.init`. `Selector` uses it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from det_seg_agent.errors import ConfigError
from det_seg_agent.fingerprint import relative
from det_seg_agent.sums import SampleSignals

COLUMNS = ("loss", "entropy", "sufficiency", "agreement_mean", "score")


def earlier(run: Path, files: Sequence[str]) -> tuple[SampleSignals, Tensor]:
    """Return the signals of the samples that an earlier run knew, and their last scores (U,) float32.

    Images are recognised by their path below the common folder of all, else by a file name that is unique in both; the
    data set may have moved, grown or shrunk.

    Args:
        run: folder of the run.
        files: image file of each sample of this run.

    Raises:
        ConfigError: if the run has no readable samples, or none of these images.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:  # the core does without it
        raise ConfigError(f"agent.init={run} needs pyarrow: pip install 'det_seg_agent[report]'") from error
    path = run / "samples.parquet"
    try:
        with path.open("rb") as file:
            rows = pq.read_table(file, columns=["file", *COLUMNS])
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ConfigError(
            f"agent.init={run}: its samples.parquet cannot be read ({error}). Give the folder of a run that has ended, "
            "or drop agent.init."
        ) from error
    there = _places(rows["file"].to_pylist(), files)
    index = np.flatnonzero(there >= 0)
    columns = {
        name: torch.from_numpy(rows[name].cast(pa.float32()).to_numpy().astype(np.float32)[there[index]])
        for name in COLUMNS
    }
    known = columns["loss"].isfinite() & columns["entropy"].isfinite()
    if not bool(known.any()):
        raise ConfigError(
            f"agent.init={run}: it knows none of the {len(files):,} images, {files[0] if files else 'none'} first. "
            "Give a run over the same images, or drop agent.init."
        )
    loss, entropy, sufficiency, agreement, score = (columns[name][known] for name in COLUMNS)
    relative_ = torch.stack([_standard(values) for values in (loss, entropy, sufficiency)], 1)
    unknown = torch.full_like(loss, float("nan"))
    signals = SampleSignals(
        torch.from_numpy(index)[known], loss, entropy, sufficiency, agreement, agreement, unknown, unknown, relative_
    )
    return signals, score


def _places(then: Sequence[str], now: Sequence[str]) -> np.ndarray:
    """Return the position in `then` of each file of `now`, (n,) int64; -1 where there is none."""
    by_path = {name: place for place, name in enumerate(relative(then))}
    by_name: dict[str, int] = {}
    for place, file in enumerate(then):
        name = file.replace("\\", "/").rpartition("/")[2]
        by_name[name] = -1 if name in by_name else place
    names = [file.replace("\\", "/").rpartition("/")[2] for file in now]
    twice = len(set(names)) < len(names)
    found = [
        by_path.get(path, -1 if twice else by_name.get(name, -1))
        for path, name in zip(relative(now), names, strict=True)
    ]
    return np.array(found, np.int64)


def _standard(values: Tensor) -> Tensor:
    """Return values less their mean, in standard deviations; NaN stays."""
    known = values[values.isfinite()]
    if len(known) < 2:
        return torch.full_like(values, float("nan")) if not len(known) else values - known.mean()
    return (values - known.mean()) / known.std().clamp(min=1e-6)
