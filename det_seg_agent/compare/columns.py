"""The columns of the result tables, and how numbers are written. `compare.sections` and `compare.tables` use them."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from det_seg_agent.compare.figures import Figure
from det_seg_agent.compare.report import AGAINST
from det_seg_agent.compare.rows import Row, spread
from det_seg_agent.compare.summary import Difference, Learning, Summary

NONE = "\N{EN DASH}"
OTHER_SEEDS, OLDER, RESUMED = "\N{DAGGER}", "\N{DOUBLE DAGGER}", "\N{SECTION SIGN}"
MOST_CLASSES = 20  # with more classes, there are no columns by class


def signed(found: Difference | None, each: bool = False) -> str:
    """Format differences: mean, 95 % interval, and with `each` the value of each seed if there are several."""
    if found is None or found.mean is None:
        return NONE
    text = f"{found.mean:+.2f}"
    if found.interval is not None:
        text += f" [{found.interval[0]:+.2f}, {found.interval[1]:+.2f}]"
    values = found.by_seed.values()
    return text + (f" ({', '.join(f'{v:+.2f}' for v in values)})" if each and len(values) > 1 else "")


def chance(p: float | None) -> str:
    """Format a p."""
    return NONE if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"


def mean_of(row: Row, figure: Figure, with_spread: bool = False) -> str:
    """Format the mean of a figure over seeds, with its standard deviation if asked."""
    values = list(row.values(figure).values())
    if not values:
        return NONE
    error = spread(values) if with_spread else None
    return f"{statistics.fmean(values):.2f}" + (f" ± {error:.2f}" if error is not None else "")


def seconds(value: float | None) -> str:
    """Format seconds."""
    return NONE if value is None else f"{value:.0f}"


def percent(value: float | None, digits: int = 0) -> str:
    """Format a fraction as percent."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def seeds_of(row: Row, compared: Sequence[int]) -> str:
    """Format the seeds of a row; marks those of rows with other seeds than compared, and of older or resumed cells."""
    text = ", ".join(map(str, row.quality)) + ("" if tuple(row.quality) == tuple(compared) else f" {OTHER_SEEDS}")
    for mark, seeds in ((OLDER, row.older), (RESUMED, row.resumed)):
        text += f" ({mark} {', '.join(map(str, seeds))})" if seeds else ""
    return text


def machines_of(row: Row, machines: Sequence[Any]) -> str:
    """Format the numbers (from 1) of a row's machines, with the seeds of each if there are several."""
    seeds: dict[int, list[str]] = {}
    for seed, machine in row.machines.items():
        seeds.setdefault(machines.index(machine) + 1, []).append(str(seed))
    if len(seeds) == 1:
        return str(next(iter(seeds)))
    return ", ".join(f"{number} (seed {' and '.join(each)})" for number, each in sorted(seeds.items()))


Column = tuple[str, Callable[[Row], str]]


def columns(summary: Summary, compared: Sequence[int], machines: Sequence[Any] = ()) -> list[Column]:
    """Return the columns of the main table; includes the machine only if there are several."""

    def figure(shown: Figure) -> Callable[[Row], str]:
        return lambda row: mean_of(row, shown)

    primary, *others = summary.figures.shown
    found: list[Column] = [
        (f"{primary.label}, %", lambda row: mean_of(row, primary, with_spread=True)),
        *((shown.label, figure(shown)) for shown in others),
        ("seeds", lambda row: seeds_of(row, compared)),
        ("length", lambda row: row.length),
        ("images", lambda row: f"{row.images:.0f}"),
        ("budget", lambda row: percent(row.budget, 1)),
        ("wall, s", lambda row: seconds(row.wall)),
        ("wall of full", lambda row: percent(row.wall_ratio)),
        ("CPU, s", lambda row: seconds(row.cpu)),
        ("CPU of full", lambda row: percent(row.cpu_ratio)),
    ]
    return [*found, ("machine", lambda row: machines_of(row, machines))] if len(machines) > 1 else found


def difference_columns(summary: Summary) -> list[Column]:
    """Return the columns of paired differences of the primary figure from the controls, tests included."""

    def of(row: Row, control: str) -> Difference | None:
        return summary.primary.get(row.name, {}).get(control)

    def less(control: str) -> Callable[[Row], str]:
        return lambda row: signed(of(row, control), each=True)

    def p(control: str) -> Callable[[Row], str]:
        return lambda row: chance(getattr(of(row, control), "p_holm", None))

    def same(control: str) -> Callable[[Row], str]:
        return lambda row: {None: NONE, True: "yes", False: "no"}[getattr(of(row, control), "equivalent", None)]

    found: list[Column] = []
    for control in sorted(AGAINST, key=lambda name: name not in summary.report.against):
        found.append((f"less {control}", less(control)))
        if control in summary.report.against:
            found.append(("Holm p", p(control)))
            if summary.report.margin is not None:
                found.append((f"within ±{summary.report.margin:g}", same(control)))
    return found


def image_columns(summary: Summary) -> list[Column]:
    """Return the columns of the differences of each seed with intervals over the test images."""

    def shown(row: Row, control: str) -> str:
        found = summary.primary.get(row.name, {}).get(control)
        if found is None or not found.over_images:
            return NONE
        return "; ".join(
            f"seed {seed}: {found.by_seed[seed]:+.2f} [{low:+.2f}, {high:+.2f}]"
            for seed, (low, high) in found.over_images.items()
        )

    def of(control: str) -> Callable[[Row], str]:
        return lambda row: shown(row, control)

    return [(f"less {control}", of(control)) for control in summary.report.against]


def other_columns(summary: Summary) -> list[Column]:
    """Return the columns of the differences of the other figures from random."""

    def less(key: str) -> Callable[[Row], str]:
        return lambda row: signed(summary.others.get(row.name, {}).get(key), each=True)

    return [(f"{figure.label}, less random", less(figure.key)) for figure in summary.figures.shown[1:]]


def learning_columns(summary: Summary) -> list[Column]:
    """Return the columns of areas under the curves, and of the images to a fraction of full training's last value."""

    def reached(learning: Learning) -> str:
        known = [value for value in learning.reached.values() if value is not None]
        if not learning.reached:
            return NONE
        of = f"{len(known)} of {len(learning.reached)} seeds"
        return f"{percent(statistics.median(known))} ({of})" if known else f"not reached ({of})"

    def area(learning: Learning) -> str:
        return f"{statistics.fmean(learning.area.values()):.2f}" if learning.area else NONE

    def of(show: Callable[[Learning], str]) -> Callable[[Row], str]:
        return lambda row: show(summary.learning[row.name]) if row.name in summary.learning else NONE

    return [
        ("mean height of the curve", of(area)),
        ("less random", of(lambda learning: signed(learning.less_random))),
        (f"images to {summary.report.reach:g} % of full", of(reached)),
    ]


def figure_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of further metrics, and of classes if there are at most `MOST_CLASSES`."""

    def figure(name: str) -> Callable[[Row], str]:
        return lambda row: f"{row.metrics[name]:.2f}" if name in row.metrics else NONE

    def single(name: str) -> Callable[[Row], str]:
        return lambda row: f"{row.classes[name]:.2f}" if name in row.classes else NONE

    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    classes = list(dict.fromkeys(name for row in rows for name in row.classes))
    found = [(name, figure(name)) for name in names]
    return found + [(name, single(name)) for name in classes] if len(classes) <= MOST_CLASSES else found


def kinds_of(rows: Sequence[Row]) -> list[str]:
    """Return the kinds of samples in any row."""
    return list(dict.fromkeys(kind for row in rows for kind in row.selection.get("kinds", {})))


def by_kind(row: Row, kind: str) -> str:
    """Format the mean fraction of a kind that was selected, and those in the first and last third of the passes."""
    kinds, thirds = row.selection.get("kinds", {}), row.selection.get("thirds", {})
    text = percent(kinds.get(kind))
    return f"{text} ({100 * thirds[kind][0]:.0f}, {100 * thirds[kind][1]:.0f})" if kind in thirds else text


def selection_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the statistics of selections."""

    def share(key: str) -> Callable[[Row], str]:
        return lambda row: percent(row.selection.get(key))

    def kind(name: str) -> Callable[[Row], str]:
        return lambda row: by_kind(row, name)

    named = [(name, kind(name)) for name in kinds_of(rows)]
    return [
        ("seen at all", share("coverage")),
        ("new a pass", share("turnover")),
        ("top tenth", share("top_tenth")),
        *named,
    ]
