"""What `det-seg-agent inspect` writes and prints for labels that an adapter has read."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from det_seg_agent.errors import ConfigError
from det_seg_agent.files import printable, replacing
from det_seg_agent.inspecting.advice import costs, faults_lines, labels_lines, sentences
from det_seg_agent.inspecting.asked import USAGE, Asked, asked_of
from det_seg_agent.inspecting.contents import Contents
from det_seg_agent.inspecting.findings import Findings, find
from det_seg_agent.inspecting.images import read
from det_seg_agent.inspecting.page import page_of
from det_seg_agent.inspecting.similar import Images, images_of, write_duplicates
from det_seg_agent.reporting.looks import Look, Looks
from det_seg_agent.reporting.samples import read_samples, write_samples

SHOWN = 12  # classes printed


def box_looks(contents: Contents) -> Looks:
    """Return a function from indices to the labels' boxes."""

    def look(index: int) -> Look | None:
        rows = slice(*np.searchsorted(contents.image, [index, index + 1]).tolist())
        if contents.boxes is None:
            return None
        return Look(contents.boxes[rows], [contents.names[c] for c in contents.cls[rows].tolist()])

    return lambda indices: [look(index) for index in indices]


def fill_duplicates(contents: Contents, groups: np.ndarray, run: Path) -> None:
    """Fill the column `duplicates` of a run's samples with the groups (N,).

    Raises:
        ConfigError: if the run has no samples, or none of these images.
    """
    try:
        rows = read_samples(run)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(
            f"run={run}: its samples.parquet cannot be read ({error}); give the folder of a run."
        ) from error
    group = {printable(file): int(number) for file, number in zip(contents.files, groups, strict=True)}
    found = [group.get(file) for file in rows["file"].to_pylist()]
    if all(number is None for number in found):
        raise ConfigError(f"run={run}: it has none of the images of {contents.source}; give a run over these.")
    place = rows.column_names.index("duplicates")
    values = pa.array([None if number is None or number < 0 else number for number in found], pa.int32())
    write_samples(rows.set_column(place, rows.schema.field(place), values), run)


def inspect(words: Sequence[str], read_labels: Callable[[Asked], tuple[Contents, Looks | None]]) -> int:
    """Inspect a data set, print what it says and write the page; return the exit status.

    Args:
        words: the command line, key=value.
        read_labels: reads the labels, and returns them and what draws those of images; None for their boxes.

    Raises:
        ConfigError: if a setting or the data are invalid.
    """
    if not words or {"-h", "--help", "help"} & set(words):
        print(USAGE)
        return 0
    asked = asked_of(words)
    out = Path(asked.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out={out}: the folder cannot be made ({error}); choose another.") from error
    contents, looks = read_labels(asked)
    images = None
    if asked.images:
        thumbnails = read(contents.files)
        if lost := int((~thumbnails.readable).sum()):
            print(f"{lost:,} images cannot be read, {contents.files[int(np.argmin(thumbnails.readable))]} first")
        contents.sizes = thumbnails.sizes
        images = images_of(contents, thumbnails)
        write_duplicates(contents, images.groups, out / "duplicates.csv")
        if asked.run is not None:
            fill_duplicates(contents, images.groups, Path(asked.run))
    found = find(contents, asked.ratio, asked.imgsz)
    show(contents, found, images, asked)
    path = out / "inspect.html"
    with replacing(path) as part:
        part.write_text(page_of(contents, found, images, asked, looks or box_looks(contents)), encoding="utf-8")
    print(f"\n{path} has this with pictures" + (f"; {out / 'duplicates.csv'} the near-duplicates" if images else ""))
    return 0


def show(contents: Contents, found: Findings, images: Images | None, asked: Asked) -> None:
    """Print what the page says, without pictures."""
    console = Console(highlight=False, soft_wrap=False)
    faults = faults_lines(contents.files, found) or ["No label looks wrong in itself."]
    follows = sentences(contents, found, None if images is None else images.similar, asked.ratio)
    for title, lines in (
        (contents.source, [*labels_lines(contents, found), *faults]),
        ("What follows", follows),
    ):
        console.print(f"\n[bold]{escape(printable(title))}[/bold]")
        for line in lines:
            console.print(f"- {escape(printable(line))}")
    for title, head, rows in (
        ("Rarest classes", ("class", "images", contents.unit), _rarest(contents, found)),
        (
            "Cost", ("ratio", "a pass", f"{asked.epochs} passes", "of full", *(("hours",) if asked.pace else ())),
            costs(len(contents), asked.epochs, asked.ratio, asked.pace),
        ),
    ):  # fmt: skip
        shown = Table(title=title, title_justify="left", box=None)
        for place, name in enumerate(head):
            shown.add_column(name, justify="left" if place == 0 else "right", no_wrap=True)
        for row in rows:
            shown.add_row(*map(escape, map(printable, row)))
        console.print()
        console.print(shown)


def _rarest(contents: Contents, found: Findings) -> list[tuple[str, ...]]:
    return [(contents.names[c], f"{found.images[c]:,}", f"{found.labels[c]:,.0f}") for c in found.used[:SHOWN]]
