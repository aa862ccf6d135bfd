"""The results as one self-contained HTML page, and as tables for the terminal. `compare.cli` writes both."""

import html
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from det_seg_agent.compare.cells import AGREE, EVEN, QUALITY, RANDOM, SHORT, Cell
from det_seg_agent.compare.columns import (
    OLDER,
    OTHER_SEEDS,
    Column,
    columns,
    difference_columns,
    figure_columns,
    kinds_of,
    selection_columns,
)
from det_seg_agent.compare.plots import learning_curves, quality_over_cost
from det_seg_agent.compare.rows import Finished, Row, front, rows_of, seeds_compared
from det_seg_agent.files import replacing

UNITS = {"detection": "AP", "segmentation": "mIoU"}
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #999; } h3 { margin-top: 1.8rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid #111; vertical-align: bottom; } th[scope=row], th:first-child { text-align: left; }
tr.best th[scope=row]::after { content: " \\2605"; } tr.control td, tr.control th { background: #f3f3f3; }
figure { margin: 1rem 0; overflow-x: auto; } figure svg { width: 100%; min-width: 36rem; height: auto; }
figcaption, .note { color: #444; font-size: .92em; }
pre { background: #f3f3f3; padding: .8rem; overflow-x: auto; font-size: .85em; }
@media print { body { max-width: none; margin: 0; } h2 { break-before: auto; } table, figure { break-inside: avoid; } }
"""


NOTE = f"""<p class='note'>Every figure is of the last weights. Mean ± sample standard deviation over seeds, which of so
few is only a rough guide. Differences are within a seed and a ratio, each seed's in brackets, and only where both
trained on the same share of images to {100 * AGREE:.0f} % of full training. {OTHER_SEEDS}: other seeds than those
compared, so that its mean does not compare with the others; look at the differences. {OLDER}: seeds whose cells an
older state of this package's sources finished. ★: of the rows with the seeds compared, no other has at least this mean
for no larger budget. <strong>{SHORT}</strong> with two lengths is interpolated linearly at the budget between them. A
row named native has the budget that its own rule comes to. Seconds are medians of whole processes, from start to the
last figure, with all our work; CPU seconds are what to compare on a machine that others use. A seed without a full run
of its own is set against those of the others. Initial weights: {{same}} in all cells of a seed.</p>"""


def table(caption: str, rows: Sequence[Row], shown: Sequence[Column], best: Sequence[Row] = ()) -> str:
    """Return an HTML table with one line per row.

    Args:
        caption: caption of the table.
        rows: strategies and ratios.
        shown: the columns.
        best: rows to mark with a star.
    """
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name, _ in shown)
    body = []
    for row in rows:
        kind = " ".join(word for word, on in (("best", row in best), ("control", row.is_control)) if on)
        cells = "".join(f"<td>{html.escape(cell(row))}</td>" for _, cell in shown)
        body.append(f'<tr class="{kind}"><th scope="row">{html.escape(row.name)}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table><caption>{html.escape(caption)}</caption><thead><tr><th scope="col">strategy, '
        f"ratio</th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def task_section(task: str, finished: Finished, machines: Sequence[Any]) -> str:
    """Return the HTML of a task's tables and plots; `machines` are those of the whole page."""
    unit, rows = UNITS[task], rows_of(finished)
    best, compared = front(rows), seeds_compared(rows)
    initial: dict[int, set[str]] = {}
    for cell, result in finished:
        initial.setdefault(cell.seed, set()).add(result["initial_weights"])
    same = all(len(weights) == 1 for weights in initial.values())
    further = figure_columns(rows)
    parts = [
        f"<h2>{task.capitalize()}</h2>",
        table(f"{unit} and cost", rows, columns(unit, compared, machines), best),
        table(f"Paired differences of {unit}", [row for row in rows if row.role != "full"], difference_columns()),
        NOTE.format(same="the same" if same else "NOT the same"),
        table("Further figures, %, means over seeds", rows, further) if further else "",
        f"<figure>{quality_over_cost(rows, unit)}<figcaption>Quality over cost. Bars are the spread over seeds; the "
        "grey line joins the rows marked ★.</figcaption></figure>",
    ]
    for ratio in sorted({row.ratio for row in rows if row.ratio < 1}, reverse=True):
        curves = learning_curves(rows, ratio)
        if curves:
            caption = f"Learning curves at ratio {ratio:g}, means over seeds."
            if "loss" in curves[1]:
                caption += (
                    " The loss is that of the images trained on, which the strategies choose: it does not rank them."
                )
            parts.append(f"<figure>{curves[0]}<figcaption>{caption}</figcaption></figure>")
    selecting = [row for row in rows if row.selection]
    if selecting:
        parts.append(table("What was selected", selecting, selection_columns(selecting)))
        parts.append(
            "<p class='note'>Over the passes that select: share of the images that any of them selected; of a "
            "selection, share that the one before did not hold; share of all picks that went to the most picked tenth "
            "of images"
            + (
                "; by kind, mean share of its images in a selection, and in brackets that of the first and the last "
                "third of those passes."
                if kinds_of(selecting)
                else "."
            )
            + "</p>"
        )
    return "\n".join(parts)


def page(
    title: str,
    text: str,
    command: str,
    finished: Finished,
    missing: Mapping[str, str],
    pictures: Mapping[str, str] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        title: heading.
        text: the YAML of the comparison.
        command: command that repeats it.
        finished: cells with their results.
        missing: maps the name of each unfinished cell to the reason.
        pictures: HTML of the pictures of each task, from `compare.pictures`.
    """
    tasks = list(dict.fromkeys(cell.task for cell, _ in finished))
    machines = list({str(result["machine"]): result["machine"] for _, result in finished}.values())
    sections = [
        task_section(task, [(c, r) for c, r in finished if c.task == task], machines) + (pictures or {}).get(task, "")
        for task in tasks
    ]
    if missing:
        rows = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th><td style="text-align:left">{html.escape(why)}</td></tr>'
            for name, why in missing.items()
        )
        head = '<thead><tr><th scope="col">cell</th><th scope="col">state</th></tr></thead>'
        caption = "<caption>Cells without a result when the page was made</caption>"
        sections.append(
            f'<h2>Not finished</h2><div class="scroll"><table>{caption}{head}<tbody>{rows}</tbody></table></div>'
        )
    versions = "".join(
        "<table><caption>{}</caption><tbody>{}</tbody></table>".format(
            "Versions and machine" if len(machines) == 1 else f"Machine {i}",
            "".join(
                f'<tr><th scope="row">{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>' for k, v in m.items()
            ),
        )
        for i, m in enumerate(machines, 1)
    )
    sources = sorted({f"{cell.task} {result['sources']}" for cell, result in finished})
    when = max(
        (result["finished"] for _, result in finished), default=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p>{len(finished)} runs, the last finished on {when} UTC. <strong>full</strong> trains on all images for the whole
schedule; <strong>{SHORT}</strong> on all images for as many images as the selections of that ratio get, its
learning rate falling to the end; <strong>{RANDOM}</strong> on a new random selection each pass;
<strong>{EVEN}</strong> on all images in turns, at equal rates; <strong>{QUALITY}</strong> by the fixed rule that the
agent's policy approximates. A selection is of use where it is above the first two, and what is learned while training
where it is above the last two as well.</p>
{"".join(sections)}
<h2>To repeat it</h2><pre>{html.escape(command)}</pre><pre>{html.escape(text)}</pre>
<div class="scroll">{versions}</div><p class="note">Sources of det_seg_agent: {", ".join(sources)}.</p>
</body></html>
"""


def write_page(path: Path, content: str) -> None:
    """Write the page atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(content, encoding="utf-8")


def print_tables(finished: Finished, console: Console) -> None:
    """Print one table per task."""
    for task in dict.fromkeys(cell.task for cell, _ in finished):
        rows = rows_of([(cell, result) for cell, result in finished if cell.task == task])
        unit = UNITS[task]
        shown = [c for c in columns(unit, seeds_compared(rows)) if c[0] not in ("wall, s", "CPU, s", "images")]
        shown += difference_columns() + selection_columns(rows)[3:]
        out = Table(title=task)
        out.add_column("strategy, ratio")
        for head, _ in shown:
            out.add_column(head, justify="right")
        for row in rows:
            out.add_row(row.name, *(cell(row) for _, cell in shown))
        console.print(out)


def missing_cells(
    cells: Sequence[Cell], result: Callable[[Cell], Any], failure: Callable[[Cell], Any]
) -> dict[str, str]:
    """Return the reason for each cell without a result, by name."""
    why = {}
    for cell in cells:
        if result(cell) is None:
            failed = failure(cell)
            last = failed["tail"].strip().splitlines()[-1] if failed and failed["tail"].strip() else ""
            why[cell.name] = f"failed with status {failed['status']}: {last}" if failed else "not run"
    return why
