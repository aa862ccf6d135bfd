"""Pictures of what was selected, and how often by kind. `compare.child` draws, `compare.cli` shows them.

Only the embedded scenes have kinds. Of other data the page has the contact sheets that the run itself leaves.
"""

import base64
import html
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from det_seg_agent.compare.budgets import Finished
from det_seg_agent.compare.cells import CONTROLS, Cell
from det_seg_agent.compare.rows import AGENT
from det_seg_agent.reporting.sheets import contact_sheets
from det_seg_agent.reporting.trace import read_passes
from det_seg_agent.scenes import truth_of

SHEETS = {"most": "most_selected.jpg", "least": "least_selected.jpg"}
STRATEGIES = 3  # a page stays below some megabytes


def draw_sheets(folder: Path, root: Path) -> None:
    """Write contact sheets of a finished cell on the embedded scenes to `folder`, with kinds as captions.

    Counts are over the passes that did not select everything; without such a pass there are no sheets.

    Args:
        folder: folder of the cell, with the trace in `run/trace`.
        root: folder of the scenes.
    """
    tables = [table for _, table in read_passes(folder / "run/trace", ["selected", "score"])]
    masks = [torch.from_numpy(table["selected"].to_numpy().copy()) for table in tables]
    masks = [mask for mask in masks if not mask.all()]
    if not masks:
        return
    truth = truth_of(root)
    score = torch.from_numpy(tables[-1]["score"].to_numpy().copy())
    files = [str(root / "train" / name) for name in truth]
    contact_sheets(files, torch.stack(masks).sum(0), len(masks), score, folder, notes=[*map(_note, truth.values())])


def _note(row: Mapping[str, Any]) -> str:
    if row["group"] is not None:
        return f"copy of scene {row['group'] + 1}"
    return f"wrong {row['wrong']}" if row["wrong"] else str(row["kind"])


def pictures(finished: Finished) -> str:
    """Return the HTML with pictures of one task, and the table by kind; '' if there is neither.

    Pictures are of the first cell of up to `STRATEGIES` strategies that are no controls, the agent first.

    Args:
        finished: cells of one task with their results, each with the "place" of its files.
    """
    parts = []
    for cell, result in _shown(finished):
        place = Path(result["place"])
        for word, name in SHEETS.items():
            path = next((p for p in (place / name, place / "run" / name) if p.is_file()), None)
            if path is not None:
                data = base64.b64encode(path.read_bytes()).decode("ascii")
                text = html.escape(f"Images that {cell.name} selected {word} often")
                parts.append(
                    f'<figure><img style="max-width:100%" alt="{text}" src="data:image/jpeg;base64,{data}">'
                    f"<figcaption>{text}; under each, in how many passes. Ties by the score.</figcaption></figure>"
                )
    if relative := _by_kind(finished):
        parts.append(relative)
    return "\n".join(["<h3>Pictures and kinds of what was selected</h3>", *parts]) if parts else ""


def _shown(finished: Finished) -> Finished:
    """Return the first cell of each strategy to show; that of a control if there are only controls."""
    first: dict[str, tuple[Cell, Mapping[str, Any]]] = {}
    for cell, result in finished:
        if cell.role in ("selection", "native"):
            first.setdefault(cell.label, (cell, result))
    own = [pair for label, pair in first.items() if label not in CONTROLS] or [*first.values()]
    return sorted(own, key=lambda pair: pair[0].label != AGENT)[:STRATEGIES]


def _by_kind(finished: Finished) -> str:
    """Return a table: strategies by kinds, how often a kind was selected relative to the mean over all images."""
    rows: dict[str, list[dict[str, float]]] = {}
    numbers: dict[str, int] = {}
    for cell, result in finished:
        figures = result.get("selection") or {}
        if not figures.get("numbers"):
            continue
        numbers = figures["numbers"]
        mean = sum(figures["kinds"][kind] * number for kind, number in numbers.items()) / sum(numbers.values())
        name = cell.label if cell.role == "native" else f"{cell.label} {cell.ratio:g}"
        rows.setdefault(name, []).append({kind: figures["kinds"][kind] / mean for kind in numbers})
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{html.escape(kind)}<br>{number}</th>' for kind, number in numbers.items())
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{statistics.fmean(row[kind] for row in found):.2f}</td>" for kind in numbers)
        + "</tr>"
        for name, found in rows.items()
    )
    return (
        '<div class="scroll"><table><caption>How often images of a kind were selected, relative to the mean</caption>'
        f'<thead><tr><th scope="col">strategy, ratio<br>number of images</th>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div><p class='note'>Means over seeds. 1: as often as the mean over all images. The truth is known "
        "here: wrong images have wrong labels, rare ones show a rare class, duplicates are copies of a few scenes. The "
        "sheets show images without labels; wrong classes and wrong places are those of the labels. The row of random "
        "is what chance alone comes to. Training knows nothing of the kinds.</p>"
    )
