"""docs/input.md against what is really said: each case of bad input is looked up there, and its message compared.

"…" in the documentation stands for what depends on the run or on the host's version. After a change of messages
`WRITE_INPUT_DOCS=1 python -m pytest -n 0 tests/*/test_input_*.py` rewrites those that differ; then read them.
"""

import os
import re
import textwrap
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs/input.md"
WRITE = "WRITE_INPUT_DOCS" in os.environ


def read_cases(title: str) -> dict[str, str]:
    """Return case -> message of a section's text block: a case at the margin, its message indented below."""
    text = DOCS.read_text(encoding="utf-8")
    block = re.search(rf"^## {re.escape(title)}\n.*?^```text\n(.*?)^```$", text, re.S | re.M)
    assert block is not None, f"docs/input.md has no section {title!r} with a text block"
    cases: dict[str, list[str]] = {}
    for line in filter(None, block[1].splitlines()):
        if line.startswith("  "):
            cases[list(cases)[-1]].append(line.strip())
        else:
            cases[line] = []
    return {name: " ".join(lines) for name, lines in cases.items()}


def write_cases(title: str, cases: dict[str, str]) -> None:
    """Replace a section's text block."""
    fill = textwrap.TextWrapper(
        98, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    ).fill
    rows = [f"{name}\n{fill(message)}\n" for name, message in cases.items()]
    text = DOCS.read_text(encoding="utf-8")
    start = re.search(rf"^## {re.escape(title)}\n.*?^```text\n", text, re.S | re.M)
    assert start is not None
    DOCS.write_text(text[: start.end()] + "".join(rows) + text[text.index("```", start.end()) :], encoding="utf-8")


def check_names(title: str, names: list[str]) -> None:
    """Check that docs/input.md has these cases and no others, in this order."""
    cases = read_cases(title)
    if WRITE and list(cases) != names:
        write_cases(title, {name: cases.get(name, "") for name in names})
        return
    assert list(cases) == names and all(cases.values()), f"docs/input.md, {title}"


def check_case(title: str, case: str, message: str, **folders: Path) -> None:
    """Check that docs/input.md has this message of a case, with the names of folders in place of their paths."""
    for name, folder in sorted(folders.items(), key=lambda item: -len(str(item[1]))):
        message = message.replace(str(folder), name).replace(f".../{folder.name}", name)
    said = " ".join(message.split())
    cases = read_cases(title)
    parts = [re.escape(part.strip()) for part in cases.get(case, "").split("…")]
    if case in cases and re.fullmatch(r"\s*.*?\s*".join(parts), said, re.S):
        return
    if WRITE:
        write_cases(title, {**cases, case: said})
        return
    raise AssertionError(f"docs/input.md, {title}, {case}: what is said is\n{said}\nand not\n{cases.get(case)}")
