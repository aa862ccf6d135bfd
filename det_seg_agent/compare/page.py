"""The results as one self-contained HTML page. `compare.cli` writes it."""

import html
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from det_seg_agent.compare.budgets import Finished
from det_seg_agent.compare.cells import EVEN, QUALITY, RANDOM, SHORT, Cell
from det_seg_agent.compare.sections import task_section
from det_seg_agent.compare.summary import Summary
from det_seg_agent.files import replacing

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #999; } h3 { margin-top: 1.8rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid #111; vertical-align: bottom; } th[scope=row], th:first-child { text-align: left; }
tbody th[scope=row] { position: sticky; left: 0; background: #fff; white-space: normal; min-width: 7rem; }
tr.best th[scope=row]::after { content: " \\2605"; } tr.control td, tbody tr.control th { background: #f3f3f3; }
figure { margin: 1rem 0; overflow-x: auto; } figure svg { width: 100%; min-width: 36rem; height: auto; }
figcaption, .note { color: #444; font-size: .92em; }
details { margin: .8rem 0; } summary { cursor: pointer; font-weight: 600; }
@media (max-width: 40rem) { body { margin: 1rem auto; padding: 0 .6rem; } th, td { padding: .2rem .4rem; } }
pre { background: #f3f3f3; padding: .8rem; overflow-x: auto; font-size: .85em; }
@media print { body { max-width: none; margin: 0; } h2 { break-before: auto; } table, figure { break-inside: avoid; } }
"""


def page(
    title: str,
    text: str,
    command: str,
    finished: Finished,
    missing: Mapping[str, str],
    summaries: Sequence[Summary],
    pictures: Mapping[str, str] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        title: heading.
        text: the YAML of the comparison.
        command: command that repeats it.
        finished: cells with their results.
        missing: maps the name of each unfinished cell to the reason.
        summaries: summary of each task.
        pictures: HTML of the pictures of each task, from `compare.pictures`.
    """
    machines = list({str(result["machine"]): result["machine"] for _, result in finished}.values())
    sections = [task_section(summary, machines) + (pictures or {}).get(summary.task, "") for summary in summaries]
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


def write_text(path: Path, content: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(content, encoding="utf-8")


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
