"""The page of `det-seg-agent inspect`: one self-contained HTML file without scripts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from det_seg_agent.inspecting.advice import costs, faults_lines, labels_lines, sentences
from det_seg_agent.inspecting.asked import Asked
from det_seg_agent.inspecting.contents import Contents
from det_seg_agent.inspecting.findings import Findings, rare_examples
from det_seg_agent.inspecting.similar import Images
from det_seg_agent.reporting.looks import Look, Looks
from det_seg_agent.reporting.markup import bullets, figure, grid, page, picture, section, short, table

ROWS = 200  # classes in the table
GROUPS = 6


def page_of(contents: Contents, found: Findings, images: Images | None, asked: Asked, looks: Looks) -> str:
    """Return the page.

    Args:
        contents: the labels.
        found: what they say.
        images: what the images say; None if they were not read.
        asked: the settings.
        looks: returns what to draw as the labels of images.
    """
    similar = None if images is None else images.similar
    head = ("ratio", "images of a pass", f"images in {asked.epochs} passes", "of full training")
    rows = costs(len(contents), asked.epochs, asked.ratio, asked.pace)
    parts = [
        section("What follows", "", bullets(sentences(contents, found, similar, asked.ratio))),
        section("What is there", "", bullets(labels_lines(contents, found))),
        section(
            "What looks wrong", "Labels that are doubtful in themselves. A training finds more.",
            _faults(contents, found, looks),
        ),
        section(
            "What it costs",
            "The first pass and the last eighth are over all images, as by default."
            + (f" Hours at {asked.pace:g} images a second." if asked.pace else " Give pace=IMAGES_A_SECOND for hours."),
            table((*head, "hours") if asked.pace else head, rows),
        ),
        section(
            "Classes", "The rarest first. Bars: share of the images that show the class.",
            _rare(contents, found, looks) + _classes(contents, found),
        ),
    ]  # fmt: skip
    if images is not None:
        parts += [
            section("Near-duplicates", "The largest groups.", _groups(contents, images)),
            section(
                "Video-like runs", "Images whose neighbours in the order of names look alike; of each run some.",
                _runs(contents, images),
            ),
        ]  # fmt: skip
    lead = "Labels" if images is None else "Labels and images"
    title = f"Inspection of {Path(contents.source).name}"
    return page(title, f"{lead} of the training set were read, nothing was trained: {contents.source}.", parts)


def _name(contents: Contents, index: int) -> str:
    return short(contents.files[index].replace("\\", "/").rsplit("/", 1)[-1])


def _pictures(contents: Contents, chosen: Sequence[int], captions: Sequence[str], looks: Looks | None) -> str:
    drawn: Sequence[Look | None] = looks(chosen) if looks is not None else [None] * len(chosen)
    return grid(
        figure(picture(contents.files[i], _name(contents, i), [drawn[place]]), captions[place])
        for place, i in enumerate(chosen)
    )


def _faults(contents: Contents, found: Findings, looks: Looks) -> str:
    lines = faults_lines(contents.files, found)
    if not lines:
        return "<p>Nothing.</p>"
    parts = []
    for line, fault in zip(lines, found.faults, strict=True):
        captions = [_name(contents, i) for i in fault.images]
        parts.append(bullets([line]) + _pictures(contents, fault.images, captions, looks))
    return "".join(parts)


def _rare(contents: Contents, found: Findings, looks: Looks) -> str:
    figures = []
    for c, i in rare_examples(contents, found):
        look, name = looks([i])[0], contents.names[c]
        if look is not None and look.mask is None:  # of the class alone
            mine = [place for place, each in enumerate(look.names) if each == name]
            look = Look(look.boxes[mine], [name] * len(mine))
        shown = picture(contents.files[i], _name(contents, i), [look], near=True)
        figures.append(figure(shown, f"{name}: {_name(contents, i)}"))
    return grid(figures)


def _classes(contents: Contents, found: Findings) -> str:
    order = [c for c in np.argsort(found.images, kind="stable").tolist()]
    total, labels = max(len(contents), 1), max(float(found.labels.sum()), 1.0)
    rows = [
        (
            contents.names[c], f"{found.images[c]:,}", float(found.images[c] / total), f"{found.labels[c]:,.0f}",
            f"{found.labels[c] / labels:.1%}",
        )
        for c in order[:ROWS]
    ]  # fmt: skip
    more = f"<p>{len(order) - ROWS} classes more.</p>" if len(order) > ROWS else ""
    return (
        table(
            ("class", "images", "share of the images", contents.unit, f"of all {contents.unit}"),
            rows,
            bar=2,
            form=".1%",
        )
        + more
    )


def _groups(contents: Contents, images: Images) -> str:
    parts = []
    for number in range(min(GROUPS, images.similar.groups)):
        members = np.flatnonzero(images.groups == number).tolist()
        captions = [_name(contents, i) for i in members[:6]]
        parts.append(f"<h3>{len(members)} images</h3>" + _pictures(contents, members[:6], captions, None))
    return "".join(parts) or "<p>None.</p>"


def _runs(contents: Contents, images: Images) -> str:
    parts = []
    for run in images.runs[:3]:
        chosen = run[:: -(-len(run) // 6)]
        captions = [_name(contents, i) for i in chosen]
        parts.append(f"<h3>{len(run)} images</h3>" + _pictures(contents, chosen, captions, None))
    return "".join(parts) or "<p>None.</p>"
