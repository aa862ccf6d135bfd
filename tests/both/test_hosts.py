"""What is said on import where a toolbox is missing or of an unsupported version, in a process of its own."""

import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from det_seg_agent.hosts.versions import OLDER, TRIED

ROOT = Path(__file__).parents[2]


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)


MISSING = {
    "det": {"ultralytics": "ultralytics", "pycocotools": "pycocotools", "cv2": "opencv-python"},
    "seg": {"mmengine": "mmengine", "mmcv": "mmcv-lite", "mmseg": "mmsegmentation", "ftfy": "ftfy", "regex": "regex"},
    "hf": {"transformers": "transformers", "accelerate": "accelerate", "peft": "peft"},
}


@pytest.mark.parametrize("extra", MISSING)
def test_a_missing_package_is_named_with_its_command(extra: str) -> None:
    """On import, by the command line with status 2, and before any of the toolbox is imported."""
    code = f"""import sys
from det_seg_agent.hosts import commands as cli
for name in {list(MISSING[extra])!r}:
    sys.modules[name] = None
    print(cli.train_{extra}(), flush=True)
    try:
        import det_seg_agent.{extra}
    except ImportError as error:
        print(error)
    del sys.modules[name]
print({{"ultralytics", "mmengine", "mmseg", "transformers"}} & set(sys.modules))"""
    done = python(code)
    said = [f"{name} not installed: pip install 'det_seg_agent[{extra}]'" for name in MISSING[extra].values()]
    assert done.stderr.splitlines() == [f"error: {line}" for line in said]
    assert done.stdout.splitlines() == [*(word for line in said for word in ("2", line)), "set()"]


REFUSED = [
    ("det", "ultralytics", "8.0.0", OLDER.format(TRIED["ultralytics"])),
    ("seg", "mmengine", "0.7.0", OLDER.format(TRIED["mmengine"])),
    ("seg", "mmcv-lite", "2.2.0", "mmsegmentation itself refuses it"),
    ("seg", "mmsegmentation", "1.2.0", "its wheel lacks a file that it reads on import"),
    ("seg", "mmsegmentation", "0.30.0", OLDER.format(TRIED["mmsegmentation"])),
    ("hf", "transformers", "4.57.6", OLDER.format(TRIED["transformers"])),
]
NEWER = [
    ("det", "ultralytics", "8.9.0"), ("det", "ultralytics", "9.0.0"), ("seg", "mmengine", "0.10.99"),
    ("hf", "transformers", "5.99.0"),
]  # fmt: skip


def pretend(folder: Path, name: str, version: str) -> str:
    """Write metadata of a version of a host, and return the folder that has it."""
    info = folder / f"{name}-{version}" / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return str(info.parent)


def test_a_version_that_cannot_work_is_refused_with_the_reason_and_the_range(tmp_path: Path) -> None:
    folders = [(extra, pretend(tmp_path, name, version)) for extra, name, version, _ in REFUSED]
    code = f"""import importlib, sys
import det_seg_agent
for extra, folder in {folders!r}:
    sys.path.insert(0, folder)
    try:
        importlib.import_module("det_seg_agent." + extra)
    except ImportError as error:
        print(error)
    del sys.path[0]"""
    ranges = {r.name: r.specifier for r in map(Requirement, requires("det_seg_agent") or [])}
    assert python(code).stdout.splitlines() == [
        f"{name} {version} is installed, which is not supported: {reason}. The range is {ranges[name]}: "
        f"pip install '{name}{ranges[name]}'"
        for _, name, version, reason in REFUSED
    ]


def test_an_mmengine_that_cannot_be_imported_beside_transformers_is_refused(tmp_path: Path) -> None:
    """Before 0.10.6 it registers the Adafactor of torch and that of transformers under one name."""
    code = """import sys
sys.path.insert(0, sys.argv[1])
try:
    import det_seg_agent.seg
except ImportError as error:
    print(error)
else:
    print("imported")"""
    said = [
        python(code.replace("sys.argv[1]", repr(pretend(tmp_path, "mmengine", v)))).stdout for v in ("0.10.5", "0.10.6")
    ]
    assert said[0].startswith("mmengine 0.10.5 cannot be imported beside transformers and torch ")
    assert "both register an optimizer Adafactor. pip install 'mmengine>=0.10.6', or pip uninstall" in said[0]
    assert said[1].splitlines()[-1] == "imported"


def test_a_newer_version_than_tried_is_accepted_with_a_warning(tmp_path: Path) -> None:
    folders = [(extra, pretend(tmp_path, name, version)) for extra, name, version in NEWER]
    code = f"""import sys
from det_seg_agent.hosts.versions import check_hosts
for extra, folder in {folders!r}:
    sys.path.insert(0, folder)
    check_hosts(extra)
    del sys.path[0]"""
    done = python(code)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"{name} {version} is newer than {TRIED[name]}, the newest that was tried; its first batch is checked. "
        "Please report a failure."
        for _, name, version in NEWER
    ]


def test_ranges_table_and_pins_agree() -> None:
    """The table of docs/hosts.md has both ends of the range, and what the tests run with is the newest tried."""
    lines = (ROOT / "docs/hosts.md").read_text(encoding="utf-8").splitlines()
    rows = [row for row in (re.match(r"\| (8\.\d+\.\d+) \|", line) for line in lines) if row]
    tried = [row[1] for row in rows]
    assert tried == sorted(tried, key=Version) and tried[-1] == TRIED["ultralytics"]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lowest = re.search(r'"ultralytics>=([\d.]+),', text)
    assert lowest is not None and tried[0] == lowest[1]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {pin.split(" ;")[0] for pin in pins}  # of some, another version for an old Python
    assert {f"{name}=={version}" for name, version in TRIED.items()} <= pinned
    for row in lines:
        if row.startswith(tuple(f"| {version} |" for version in tried)):
            assert row.split(" | ")[1:7] == ["yes"] * 6, row


def test_the_core_needs_no_toolbox() -> None:
    blocked = ("ultralytics", "mmengine", "mmcv", "mmseg", "pycocotools", "cv2", "transformers", "accelerate", "peft")
    modules = "det_seg_agent, det_seg_agent.hosts.versions"
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {modules}"
    assert python(code).returncode == 0
