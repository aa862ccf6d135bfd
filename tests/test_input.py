"""All cases of bad and odd input together: how many there are, and that docs/input.md lists them.

`python tests/test_input.py` prints what belongs there.
"""

import re
from pathlib import Path

import test_input_core
import test_input_det
import test_input_seg

DOCS = Path(__file__).parents[1] / "docs/input.md"
TABLES = {
    "Settings and selections": test_input_core.CASES,
    "Detection: refused": test_input_det.BAD,
    "Detection: trains": test_input_det.ODD,
    "Segmentation: refused": test_input_seg.BAD,
    "Segmentation: trains": test_input_seg.ODD,
}


def said(message: str) -> str:
    """Return a pattern as people read it."""
    return " ".join(re.sub(r"\\(.)", r"\1", message.replace(".*", " … ")).split())


def tables() -> str:
    """Return the tables in Markdown."""
    parts = []
    for title, cases in TABLES.items():
        lines = [f"| {name} | {said(message)} |" for name, (_, message) in cases.items()]
        parts.append("\n".join([f"## {title}\n", "| case | what is said |", "| --- | --- |", *lines]))
    return "\n\n".join(parts) + "\n"


def test_there_are_sixty_cases_and_more() -> None:
    assert sum(map(len, TABLES.values())) >= 60
    assert min(map(len, TABLES.values())) >= 10


def test_every_case_is_documented() -> None:
    assert DOCS.read_text(encoding="utf-8").endswith(tables()), "paste what python tests/test_input.py prints"


if __name__ == "__main__":
    print(tables(), end="")
