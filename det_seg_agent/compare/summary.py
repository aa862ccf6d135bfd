"""What a comparison says about a task: differences with intervals and tests. All outputs show the same summary.

`compare.page`, `compare.tables` and `compare.documents` use it.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_seg_agent.compare import stats
from det_seg_agent.compare.budgets import Finished
from det_seg_agent.compare.cells import FULL, RANDOM, Cell
from det_seg_agent.compare.figures import Figure, Figures, figures_of, rare_first
from det_seg_agent.compare.images import Resampled, resampled
from det_seg_agent.compare.report import AGAINST, Report
from det_seg_agent.compare.rows import Row, rows_of
from det_seg_agent.compare.stats import Interval


@dataclass
class Difference:
    """Paired differences from a control.

    Attributes:
        by_seed: difference in points, by seed.
        interval: BCa interval of the mean over seeds; None for fewer than three.
        t_interval: Student's interval.
        p: exact p of sign flips; None for one seed.
        p_holm: p adjusted for the family; None if it is not in the family.
        equivalent: whether the mean surely lies within the margin; None if that cannot be said.
        over_images: by seed, interval over the test images.
    """

    by_seed: dict[int, float]
    interval: Interval | None = None
    t_interval: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    equivalent: bool | None = None
    over_images: dict[int, Interval] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return statistics.fmean(self.by_seed.values()) if self.by_seed else None


def difference(by_seed: Mapping[int, float], margin: float | None = None) -> Difference:
    """Return the statistics of differences by seed."""
    values = list(by_seed.values())
    p = stats.sign_flip_p(values) if len(values) > 1 else None  # that of one is always 1
    return Difference(
        dict(by_seed), stats.mean_interval(values), stats.t_interval(values), p,
        equivalent=None if margin is None else stats.equivalent(values, margin),
    )  # fmt: skip


@dataclass
class Learning:
    """What the validations while training say of a row.

    Attributes:
        area: by seed, mean height of the curve over the images that all rows of its ratio have.
        less_random: difference of it from random's.
        reached: by seed, images to the fraction of full training's last value, in relation to those of full training;
            None where it is not reached.
    """

    area: dict[int, float]
    less_random: Difference
    reached: dict[int, float | None]


@dataclass
class Summary:
    """The rows of a task and all that is said about them.

    Attributes:
        task: detection, segmentation, classification or instruction.
        report: settings.
        figures: figures of the task.
        rows: one for each strategy and ratio.
        primary: differences of the primary figure, by name of the row and control.
        others: differences of each other figure from random, by name of the row and key of the figure.
        classes: differences of each class from random, by name of the row and class; rare classes first.
        learning: by name of the row.
        tests: the family of tests that Holm's p counts, each a name of a row and a control.
    """

    task: str
    report: Report
    figures: Figures
    rows: list[Row]
    primary: dict[str, dict[str, Difference]]
    others: dict[str, dict[str, Difference]]
    classes: dict[str, dict[str, Difference]]
    learning: dict[str, Learning]
    tests: list[tuple[str, str]]

    @property
    def one_seed(self) -> bool:
        """Whether no row has a second seed."""
        return all(len(row.results) < 2 for row in self.rows)


def summarise(task: str, finished: Finished, report: Report, planned: Sequence[Cell] = ()) -> Summary:
    """Return the summary of a task.

    Args:
        task: detection, segmentation, classification or instruction.
        finished: its finished cells.
        report: settings.
        planned: all cells; tests whose cells are not finished yet count as if their p was 1.
    """
    figures = figures_of(task, report, {cell.name: result for cell, result in finished})
    rows = rows_of(finished, figures.primary)
    compared = [row for row in rows if row.role != "full"]
    samples = cache(lambda place: resampled(Path(place), report.resamples))
    primary: dict[str, dict[str, Difference]] = {}
    for row in compared:
        primary[row.name] = {c: difference(row.less[c], report.margin) for c in AGAINST if c != row.label}
        for control in report.against:
            if control in primary[row.name]:
                primary[row.name][control].over_images = over_images(row, control, figures.primary, samples)
    names = rare_first(figures, list(dict.fromkeys(n for row in rows for r in row.results.values() for n in _known(r))))
    selected = [row for row in compared if row.label != RANDOM]
    tests = report.tests(task, planned or [cell for cell, _ in finished])
    known = [primary.get(name, {}).get(control, Difference({})) for name, control in tests]
    for test, p in zip(known, stats.holm([1.0 if test.p is None else test.p for test in known])):
        test.p_holm = None if test.p is None else p
    return Summary(
        task,
        report,
        figures,
        rows,
        primary,
        {row.name: {f.key: difference(row.differences(RANDOM, f)) for f in figures.shown[1:]} for row in selected},
        {
            row.name: {name: difference(row.differences(RANDOM, Figure(name, name, (name,)))) for name in names}
            for row in selected
        },
        learning_of(rows, report.reach),
        tests,
    )


def _known(result: Mapping[str, Any]) -> list[str]:
    return [name for name, value in result.get("by_class", {}).items() if value is not None]


def over_images(row: Row, control: str, figure: Figure, samples: Any) -> dict[int, Interval]:
    """Return by seed the interval of the difference over samples of the test images, the same for both runs.

    Args:
        row: the row.
        control: the control.
        figure: the figure.
        samples: function from the folder of a cell to its `Resampled` or None.
    """
    found = {}
    for seed, (mine, other) in row.pairs.get(control, {}).items():
        a, b = (_of_parts(result, figure, samples) for result in (mine, other))
        if a is not None and b is not None and len(a) == len(b):
            interval = stats.percentile_interval(a - b)
            if interval is not None:
                found[seed] = interval
    return found


def _of_parts(result: Mapping[str, Any], figure: Figure, samples: Any) -> NDArray[np.float64] | None:
    """Return the figure of each sample; that of two shorter schedules is interpolated as their figures are."""
    total: NDArray[np.float64] | None = None
    for place, part in result.get("parts", []):
        found: Resampled | None = samples(place) if place else None
        values = None if found is None else figure.resampled(found)
        if values is None:
            return None
        total = part * values if total is None else total + part * values
    return total


def learning_of(rows: Sequence[Row], reach: float) -> dict[str, Learning]:
    """Return what the curves say; {} where they are not validations."""
    full = {seed: row for row in rows if row.label == FULL for seed in row.results}
    found = {}
    for row in rows:
        alike = [other for other in rows if other.ratio == row.ratio and (row.role == "full" or other.role != "full")]
        curves = [points for other in alike for _, points in other.curves.values() if len(points) > 1]
        if not curves or any("loss" in name for name, _ in row.curves.values()):
            continue
        start, end = max(points[0][0] for points in curves), min(points[-1][0] for points in curves)
        area = _areas(row, start, end)
        base = next((_areas(other, start, end) for other in alike if other.label == RANDOM), {})
        less = {seed: area[seed] - base[seed] for seed in area if seed in base and row.label != RANDOM}
        reached = {}
        for seed, (_, points) in row.curves.items():
            if seed in full and full[seed].curves[seed][1]:
                ends = full[seed].curves[seed][1][-1]
                images = stats.first_reaching(points, ends[1] * reach / 100)
                reached[seed] = None if images is None else images / ends[0]
        found[row.name] = Learning(area, difference(less), reached)
    return found


def _areas(row: Row, start: float, end: float) -> dict[int, float]:
    areas = {seed: stats.area_under(points, start, end) for seed, (_, points) in row.curves.items()}
    return {seed: area for seed, area in areas.items() if area is not None}
