"""What is said on import where a toolbox is missing or of an unsupported version, in a process of its own."""

import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)


MISSING = {
    "det": {"ultralytics": "ultralytics", "pycocotools": "pycocotools", "cv2": "opencv-python"},
    "seg": {"mmengine": "mmengine", "mmcv": "mmcv-lite", "mmseg": "mmsegmentation", "ftfy": "ftfy", "regex": "regex"},
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
print({{"ultralytics", "mmengine", "mmseg"}} & set(sys.modules))"""
    done = python(code)
    said = [f"{name} not installed: pip install 'det_seg_agent[{extra}]'" for name in MISSING[extra].values()]
    assert done.stderr.splitlines() == [f"error: {line}" for line in said]
    assert done.stdout.splitlines() == [*(word for line in said for word in ("2", line)), "set()"]


VERSIONS = [
    ("det", "ultralytics", "8.0.0"),
    ("det", "ultralytics", "9.0.0"),
    ("seg", "mmengine", "0.7.0"),
    ("seg", "mmcv-lite", "2.2.0"),
    ("seg", "mmsegmentation", "0.30.0"),
]


def test_an_unsupported_version_is_said_with_the_range(tmp_path: Path) -> None:
    for _, name, version in VERSIONS:
        info = tmp_path / version / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    code = f"""import importlib, sys
import det_seg_agent
for extra, _, version in {VERSIONS!r}:
    sys.path.insert(0, {str(tmp_path)!r} + "/" + version)
    try:
        importlib.import_module("det_seg_agent." + extra)
    except ImportError as error:
        print(error)
    del sys.path[0]"""
    ranges = {r.name: r.specifier for r in map(Requirement, requires("det_seg_agent") or [])}
    assert python(code).stdout.splitlines() == [
        f"{name} {version} is installed, which is not supported; the range is {ranges[name]}: "
        f"pip install '{name}{ranges[name]}'"
        for _, name, version in VERSIONS
    ]


def test_the_core_needs_no_toolbox() -> None:
    blocked = ("ultralytics", "mmengine", "mmcv", "mmseg", "pycocotools", "cv2")
    modules = "det_seg_agent, det_seg_agent.hosts.versions"
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {modules}"
    assert python(code).returncode == 0
