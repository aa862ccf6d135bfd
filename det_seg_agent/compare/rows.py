"""Statistics over finished cells: means, spreads, and differences paired by seed. `compare.page` shows them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from det_seg_agent.compare.cells import AGREE, CONTROLS, FULL, SHORT, Cell

AGENT = "agent"
Finished = Sequence[tuple[Cell, Mapping[str, Any]]]


Results = Mapping[int, Mapping[str, Any]]  # seed -> result of its cell


@dataclass(frozen=True)
class Row:
    """The cells of one strategy at one ratio.

    Attributes:
        label, role, ratio: as in `Cell`.
        quality: AP or mIoU in percent, by seed.
        budget: mean number of images trained on, divided by that of full training.
        images: mean number of images trained on.
        wall, cpu: median seconds of a whole process: imports, data, training, our overhead and evaluation.
        wall_ratio, cpu_ratio: median of the seconds divided by those of full training with the same seed, if finished.
        less: by control and seed, quality minus the control's at the same seed and ratio, if budgets agree.
        selection: means over seeds of `selection.selection_figures`.
        metrics: means of further metrics in percent, by name.
        classes: mean IoU in percent, by class.
        curves: (name, [[images, value], ...]), by seed.
        machines: machine, by seed.
        older: seeds whose results are from other versions of our sources.
        length: epochs or iterations of the cells.
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
    less: dict[str, dict[int, float]]
    selection: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    classes: dict[str, float] = field(default_factory=dict)
    curves: dict[int, tuple[str, list[list[float]]]] = field(default_factory=dict)
    machines: dict[int, Any] = field(default_factory=dict)
    older: list[int] = field(default_factory=list)
    length: str = ""

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


def rows_of(finished: Finished) -> list[Row]:
    """Return one row per strategy and ratio of one task: full data, then by falling ratio, controls first."""
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
        less = {}
        for control in (SHORT, *CONTROLS):
            ratios = [key[0] for key in found if key[1] == control] if (role, control) == ("native", SHORT) else [ratio]
            others = [found[r, control] for r in ratios if (r, control) in found and control != label]
            less[control] = {} if role == "full" else _paired(by_seed, others)
        rows.append(
            Row(
                label,
                role,
                ratio,
                {seed: float(result["quality"]) for seed, result in by_seed.items()},
                statistics.fmean(map(share, results)),
                statistics.fmean(r["images"] for r in results),
                statistics.median(r["wall_s"] for r in results),
                statistics.median(r["cpu_s"] for r in results),
                _ratio(by_seed, full, "wall_s"),
                _ratio(by_seed, full, "cpu_s"),
                less,
                _selection(results),
                _means([r.get("metrics", {}) for r in results]),
                _means([r.get("by_class", {}) for r in results]),
                {seed: (r["curve"]["name"], r["curve"]["points"]) for seed, r in by_seed.items()},
                {seed: r["machine"] for seed, r in by_seed.items()},
                [seed for seed, r in by_seed.items() if r.get("older")],
                ", ".join(dict.fromkeys(str(r["schedule"]) for r in results)),
            )
        )
    return rows


def share(result: Mapping[str, Any]) -> float:
    """Return the budget of a finished cell: its images divided by those of full training."""
    return float(result["images"] / result["full_images"])


def at_budget(several: Finished) -> Mapping[str, Any]:
    """Return the result of one cell, or interpolate two shorter schedules linearly at the budget between them.

    Numbers are interpolated; curve and machine are those of the nearer schedule. If only one of the two is finished,
    its result is returned.
    """
    if len(several) == 1:
        return several[0][1]
    (cell, low), (_, high) = sorted(several, key=lambda pair: pair[0].budget)
    wanted = cell.matched(int(low["samples"]))
    part = min(1.0, max(0.0, (wanted - share(low)) / (share(high) - share(low))))
    near = {**(low if part < 0.5 else high)}
    for key in ("quality", "images", "wall_s", "cpu_s"):
        near[key] = low[key] + part * (high[key] - low[key])
    for key in ("metrics", "by_class"):
        both = [(name, low[key][name], high[key].get(name)) for name in low.get(key, {})]
        near[key] = {name: a + part * (b - a) for name, a, b in both if a is not None and b is not None}
    near["schedule"] = f"{low['schedule'].split()[0]} and {high['schedule']}"
    return {**near, "older": bool(low.get("older") or high.get("older"))}


def _paired(mine: Results, others: Sequence[Results]) -> dict[int, float]:
    """Return by seed the quality minus that of the other result with the nearest budget, if budgets agree."""
    less = {}
    for seed, result in mine.items():
        near = min((o[seed] for o in others if seed in o), key=lambda o: abs(share(o) - share(result)), default=None)
        if near is not None and abs(share(near) - share(result)) <= AGREE + 1e-9:
            less[seed] = float(result["quality"]) - float(near["quality"])
    return less


def _means(figures: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each metric over the cells that have it."""
    names = dict.fromkeys(name for f in figures for name in f)
    known = {name: [f[name] for f in figures if f.get(name) is not None] for name in names}
    return {name: statistics.fmean(values) for name, values in known.items() if values}


def _ratio(by_seed: Mapping[int, Any], full: Mapping[int, Any], key: str) -> float | None:
    """Return the median ratio to full training of the same seed, or to the median full training if there is none."""
    if not full:
        return None
    typical = statistics.median(result[key] for result in full.values())
    return statistics.median(r[key] / (full[seed][key] if seed in full else typical) for seed, r in by_seed.items())


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
