"""Run the tests of detection against several versions of Ultralytics, and write the result to docs/hosts.md.

Usage: `python tools/check_hosts.py [VERSION ...]`. The default is the lowest version of the range in pyproject.toml and
the newest one in it that pip finds. Each version is installed into its own folder, which precedes the environment on
the path; the environment does not change. MMEngine, MMSegmentation and mmcv have one supported version each, which
`make test` covers.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs/hosts.md"
MARKS = ("<!-- result -->", "<!-- end of result -->")
HOST = "ultralytics"
COUNT = re.compile(r"(\d+) (passed|failed|error)")


def supported() -> SpecifierSet:
    """Return the host's version range from the installed metadata."""
    found = [Requirement(line) for line in requires("det_seg_agent") or []]
    return next(requirement.specifier for requirement in found if requirement.name == HOST)


def ends(specifier: SpecifierSet) -> list[str]:
    """Return the lowest version of the range and the newest available one in it."""
    lowest = next(part.version for part in specifier if part.operator == ">=")
    command = [sys.executable, "-m", "pip", "index", "versions", HOST]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = re.search(r"Available versions: (.*)", listed)
    known = [Version(name.strip()) for name in names[1].split(",")] if names else []
    newest = max((v for v in known if v in specifier), default=Version(lowest))
    return list(dict.fromkeys([lowest, str(newest)]))


def check(wanted: str, tests: list[str]) -> dict[str, str]:
    """Install a version beside the environment, run the tests with it and return a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        install = ["-m", "pip", "install", "-q", "--no-deps", "--target", folder, f"{HOST}=={wanted}"]
        subprocess.run([sys.executable, *install], check=True)
        # A host outside the range is refused on import, so a copy of our metadata allows this version.
        allow(Path(folder), wanted)
        path = os.pathsep.join([folder, str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "YOLO_CONFIG_DIR": f"{folder}/settings"}
        started = time.time()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        seconds = time.time() - started
    print(done.stdout[-3000:], done.stderr[-1000:])
    counts = {kind: number for number, kind in COUNT.findall(done.stdout[-500:])}
    broken = re.findall(r"^(?:FAILED|ERROR) (?:\S+::)?(\S+)", done.stdout, re.M)
    failed = str(int(counts.get("failed", 0)) + int(counts.get("error", 0)))
    row = {"ultralytics": wanted, "passed": counts.get("passed", "0"), "failed": failed, "s": f"{seconds:.0f}"}
    return {**row, "which": ", ".join(dict.fromkeys(name.partition("[")[0] for name in broken)) or "-"}


def allow(folder: Path, wanted: str) -> None:
    """Write a copy of our metadata that allows this version of the host; it shadows the installed metadata."""
    lines = [
        f'Requires-Dist: {line.split(";")[0]}; extra == "det"'
        for line in requires("det_seg_agent") or []
        if "det" in line
    ]
    lines = [f'Requires-Dist: {HOST}=={wanted}; extra == "det"' if HOST in line else line for line in lines]
    target = folder / f"det_seg_agent-{version('det_seg_agent')}.dist-info"
    target.mkdir()
    head = ["Metadata-Version: 2.1", "Name: det_seg_agent", f"Version: {version('det_seg_agent')}"]
    (target / "METADATA").write_text("\n".join([*head, *lines]) + "\n")


def table(rows: list[dict[str, str]]) -> str:
    """Format rows as a Markdown table."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """Check the versions; return 1 if a test failed or none passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("versions", nargs="*", help="versions of ultralytics; by default both ends of the range")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="what pytest runs")
    parser.add_argument("--write", action="store_true", help="write the result to docs/hosts.md")
    options = parser.parse_args()
    rows = [check(wanted, options.tests) for wanted in options.versions or ends(supported())]
    text = table(rows)
    print(text)
    if options.write:
        packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "mmengine", "mmsegmentation", "mmcv-lite"))
        day = time.strftime("%Y-%m-%d")
        note = f"{day}, `{' '.join(options.tests)}` on Python {platform.python_version()}, {packages}:"
        before, _, rest = DOCS.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        DOCS.write_text(f"{before}{MARKS[0]}\n{note}\n\n{text}\n{MARKS[1]}{after}", encoding="utf-8")
    return int(any(row["failed"] != "0" or row["passed"] == "0" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
