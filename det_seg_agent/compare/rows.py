"""The finished cells of each strategy and ratio, paired by seed with the controls'. `compare.summary` uses them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from det_seg_agent.compare.budgets import Finished, at_budget, paired, share
from det_seg_agent.compare.cells import CONTROLS, FULL, SHORT, Cell
from det_seg_agent.compare.figures import Figure, Result

AGENT = "agent"
WHOLE = Figure("quality", "quality")


@dataclass(frozen=True)
class Row:
    """The cells of one strategy at one ratio.

    Attributes:
        label, role, ratio: as in `Cell`.
        budget: mean number of images trained on, divided by that of full training.
        images: mean number of images trained on.
        wall, cpu: median seconds of a whole process: imports, data, training, our overhead and evaluation; None if
            every cell went on after a stop.
        wall_ratio, cpu_ratio: median of the seconds divided by those of full training with the same seed, if finished.
        results: by seed, the result.
        pairs: by control and seed, the result and the control's, where `less` has a difference.
        figure: the primary figure.
        selection: means over seeds of `selection.selection_figures`.
        metrics: means of further metrics in percent, by name.
        classes: mean IoU in percent, by class.
        curves: (name, [[images, value], ...]), by seed.
        resumed: seeds whose cells went on after a stop, so that their seconds are not known.
        machines: machine, by seed.
        older: seeds whose results are from other versions of our sources.
        length: epochs or iterations of the cells.
    """

    label: str
    role: str
    ratio: float
    budget: float
    images: float
    wall: float | None
    cpu: float | None
    wall_ratio: float | None
    cpu_ratio: float | None
    results: dict[int, Result]
    pairs: dict[str, dict[int, tuple[Result, Result]]]
    figure: Figure = WHOLE
    selection: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    classes: dict[str, float] = field(default_factory=dict)
    curves: dict[int, tuple[str, list[list[float]]]] = field(default_factory=dict)
    machines: dict[int, Any] = field(default_factory=dict)
    older: list[int] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    length: str = ""

    def values(self, figure: Figure) -> dict[int, float]:
        """Return a figure by seed, where it is known."""
        found = {seed: figure.value(result) for seed, result in self.results.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def differences(self, control: str, figure: Figure) -> dict[int, float]:
        """Return by seed a figure minus that of the control, where both are known."""
        found = {}
        for seed, (mine, other) in self.pairs.get(control, {}).items():
            a, b = figure.value(mine), figure.value(other)
            if a is not None and b is not None:
                found[seed] = a - b
        return found

    @cached_property
    def quality(self) -> dict[int, float]:
        """The primary figure in percent, by seed."""
        return self.values(self.figure)

    @cached_property
    def less(self) -> dict[str, dict[int, float]]:
        """By control and seed, the primary figure minus the control's at the same seed and ratio, if budgets agree."""
        return {control: self.differences(control, self.figure) for control in (SHORT, *CONTROLS)}

    @property
    def timed_curves(self) -> dict[int, tuple[str, list[list[float]]]]:
        """(name, [[seconds, value], ...]) by seed, of the cells that did not go on after a stop."""
        found = {}
        for seed, result in self.results.items():
            seconds = result["curve"].get("seconds") or []
            if seconds and None not in seconds and not result.get("resumed"):
                points = [[x, y] for x, (_, y) in zip(seconds, result["curve"]["points"])]
                found[seed] = (str(result["curve"]["name"]), points)
        return found

    @property
    def mean(self) -> float:
        """Mean quality over seeds."""
        return statistics.fmean(self.quality.values())

    @property
    def name(self) -> str:
        """Label and ratio."""
        return self.label if self.role in ("full", "native") else f"{self.label} {self.ratio:g}"

    @property
    def is_control(self) -> bool:
        """Whether the row is a control."""
        return self.label in (FULL, SHORT, *CONTROLS)


def spread(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation; None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def rows_of(finished: Finished, figure: Figure = WHOLE) -> list[Row]:
    """Return one row per strategy and ratio of one task: full data, then by falling ratio, controls first.

    Args:
        finished: cells of the task with their results.
        figure: the figure that is compared.
    """
    cells: dict[tuple[float, str], dict[int, list[tuple[Cell, Mapping[str, Any]]]]] = {}
    for cell, result in finished:
        cells.setdefault((cell.ratio, cell.label), {}).setdefault(cell.seed, []).append((cell, result))
    found = {key: {seed: at_budget(several) for seed, several in sorted(s.items())} for key, s in cells.items()}
    full = found.get((1.0, FULL), {})
    rank = {label: i for i, label in enumerate((FULL, SHORT, *CONTROLS))}
    rows = []
    for ratio, label in sorted(found, key=lambda key: (-key[0], rank.get(key[1], len(rank)))):
        by_seed = found[ratio, label]
        results = list(by_seed.values())
        role = next(iter(cells[ratio, label].values()))[0][0].role
        pairs = {}
        for control in (SHORT, *CONTROLS):
            ratios = [key[0] for key in found if key[1] == control] if (role, control) == ("native", SHORT) else [ratio]
            others = [found[r, control] for r in ratios if (r, control) in found and control != label]
            pairs[control] = {} if role == "full" else paired(by_seed, others)
        timed = [result for result in results if not result.get("resumed")]
        rows.append(
            Row(
                label,
                role,
                ratio,
                statistics.fmean(map(share, results)),
                statistics.fmean(r["images"] for r in results),
                statistics.median(r["wall_s"] for r in timed) if timed else None,
                statistics.median(r["cpu_s"] for r in timed) if timed else None,
                _ratio(by_seed, full, "wall_s"),
                _ratio(by_seed, full, "cpu_s"),
                by_seed,
                pairs,
                figure,
                _selection(results),
                _means([r.get("metrics", {}) for r in results]),
                _means([r.get("by_class", {}) for r in results]),
                {seed: (r["curve"]["name"], r["curve"]["points"]) for seed, r in by_seed.items()},
                {seed: r["machine"] for seed, r in by_seed.items()},
                [seed for seed, r in by_seed.items() if r.get("older")],
                [seed for seed, r in by_seed.items() if r.get("resumed")],
                ", ".join(dict.fromkeys(str(r["schedule"]) for r in results)),
            )
        )
    return rows


def _means(figures: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each metric over the cells that have it."""
    names = dict.fromkeys(name for f in figures for name in f)
    known = {name: [f[name] for f in figures if f.get(name) is not None] for name in names}
    return {name: statistics.fmean(values) for name, values in known.items() if values}


def _ratio(by_seed: Mapping[int, Any], full: Mapping[int, Any], key: str) -> float | None:
    """Return the median ratio to full training of the same seed, or to the median full training if there is none.

    Cells that went on after a stop do not count.
    """
    full = {seed: r for seed, r in full.items() if not r.get("resumed")}
    timed = {seed: r for seed, r in by_seed.items() if not r.get("resumed")}
    if not full or not timed:
        return None
    typical = statistics.median(result[key] for result in full.values())
    return statistics.median(r[key] / (full[seed][key] if seed in full else typical) for seed, r in timed.items())


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


def seeds_compared(rows: Sequence[Row]) -> tuple[int, ...]:
    """Return the seeds that a table compares: the agent's longest list of seeds, or else the longest of any row."""
    agents = [row for row in rows if row.label == AGENT] or rows
    return max((tuple(row.quality) for row in agents), key=len, default=())


def front(rows: Sequence[Row]) -> list[Row]:
    """Return the Pareto front in budget and mean quality of the rows with the compared seeds, by rising budget."""
    alike = [row for row in rows if tuple(row.quality) == seeds_compared(rows)]
    best: list[Row] = []
    for row in sorted(alike, key=lambda row: (row.budget, -row.mean)):
        if not best or row.mean > best[-1].mean:
            best.append(row)
    return best
