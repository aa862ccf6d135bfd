"""The documents are easy to read; test_code_blocks.py runs their code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_lines_and_paragraphs_are_short(path: Path) -> None:
    """100 characters a line, but for rows of tables, which cannot be wrapped; six lines a paragraph."""
    text = path.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > 100 and not line.startswith("|")] == []
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    paragraphs = [
        part for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", prose) if not part.strip().startswith("|")
    ]
    assert [part for part in paragraphs if len(part.strip().splitlines()) > 6] == []
