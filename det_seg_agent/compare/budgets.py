"""The budgets of finished cells: interpolation between two shorter schedules, and pairs of cells with one budget.

`compare.rows` uses it.
"""

from collections.abc import Mapping, Sequence

from det_seg_agent.compare.cells import AGREE, Cell
from det_seg_agent.compare.figures import Result

Finished = Sequence[tuple[Cell, Result]]
Results = Mapping[int, Result]  # by seed


def share(result: Result) -> float:
    """Return the budget of a finished cell: its images divided by those of full training."""
    return float(result["images"] / result["full_images"])


def at_budget(several: Finished) -> Result:
    """Return the result of one cell, or interpolate two shorter schedules linearly at the budget between them.

    Numbers are interpolated; curve and machine are those of the nearer schedule. If only one of the two is finished,
    its result is returned. "parts" has the folder of each cell and its share.
    """
    if len(several) == 1:
        return {**several[0][1], "parts": [(several[0][1].get("place"), 1.0)]}
    (cell, low), (_, high) = sorted(several, key=lambda pair: pair[0].budget)
    wanted = cell.matched(int(low["samples"]))
    part = min(1.0, max(0.0, (wanted - share(low)) / (share(high) - share(low))))
    near = {**(low if part < 0.5 else high)}
    for key in ("quality", "images", "wall_s", "cpu_s"):
        near[key] = low[key] + part * (high[key] - low[key])
    for key in ("metrics", "by_class", "by_class50"):
        both = [(name, low[key][name], high[key].get(name)) for name in low.get(key, {})]
        near[key] = {name: a + part * (b - a) for name, a, b in both if a is not None and b is not None}
    near["schedule"] = f"{low['schedule'].split()[0]} and {high['schedule']}"
    near["parts"] = [(low.get("place"), 1.0 - part), (high.get("place"), part)]
    return {**near, **{key: bool(low.get(key) or high.get(key)) for key in ("older", "resumed")}}


def paired(mine: Results, others: Sequence[Results]) -> dict[int, tuple[Result, Result]]:
    """Return by seed the result and the other one with the nearest budget, if budgets agree."""
    pairs = {}
    for seed, result in mine.items():
        near = min((o[seed] for o in others if seed in o), key=lambda o: abs(share(o) - share(result)), default=None)
        if near is not None and abs(share(near) - share(result)) <= AGREE + 1e-9:
            pairs[seed] = (result, near)
    return pairs
