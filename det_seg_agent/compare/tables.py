"""The results for the terminal, and as JSON and CSV. `compare.cli` writes them."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from det_seg_agent.compare.cells import RANDOM
from det_seg_agent.compare.columns import chance, mean_of, percent, signed
from det_seg_agent.compare.figures import Figure
from det_seg_agent.compare.report import AGAINST
from det_seg_agent.compare.rows import Row, spread
from det_seg_agent.compare.sections import ONE_SEED
from det_seg_agent.compare.summary import Difference, Summary

WIDTH = 100  # columns of a table in the terminal
NAME = 24  # of them for the strategy and its ratio


def print_tables(summaries: Sequence[Summary], console: Console) -> None:
    """Print two tables per task, of at most `WIDTH` columns, and what has to be known about them."""
    for summary in summaries:
        primary, *others = summary.figures.shown
        first = summary.report.against[0]
        out = _table(f"{summary.task}: {primary.label}, %", primary.label, "seeds", f"less {first}", "Holm p")
        for figure in others:
            out.add_column(figure.label, justify="right")
        out.add_column("budget", justify="right")
        for row in summary.rows:
            found = summary.primary.get(row.name, {}).get(first)
            cells = [
                mean_of(row, primary),
                str(len(row.results)),
                signed(found),
                chance(found.p_holm if found else None),
            ]
            out.add_row(row.name, *cells, *(mean_of(row, f) for f in others), percent(row.budget))
        console.print(out)
        rest = [control for control in AGAINST if control != first]
        out = _table(f"{summary.task}: {primary.label}, paired differences", *(f"less {control}" for control in rest))
        for row in summary.rows:
            found_of = summary.primary.get(row.name, {})
            if row.role != "full":
                out.add_row(row.name, *(signed(found_of.get(control)) for control in rest))
        console.print(out)
        for text in notes(summary):
            console.print(text, highlight=False, markup=False)


def notes(summary: Summary) -> list[str]:
    """Return what the tables need to be read."""
    found = [ONE_SEED] if summary.one_seed else []
    if not summary.one_seed:
        found.append(
            "Differences are within a seed and a ratio; in brackets the 95 % BCa interval over seeds, from three on. "
            f"Holm p: exact sign flips, {len(summary.tests)} tests in the family."
        )
    if summary.report.margin is not None:
        same = [
            f"{name} and {control}"
            for name, found_of in summary.primary.items()
            for control in summary.report.against
            if control in found_of and found_of[control].equivalent
        ]
        found.append(
            f"Equivalent within ±{summary.report.margin:g} points: {', '.join(same) or 'none can be said to be'}."
        )
    return [*found, *summary.figures.notes]


def _table(title: str, *heads: str) -> Table:
    out = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    out.add_column("strategy, ratio", max_width=NAME, overflow="fold")
    for head in heads:
        out.add_column(head, justify="right")
    return out


def results(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Return everything as JSON: by task, its figures, classes, tests and rows."""
    return {summary.task: _task(summary) for summary in summaries}


def _task(summary: Summary) -> dict[str, Any]:
    figures = summary.figures
    return {
        "report": summary.report.model_dump(),
        "primary": figures.primary.key,
        "figures": {f.key: {"label": f.label, "classes": f.classes and list(f.classes)} for f in figures.shown},
        "classes": figures.counts,
        "notes": notes(summary),
        "family": [list(test) for test in summary.tests],
        "rows": [_row(summary, row) for row in summary.rows],
    }


def _row(summary: Summary, row: Row) -> dict[str, Any]:
    learning = summary.learning.get(row.name)
    return {
        "name": row.name, "strategy": row.label, "ratio": row.ratio, "role": row.role, "seeds": list(row.results),
        "budget": row.budget, "images": row.images, "wall_s": row.wall, "cpu_s": row.cpu, "older": row.older,
        "resumed": row.resumed,
        "figures": {figure.key: _figure(row, figure) for figure in summary.figures.shown},
        "differences": {control: _difference(d) for control, d in summary.primary.get(row.name, {}).items()},
        "less_random": {key: _difference(d) for key, d in summary.others.get(row.name, {}).items()},
        "classes": {name: _figure(row, Figure(name, name, (name,))) for name in row.classes},
        "classes_less_random": {
            name: _difference(d) for name, d in summary.classes.get(row.name, {}).items() if d.by_seed
        },
        "learning": learning and {
            "area": learning.area, "less_random": _difference(learning.less_random), "reached": learning.reached,
        },
    }  # fmt: skip


def _figure(row: Row, figure: Figure) -> dict[str, Any]:
    values = row.values(figure)
    each = list(values.values())
    return {"mean": statistics.fmean(each) if each else None, "sd": spread(each), "by_seed": values}


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "mean": found.mean, "n": len(found.by_seed), "by_seed": found.by_seed, "interval": found.interval,
        "t_interval": found.t_interval, "p": found.p, "p_holm": found.p_holm, "equivalent": found.equivalent,
        "over_images": found.over_images,
    }  # fmt: skip


def rows_csv(summaries: Sequence[Summary]) -> str:
    """Return the rows as CSV: figures, and paired differences from each control."""
    lines = []
    for summary in summaries:
        for row in summary.rows:
            line: dict[str, Any] = {
                "task": summary.task, "strategy": row.label, "ratio": row.ratio, "seeds": len(row.results),
                "budget": row.budget, "images": row.images, "wall_s": row.wall, "cpu_s": row.cpu,
                "primary": summary.figures.primary.key,
            }  # fmt: skip
            for figure in summary.figures.shown:
                known = _figure(row, figure)
                line |= {figure.key: known["mean"], f"{figure.key}_sd": known["sd"]}
            for control in AGAINST:
                line |= _flat(f"less_{control}".replace(", ", "_"), summary.primary.get(row.name, {}).get(control))
            lines.append(line)
    return _csv(lines)


def classes_csv(summaries: Sequence[Summary]) -> str:
    """Return the figures of each class as CSV, and paired differences from random."""
    lines = []
    for summary in summaries:
        for row in summary.rows:
            for name in row.classes:
                line: dict[str, Any] = {"task": summary.task, "strategy": row.label, "ratio": row.ratio, "class": name}
                line |= {key: by_name.get(name) for key, by_name in summary.figures.counts.items()}
                line |= {summary.figures.unit: row.classes[name]}
                lines.append(line | _flat(f"less_{RANDOM}", summary.classes.get(row.name, {}).get(name)))
    return _csv(lines)


def _flat(prefix: str, found: Difference | None) -> dict[str, Any]:
    found = found or Difference({})
    low, high = found.interval or (None, None)
    return {
        prefix: found.mean, f"{prefix}_low": low, f"{prefix}_high": high, f"{prefix}_n": len(found.by_seed),
        f"{prefix}_p": found.p, f"{prefix}_p_holm": found.p_holm, f"{prefix}_equivalent": found.equivalent,
    }  # fmt: skip


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
