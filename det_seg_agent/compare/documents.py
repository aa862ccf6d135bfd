"""Tables of results in a Markdown document: `compare.py CONFIG --tables docs/benchmarks.md`. `compare.cli` uses it.

A document marks the place of each table, which is made anew between two comments:

    <!-- compare: camvid segmentation 0.5 -->
    <!-- end of compare -->

The words are the name of the YAML without its suffix, the task, a ratio, and optionally `classes`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from det_seg_agent.compare.columns import NONE, chance, mean_of, seconds, signed
from det_seg_agent.compare.figures import Figure
from det_seg_agent.compare.report import AGAINST
from det_seg_agent.compare.rows import Row
from det_seg_agent.compare.summary import Summary
from det_seg_agent.compare.tables import notes
from det_seg_agent.errors import ConfigError
from det_seg_agent.files import replacing

MARKED = re.compile(r"(<!-- compare: ([^\n]*?) -->\n)(.*?)(<!-- end of compare -->)", re.S)
FORM = "<!-- compare: NAME TASK RATIO [classes] -->, and after it <!-- end of compare -->"
WIDTH = 100


def write_tables(path: Path, name: str, summaries: Sequence[Summary]) -> int:
    """Write the tables of a comparison into a document; all else stays. Return their number.

    Args:
        path: the document.
        name: name of the comparison's YAML without its suffix.
        summaries: summary of each task that has finished cells.

    Raises:
        ConfigError: if the document cannot be read, marks no table of this comparison, or one that it does not have.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--tables {path}: {error}") from error
    by_task = {summary.task: summary for summary in summaries}
    count = 0

    def made(found: re.Match[str]) -> str:
        nonlocal count
        words = found[2].split()
        if not words or words[0] != name:
            return found[0]
        count += 1
        return f"{found[1]}{table_of(path, words[1:], by_task)}\n{found[4]}"

    filled = MARKED.sub(made, text)
    if not count:
        raise ConfigError(f"--tables {path}: it has no place for {name}. Mark one by {FORM}.")
    with replacing(path) as part:
        part.write_text(filled, encoding="utf-8")
    return count


def table_of(path: Path, words: Sequence[str], by_task: Mapping[str, Summary]) -> str:
    """Return the table that a mark asks for.

    Raises:
        ConfigError: if the mark has another form, or nothing of it is finished.
    """
    mark = f"--tables {path}: <!-- compare: ... {' '.join(words)} -->"
    if len(words) not in (2, 3) or (len(words) == 3 and words[2] != "classes"):
        raise ConfigError(f"{mark} is not of the form {FORM}.")
    summary = by_task.get(words[0])
    rows = [row for row in summary.rows if f"{row.ratio:g}" == words[1]] if summary else []
    if summary is None or not rows:
        raise ConfigError(f"{mark}: there is no finished cell of this task and ratio.")
    if len(words) == 3:
        return _classes(summary, rows)
    full = [row for row in summary.rows if row.role == "full"]
    return _main(summary, full + [row for row in rows if row.role != "full"])


def _main(summary: Summary, rows: Sequence[Row]) -> str:
    primary, *others = summary.figures.shown
    against = summary.report.against
    rest = [control for control in AGAINST if control not in against][:1]  # as many as the page holds
    head = ["strategy", primary.label, *(f.label for f in others), "seeds", "images", "CPU s"]
    for control in against:
        head += [f"less {control}", "Holm p"]
    lines = [[*head, *(f"less {control}" for control in rest)]]
    for row in rows:
        found = summary.primary.get(row.name, {})
        line = [row.label, mean_of(row, primary, with_spread=True), *(mean_of(row, f) for f in others)]
        line += [", ".join(map(str, row.quality)), f"{row.images:.0f}", seconds(row.cpu)]
        for control in against:
            line += [signed(found.get(control)), chance(found[control].p_holm if control in found else None)]
        lines.append(line + [signed(found.get(control)) for control in rest])
    return f"\n{_markdown(lines)}\n\n{_listed(notes(summary))}\n"


def _classes(summary: Summary, rows: Sequence[Row]) -> str:
    shown = [row for row in rows if row.name in summary.classes]
    names = list(dict.fromkeys(n for row in shown for n, d in summary.classes[row.name].items() if d.by_seed))
    base = [row for row in rows if row.label == "random"]
    counts = list(summary.figures.counts.items())
    lines = [["class", *(key.replace("_", " ") for key, _ in counts), "random", *(row.label for row in shown)]]
    for name in names:
        line = [name, *(str(by_name.get(name, "")) for _, by_name in counts)]
        line.append(mean_of(base[0], Figure(name, name, (name,))) if base else NONE)
        lines.append(line + [signed(summary.classes[row.name].get(name)) for row in shown])
    return f"\n{_markdown(lines)}\n"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = [[cell.replace("|", r"\|").replace(NONE, "-") for cell in line] for line in lines]
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _listed(texts: Sequence[str]) -> str:
    """Return sentences as a list, in lines of at most `WIDTH` characters."""
    lines: list[str] = []
    for text in texts:
        line = "-"
        for word in text.split():
            if len(line) + 1 + len(word) > WIDTH:
                lines.append(line)
                line = " "
            line += f" {word}"
        lines.append(line)
    return "\n".join(lines)
