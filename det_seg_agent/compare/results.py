"""What finished cells say together: means, spreads, and differences within a seed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from det_seg_agent.compare.cells import FULL, RANDOM, SHORT, Cell

Finished = Sequence[tuple[Cell, Mapping[str, Any]]]


@dataclass(frozen=True)
class Row:
    """The cells of one strategy at one ratio.

    Attributes:
        label, role, ratio: as in `Cell`.
        quality: seed -> AP or mIoU, in percent.
        budget: mean images trained on, over those of full training.
        images: mean images trained on.
        wall, cpu: median seconds of a whole process: imports, data, training, our work, and judging.
        wall_ratio, cpu_ratio: median of the seconds over those of full training; of the same seed where it is finished.
        to_random, to_short: seed -> quality less that of `random`, or of full data on a shorter schedule, with the same
            seed and ratio.
        selection: figures of `selection.selection_figures`, means over seeds; by kind under "kinds".
        curves: seed -> (name, [[images, value], ...]).
    """

    label: str
    role: str
    ratio: float
    quality: dict[int, float]
    budget: float
    images: float
    wall: float
    cpu: float
    wall_ratio: float | None
    cpu_ratio: float | None
    to_random: dict[int, float]
    to_short: dict[int, float]
    selection: dict[str, Any] = field(default_factory=dict)
    curves: dict[int, tuple[str, list[list[float]]]] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Return the mean quality."""
        return statistics.fmean(self.quality.values())

    @property
    def name(self) -> str:
        """Return label and ratio."""
        return self.label if self.role == "full" else f"{self.label} {self.ratio:g}"


def spread(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation; None of fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def rows_of(finished: Finished) -> list[Row]:
    """Return one row a strategy and ratio of one task: full data first, then by ratio, controls before strategies."""
    found: dict[tuple[float, str], dict[int, Mapping[str, Any]]] = {}
    roles: dict[str, str] = {}
    for cell, result in finished:
        found.setdefault((cell.ratio, cell.label), {})[cell.seed] = result
        roles[cell.label] = cell.role
    full = found.get((1.0, FULL), {})
    rank = {FULL: 0, SHORT: 1, RANDOM: 2}
    rows = []
    for ratio, label in sorted(found, key=lambda key: (-key[0], rank.get(key[1], 3))):
        by_seed = dict(sorted(found[ratio, label].items()))
        quality = {seed: float(result["quality"]) for seed, result in by_seed.items()}
        rows.append(
            Row(
                label,
                roles[label],
                ratio,
                quality,
                statistics.fmean(r["images"] / r["full_images"] for r in by_seed.values()),
                statistics.fmean(r["images"] for r in by_seed.values()),
                statistics.median(r["wall_s"] for r in by_seed.values()),
                statistics.median(r["cpu_s"] for r in by_seed.values()),
                _ratio(by_seed, full, "wall_s"),
                _ratio(by_seed, full, "cpu_s"),
                _paired(quality, found.get((ratio, RANDOM), {})) if label != RANDOM else {},
                _paired(quality, found.get((ratio, SHORT), {})) if label != SHORT else {},
                _selection(list(by_seed.values())),
                {seed: (r["curve"]["name"], r["curve"]["points"]) for seed, r in by_seed.items()},
            )
        )
    return rows


def _ratio(by_seed: Mapping[int, Any], full: Mapping[int, Any], key: str) -> float | None:
    """Return the median ratio to full training; of a seed without its own, to the median of the others."""
    if not full:
        return None
    typical = statistics.median(result[key] for result in full.values())
    return statistics.median(r[key] / (full[seed][key] if seed in full else typical) for seed, r in by_seed.items())


def _paired(quality: Mapping[int, float], other: Mapping[int, Any]) -> dict[int, float]:
    return {seed: value - float(other[seed]["quality"]) for seed, value in quality.items() if seed in other}


def _selection(results: list[Mapping[str, Any]]) -> dict[str, Any]:
    figures = [result["selection"] for result in results if result.get("selection")]
    if not figures:
        return {}
    means: dict[str, Any] = {
        key: statistics.fmean(values)
        for key in ("coverage", "turnover", "top_tenth")
        if (values := [f[key] for f in figures if f.get(key) is not None])
    }
    kinds = list(dict.fromkeys(kind for f in figures for kind in f["kinds"]))
    over = [f["thirds"] for f in figures if f.get("thirds")]
    means["thirds"] = {k: [statistics.fmean(o[k][i] for o in over) for i in (0, 1)] for k in (over[0] if over else ())}
    means["kinds"] = {kind: statistics.fmean(f["kinds"][kind] for f in figures if kind in f["kinds"]) for kind in kinds}
    return means


def front(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other of the same seeds beats in budget and mean quality, by rising budget.

    Means over different seeds do not compare: of the sets of seeds the largest counts.
    """
    most = max((tuple(row.quality) for row in rows), key=len, default=())
    alike = [row for row in rows if tuple(row.quality) == most]
    best: list[Row] = []
    for row in sorted(alike, key=lambda row: (row.budget, -row.mean)):
        if not best or row.mean > best[-1].mean:
            best.append(row)
    return best
