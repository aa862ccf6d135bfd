"""The core alone: torch, NumPy and pydantic are enough, and a run without the extra `report` says what it lacks."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_structure import FILES, IMPORTS, LEVEL, part_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPORT = ("matplotlib", "PIL", "pyarrow", "rich")
EXTRAS = (*REPORT, "yaml", "packaging", "scipy", "cv2", "ultralytics", "mmengine", "mmcv", "mmseg", "pycocotools")
HIDE = """
import sys
from importlib.abc import MetaPathFinder
class Hide(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


# Runs code once for each package, without it, in forks of one process that has imported the core's dependencies.
EACH = """
import os, sys
import torch, numpy, pydantic
for name in {names!r}:
    assert name not in sys.modules
    if os.fork() == 0:
        os.mkdir(name)
        os.chdir(name)
        for number, file in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        exec({hide!r}.format(names=(name,)) + {code!r}, {{"__name__": "__main__"}})
        sys.exit()
    assert os.wait()[1] == 0, name
"""
SHEETS = ("most_selected.jpg", "least_selected.jpg")
SAMPLES = ("samples.parquet", "samples.csv", "data.html")


def without(names: tuple[str, ...], code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process where importing these packages fails."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HIDE.format(names=names) + code]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500)


def test_the_core_imports_what_it_depends_on() -> None:
    allowed = {Requirement(line).name for line in PROJECT["dependencies"]} | {"det_seg_agent"}
    assert allowed == {"torch", "numpy", "pydantic", "det_seg_agent"}
    for module in FILES:
        if LEVEL.get(part_of(module), 0) < LEVEL["reporting"]:
            top = {name.partition(".")[0] for name in IMPORTS[module]}
            known = {"pyarrow"} if module == "det_seg_agent.earlier" else set()  # imported for `agent.init` alone
            assert top <= allowed | known | sys.stdlib_module_names, module


def test_the_toolboxes_bring_the_report() -> None:
    extras = PROJECT["optional-dependencies"]
    assert {Requirement(line).name for line in extras["report"]} == {"pyarrow", "matplotlib", "pillow", "rich"}
    assert all("det_seg_agent[report]" in extras[name] for name in ("det", "seg"))


def test_a_plain_loop_runs_and_says_once_what_it_goes_without(tmp_path: Path) -> None:
    """The example of adapter.md, to its end and once more, resumed."""
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/adapter.md").read_text(encoding="utf-8"), re.S)
    done = without(EXTRAS, code, tmp_path)
    assert done.returncode == 0 and done.stdout.count("pass ") == 8, done.stderr
    assert done.stderr.splitlines() == [
        "det_seg_agent: no trace, samples.parquet, plots, contact sheets, data.html in this run: No module named "
        "'pyarrow'; No module named 'matplotlib'; No module named 'PIL'. The run goes on without. To have them: pip "
        "install 'det_seg_agent[report]'"
    ]
    folder = tmp_path / "runs/loop"
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "state.pt"]
    assert json.loads((folder / "metrics.json").read_text())["passes"] == 8


@pytest.fixture(scope="module")
def each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of adapter.md without each package of the report, in a folder of its name."""
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/adapter.md").read_text(encoding="utf-8"), re.S)
    folder = tmp_path_factory.mktemp("each")
    done = without((), EACH.format(names=REPORT, hide=HIDE, code=code), folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "written", "expected"),
    [
        ("pyarrow", {"agent.png", *SHEETS}, "no trace, samples.parquet in this run"),
        ("matplotlib", {"trace", *SHEETS, *SAMPLES}, "no plots in this run"),
        ("PIL", {"trace"}, "no plots, contact sheets, data.html in this run"),  # matplotlib needs it
        ("rich", {"trace", "agent.png", *SHEETS, *SAMPLES}, ""),
    ],
)
def test_each_output_needs_its_package_alone(each: Path, hidden: str, written: set[str], expected: str) -> None:
    printed = (each / hidden / "stderr").read_text()
    assert len(printed.splitlines()) == (expected != "") and expected in printed, printed
    folder = each / hidden / "runs/loop"
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "state.pt", *written}


def test_a_damaged_installation_is_like_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise AttributeError('_ARRAY_API not found')")
    code = """
sys.path.insert(0, ".")
from det_seg_agent import Selector
from det_seg_agent.reporting.report import Report
Report(".", Selector(4, 2), ["x"] * 4, trace=True).begin(0)
"""
    done = without((), code, tmp_path)
    assert done.returncode == 0 and "no trace, samples.parquet in this run: _ARRAY_API not found" in done.stderr, (
        done.stderr
    )


def test_commands_name_what_is_not_installed(tmp_path: Path) -> None:
    code = """
from det_seg_agent.hosts.commands import main
print([main([word]) for word in ("recipe", "compare", "train-det", "--help")])
"""
    done = without(EXTRAS, code, tmp_path)
    assert done.stdout.splitlines()[-1] == "[0, 2, 2, 0]", done.stderr
    assert re.fullmatch(
        r"error: \w+ not installed: pip install 'det_seg_agent\[det\]', \[seg\] or \[hf\]\n"
        r"error: packaging not installed: pip install 'det_seg_agent\[det\]'\n",
        done.stderr,
    ), done.stderr
