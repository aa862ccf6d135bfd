"""The columns of the result tables. `compare.page` uses them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from det_seg_agent.compare.cells import CONTROLS, SHORT
from det_seg_agent.compare.rows import Row, spread

NONE = "\N{EN DASH}"
OTHER_SEEDS, OLDER = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
MOST_CLASSES = 20  # with more classes, there are no columns by class


def signed(values: Mapping[int, float]) -> str:
    """Format paired differences: mean, spread and the value of each seed."""
    if not values:
        return NONE
    each = list(values.values())
    error = spread(each)
    text = f"{sum(each) / len(each):+.2f}" + (f" ± {error:.2f}" if error is not None else "")
    return text + (f" ({', '.join(f'{v:+.2f}' for v in each)})" if len(each) > 1 else "")


def quality(row: Row) -> str:
    """Format mean and spread of the quality."""
    error = spread(list(row.quality.values()))
    return f"{row.mean:.2f}" + (f" ± {error:.2f}" if error is not None else "")


def percent(value: float | None, digits: int = 0) -> str:
    """Format a fraction as percent."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def seeds_of(row: Row, compared: Sequence[int]) -> str:
    """Format the seeds of a row; marks rows with other seeds than those compared, and seeds with older results."""
    text = ", ".join(map(str, row.quality)) + ("" if tuple(row.quality) == tuple(compared) else f" {OTHER_SEEDS}")
    return text + (f" ({OLDER} {', '.join(map(str, row.older))})" if row.older else "")


def machines_of(row: Row, machines: Sequence[Any]) -> str:
    """Format the numbers (from 1) of a row's machines, with the seeds of each if there are several."""
    seeds: dict[int, list[str]] = {}
    for seed, machine in row.machines.items():
        seeds.setdefault(machines.index(machine) + 1, []).append(str(seed))
    if len(seeds) == 1:
        return str(next(iter(seeds)))
    return ", ".join(f"{number} (seed {' and '.join(each)})" for number, each in sorted(seeds.items()))


Column = tuple[str, Callable[[Row], str]]


def columns(unit: str, compared: Sequence[int], machines: Sequence[Any] = ()) -> list[Column]:
    """Return the columns of the main table; includes the machine only if there are several."""
    found: list[Column] = [
        (f"{unit}, %", quality),
        ("seeds", lambda row: seeds_of(row, compared)),
        ("length", lambda row: row.length),
        ("images", lambda row: f"{row.images:.0f}"),
        ("budget", lambda row: percent(row.budget, 1)),
        ("wall, s", lambda row: f"{row.wall:.0f}"),
        ("wall of full", lambda row: percent(row.wall_ratio)),
        ("CPU, s", lambda row: f"{row.cpu:.0f}"),
        ("CPU of full", lambda row: percent(row.cpu_ratio)),
    ]
    return [*found, ("machine", lambda row: machines_of(row, machines))] if len(machines) > 1 else found


def difference_columns() -> list[Column]:
    """Return the columns of paired differences from the controls."""

    def less(control: str) -> Callable[[Row], str]:
        return lambda row: signed(row.less.get(control, {}))

    return [(f"less {control}", less(control)) for control in (SHORT, *CONTROLS)]


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
