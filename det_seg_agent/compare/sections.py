"""The sections of the results page: one for each task. `compare.page` puts them together."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from det_seg_agent.compare.cells import AGREE, SHORT
from det_seg_agent.compare.columns import (
    OLDER,
    OTHER_SEEDS,
    RESUMED,
    Column,
    columns,
    difference_columns,
    figure_columns,
    image_columns,
    kinds_of,
    learning_columns,
    mean_of,
    other_columns,
    selection_columns,
    signed,
)
from det_seg_agent.compare.figures import Figure
from det_seg_agent.compare.plots import learning_curves, quality_over_cost
from det_seg_agent.compare.rows import Row, front, seeds_compared
from det_seg_agent.compare.summary import Summary

MANY_CLASSES = 20  # beyond which tables by class are folded

NOTE = f"""<p class='note'>Every figure is of the last weights. Mean ± sample standard deviation over seeds.
{OTHER_SEEDS}: other seeds than those compared, so that its mean does not compare with the others; look at the
differences. {OLDER}: seeds whose cells an older state of this package's sources finished. {RESUMED}: seeds whose
cells went on after a stop; their seconds do not count. ★: of the rows with the seeds compared, no other has at least
this mean for no larger budget. <strong>{SHORT}</strong> with two lengths is interpolated linearly at the budget
between them. A row named native has the budget that its own rule comes to. Seconds are medians of whole processes,
from start to the last figure, with all our work; CPU seconds are what to compare on a machine that others use. A seed
without a full run of its own is set against those of the others. Initial weights: {{same}} in all cells of a
seed.</p>"""

DIFFERENCES = f"""<p class='note'>Differences are within a seed and a ratio, and only where both trained on the same
share of images to {100 * AGREE:.0f} % of full training. In square brackets the 95 % BCa bootstrap interval of the
mean over seeds, for three seeds and more; it is too narrow for few seeds: of normal values it held the mean in 72 %
of cases with three, 85 % with five and 92 % with ten. In round brackets the value of each seed. Holm p: exact
two-sided sign flips over seeds, adjusted for the tests of the family, {{family}} in all; with n seeds the unadjusted p
is at least 2 / 2<sup>n</sup>, so that fewer than six cannot reach 0.05.{{margin}}</p>"""

MARGIN = """ Within ±{margin:g}: whether both this interval and Student's lie inside the margin; "no" is not a
difference, only no proof of equality."""

ONE_SEED = "One seed decides nothing: its differences have no interval and no p. Give at least three, better six."

IMAGES = """<p class='note'>Intervals over the test images, the same {resamples} bootstrap samples of them for both runs
of a seed. They say how much the choice of test images matters for these trained weights, and nothing of another
seed.</p>"""

CLASSES = """<p class='note'>Mean difference from random and 95 % interval over seeds; rare classes first. No adjustment
is made for the number of classes: one in twenty intervals misses 0 by chance alone, and more of them with few
seeds.</p>"""

LEARNING = """<p class='note'>Of the validations while training. The height is the mean over the images that all curves
of a ratio span, and the area under the curve divided by that span. Images to a part of full training's last value of
the same seed are in percent of full training's images. A shorter schedule lowers its learning rate earlier, which lifts
its curve: these figures compare selections of one ratio with each other, not with full training's schedule.</p>"""


def grid(caption: str, head: Sequence[str], lines: Iterable[tuple[str, str, Sequence[str]]]) -> str:
    """Return an HTML table.

    Args:
        caption: caption of the table.
        head: headings, the first that of the names.
        lines: name, CSS class and cells of each line.
    """
    body = []
    for name, kind, cells in lines:
        row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        body.append(f'<tr class="{kind}"><th scope="row">{html.escape(name)}</th>{row}</tr>')
    heads = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    return (
        f'<div class="scroll"><table><caption>{html.escape(caption)}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def table(caption: str, rows: Sequence[Row], shown: Sequence[Column], best: Sequence[Row] = ()) -> str:
    """Return an HTML table with one line per row.

    Args:
        caption: caption of the table.
        rows: strategies and ratios.
        shown: the columns.
        best: rows to mark with a star.
    """
    lines = []
    for row in rows:
        kind = " ".join(word for word, on in (("best", row in best), ("control", row.is_control)) if on)
        lines.append((row.name, kind, [cell(row) for _, cell in shown]))
    return grid(caption, ["strategy, ratio", *(name for name, _ in shown)], lines)


def note(text: str) -> str:
    """Return a paragraph."""
    return f"<p class='note'>{html.escape(text)}</p>"


def task_section(summary: Summary, machines: Sequence[Any]) -> str:
    """Return the HTML of a task's tables and plots; `machines` are those of the whole page."""
    rows, primary = summary.rows, summary.figures.primary
    best, compared = front(rows), seeds_compared(rows)
    initial: dict[int, set[str]] = {}
    for row in rows:
        for seed, result in row.results.items():
            initial.setdefault(seed, set()).add(result["initial_weights"])
    same = all(len(weights) == 1 for weights in initial.values())
    further = figure_columns(rows)
    selected = [row for row in rows if row.role != "full"]
    margin = "" if summary.report.margin is None else MARGIN.format(margin=summary.report.margin)
    parts = [
        f"<h2>{summary.task.capitalize()}</h2>",
        *([f"<p><strong>{ONE_SEED}</strong></p>"] if summary.one_seed else []),
        *map(note, summary.figures.notes),
        table(f"{primary.label} and cost", rows, columns(summary, compared, machines), best),
        NOTE.format(same="the same" if same else "NOT the same"),
        table(f"Paired differences of {primary.label}", selected, difference_columns(summary)),
        DIFFERENCES.format(family=len(summary.tests), margin=margin),
        *_over_images(summary, selected),
    ]
    if other_columns(summary):
        parts.append(table("Paired differences of the other figures", selected, other_columns(summary)))
    parts += _by_class(summary)
    parts.append(table("Further figures, %, means over seeds", rows, further) if further else "")
    parts.append(
        f"<figure>{quality_over_cost(rows, primary.label)}<figcaption>Quality over cost. Bars are the spread over "
        "seeds; the grey line joins the rows marked ★.</figcaption></figure>"
    )
    return "\n".join([*parts, *_curves(summary), *_selections(rows)])


def _over_images(summary: Summary, selected: Sequence[Row]) -> list[str]:
    against = summary.report.against
    known = [r for r in selected if any(d.over_images for c, d in summary.primary[r.name].items() if c in against)]
    if not known:
        return []
    caption = f"{summary.figures.primary.label} of each seed, over the test images"
    return [
        table(caption, known, image_columns(summary)),
        IMAGES.format(resamples=f"{summary.report.resamples:,}"),
    ]


def _by_class(summary: Summary) -> list[str]:
    """Return a table of each ratio with a line per class, folded if there are many."""
    parts = []
    counts = {name.replace("_", " "): by_name for name, by_name in summary.figures.counts.items()}
    for ratio in sorted({row.ratio for row in summary.rows if row.name in summary.classes}, reverse=True):
        shown = [row for row in summary.rows if row.ratio == ratio and row.name in summary.classes]
        base = [row for row in summary.rows if row.ratio == ratio and row.label == "random"]
        names = list(dict.fromkeys(n for row in shown for n, d in summary.classes[row.name].items() if d.by_seed))
        if not names or not base:
            continue
        lines = []
        for name in names:
            figure = Figure(name, name, (name,))
            numbers = [str(by_name.get(name, "")) for by_name in counts.values()]
            numbers += [mean_of(row, figure) for row in base]
            lines.append((name, "", numbers + [signed(summary.classes[row.name].get(name)) for row in shown]))
        head = ["class", *counts, "random, %", *(row.label for row in shown)]
        text = grid(f"{summary.figures.unit} by class at ratio {ratio:g}, less random", head, lines)
        folded = f"<details><summary>By class at ratio {ratio:g}: {len(names)} classes</summary>{text}</details>"
        parts.append(folded if len(names) > MANY_CLASSES else text)
    return [*parts, CLASSES] if parts else []


def _curves(summary: Summary) -> list[str]:
    parts = []
    for ratio in sorted({row.ratio for row in summary.rows if row.ratio < 1}, reverse=True):
        for over in ("images", "seconds"):
            curves = learning_curves(summary.rows, ratio, over)
            if curves:
                caption = (
                    f"Learning curves over {over} at ratio {ratio:g}: means over seeds, with bands from the lowest "
                )
                caption += "to the highest seed."
                if "loss" in curves[1]:
                    caption += (
                        " The loss is that of the images trained on, which the strategies choose: it does not rank "
                        "them."
                    )
                parts.append(f"<figure>{curves[0]}<figcaption>{caption}</figcaption></figure>")
    if summary.learning:
        known = [row for row in summary.rows if row.name in summary.learning]
        parts += [table("Learning curves in figures", known, learning_columns(summary)), LEARNING]
    return parts


def _selections(rows: Sequence[Row]) -> list[str]:
    selecting = [row for row in rows if row.selection]
    if not selecting:
        return []
    kinds = (
        "; by kind, mean share of its images in a selection, and in brackets that of the first and the last third of "
        "those passes."
    )
    text = (
        "Over the passes that select: share of the images that any of them selected; of a selection, share that the "
        "one before did not hold; share of all picks that went to the most picked tenth of images"
    )
    return [
        table("What was selected", selecting, selection_columns(selecting)),
        note(text + (kinds if kinds_of(selecting) else ".")),
    ]
