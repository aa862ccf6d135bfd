"""The documentation's example runs."""

import re
from pathlib import Path

import pytest


def test_the_plain_loop_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs/pytorch.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.S)[0]
    exec(compile(code, "docs/pytorch.md", "exec"), {"__name__": "example"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and "selected 100/200" in lines[1] and "selected 200/200" in lines[7]
