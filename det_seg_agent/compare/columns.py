"""The columns of the tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from det_seg_agent.compare.cells import CONTROLS, SHORT
from det_seg_agent.compare.rows import Row, spread

NONE = "\N{EN DASH}"
OTHER_SEEDS, OLDER = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
MOST_CLASSES = 20  # that are shown each


def signed(values: Mapping[int, float]) -> str:
    """Return the mean of paired differences, its spread, and each seed's."""
    if not values:
        return NONE
    each = list(values.values())
    error = spread(each)
    text = f"{sum(each) / len(each):+.2f}" + (f" ± {error:.2f}" if error is not None else "")
    return text + (f" ({', '.join(f'{v:+.2f}' for v in each)})" if len(each) > 1 else "")


def quality(row: Row) -> str:
    """Return mean and spread."""
    error = spread(list(row.quality.values()))
    return f"{row.mean:.2f}" + (f" ± {error:.2f}" if error is not None else "")


def percent(value: float | None, digits: int = 0) -> str:
    """Return a share in percent."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def seeds_of(row: Row, compared: Sequence[int]) -> str:
    """Return the seeds of a row, with a mark where they are not those compared, and those of older sources."""
    text = ", ".join(map(str, row.quality)) + ("" if tuple(row.quality) == tuple(compared) else f" {OTHER_SEEDS}")
    return text + (f" ({OLDER} {', '.join(map(str, row.older))})" if row.older else "")


def machines_of(row: Row, machines: Sequence[Any]) -> str:
    """Return the numbers, from 1, of the machines of a row, with the seeds of each where there are several."""
    seeds: dict[int, list[str]] = {}
    for seed, machine in row.machines.items():
        seeds.setdefault(machines.index(machine) + 1, []).append(str(seed))
    if len(seeds) == 1:
        return str(next(iter(seeds)))
    return ", ".join(f"{number} (seed {' and '.join(each)})" for number, each in sorted(seeds.items()))


Column = tuple[str, Callable[[Row], str]]


def columns(unit: str, compared: Sequence[int], machines: Sequence[Any] = ()) -> list[Column]:
    """Return the main table's columns; the machine only where there are several."""
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
    """Return the columns of the differences to the controls."""

    def less(control: str) -> Callable[[Row], str]:
        return lambda row: signed(row.less.get(control, {}))

    return [(f"less {control}", less(control)) for control in (SHORT, *CONTROLS)]


def figure_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of further figures, and of classes where they are few."""

    def figure(name: str) -> Callable[[Row], str]:
        return lambda row: f"{row.metrics[name]:.2f}" if name in row.metrics else NONE

    def single(name: str) -> Callable[[Row], str]:
        return lambda row: f"{row.classes[name]:.2f}" if name in row.classes else NONE

    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    classes = list(dict.fromkeys(name for row in rows for name in row.classes))
    found = [(name, figure(name)) for name in names]
    return found + [(name, single(name)) for name in classes] if len(classes) <= MOST_CLASSES else found


def kinds_of(rows: Sequence[Row]) -> list[str]:
    """Return the kinds of samples that any row knows."""
    return list(dict.fromkeys(kind for row in rows for kind in row.selection.get("kinds", {})))


def by_kind(row: Row, kind: str) -> str:
    """Return a kind's mean share, and its shares in the first and the last third of the selecting passes."""
    kinds, thirds = row.selection.get("kinds", {}), row.selection.get("thirds", {})
    text = percent(kinds.get(kind))
    return f"{text} ({100 * thirds[kind][0]:.0f}, {100 * thirds[kind][1]:.0f})" if kind in thirds else text


def selection_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of what was selected."""

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
