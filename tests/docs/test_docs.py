"""The documentation's example runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_lines_and_paragraphs_are_short(path: Path) -> None:
    """100 characters a line, but for tables and links; six lines a paragraph."""
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    lines = [line for line in prose.splitlines() if not line.startswith("|") and "](" not in line]
    assert [line for line in lines if len(line) > 100] == []
    paragraphs = [
        part for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", prose) if not part.strip().startswith("|")
    ]
    assert [part for part in paragraphs if len(part.strip().splitlines()) > 6] == []


def test_the_plain_loop_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs/pytorch.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.S)[0]
    exec(compile(code, "docs/pytorch.md", "exec"), {"__name__": "example"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and "selected 100/200" in lines[1] and "selected 200/200" in lines[7]
