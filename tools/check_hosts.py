"""Check our promises with many versions of Ultralytics or MMSegmentation, and write the tables of docs/hosts.md.

Usage: `python tools/check_hosts.py [--host HOST] [--write] [VERSION ...]`. Each version is installed into a folder of
its own, with those of its requirements that the environment does not meet (NumPy, for example), and the folder precedes
the environment on the path; the environment does not change. For Ultralytics `host_promises.py` runs in each, in a
process of its own; for MMSegmentation, whose interface has changed less, tests of the suite.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs/hosts.md"
HOST, SEG = "ultralytics", "mmsegmentation"
VERSIONS = ("8.3.0", "8.3.100", "8.3.200", "8.4.0", "8.4.60", "8.4.120", "8.4.160")  # and the newest
SETS = {  # of MMSegmentation, with MMEngine and mmcv-lite beside it
    "1.1.0": ("mmengine==0.10.3", "mmcv-lite==2.0.1"),
    "1.2.1": ("mmengine==0.10.5", "mmcv-lite==2.1.0"),
    "1.2.2": ("mmengine==0.10.7", "mmcv-lite==2.1.0"),
}
TESTS = {  # what each promise is tested by; of both loops
    "full is stock": ("tests/both/test_adapters.py", "full_is_the_stock and not detection"),
    "exact selection and resume": ("tests/both/test_adapters.py", "goes_on_exactly and not detection"),
    "losses of the images": ("tests/seg/test_seg_signals.py", ""),
}
BESIDE = "installed beside it"
NUMPY_1 = ("pyarrow<21", "pandas<2.3", "pytz")  # later ones need NumPy 2
LARGE = ("torch", "torchvision")  # never installed beside the environment


def ranges() -> list[str]:
    """Return the requirements of the extras in pyproject.toml, as lines of metadata."""
    lines, extra = [], ""
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"(\w+) = \[", line):
            extra = found[1]
        elif extra in ("report", "det", "seg"):
            lines += [f'{text}; extra == "{extra}"' for text in re.findall(r'"([^"]+)"', line.partition("  #")[0])]
    return lines


def newest() -> str:
    """Return the newest version that pip finds in the range of pyproject.toml."""
    command = [sys.executable, "-m", "pip", "index", "versions", HOST]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = re.search(r"Available versions: (.*)", listed)
    specifier = next(r.specifier for r in map(Requirement, ranges()) if r.name == HOST)
    return str(max(v for v in map(Version, names[1].split(", ") if names else []) if v in specifier))


def install(wanted: str, folder: Path) -> list[str]:
    """Install a version, and what it needs and the environment lacks, into a folder; return the latter."""
    pip(folder, [f"{HOST}=={wanted}"])
    lacking = [
        f"{requirement.name}{requirement.specifier}"
        for requirement in map(Requirement, needs(distributions(path=[str(folder)])))
        if (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
        and requirement.name not in LARGE
        and not meets(requirement)
    ]
    if any(Requirement(line).name == "numpy" and "2.0.0" not in Requirement(line).specifier for line in lacking):
        lacking += NUMPY_1
    if lacking:
        pip(folder, lacking)
    return lacking


def needs(found: Iterable[Distribution]) -> list[str]:
    """Return the requirements of the host among distributions."""
    return next((each.requires or [] for each in found if each.metadata["Name"] == HOST), [])


def meets(requirement: Requirement) -> bool:
    """Return whether the environment meets a requirement."""
    try:
        return version(requirement.name) in requirement.specifier
    except PackageNotFoundError:
        return False


def pip(folder: Path, wanted: list[str]) -> None:
    """Install packages without theirs into a folder."""
    options = ["-q", "--no-deps", "--upgrade", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *wanted], check=True)


def check(wanted: str) -> dict[str, str]:
    """Install a version of Ultralytics, check the promises with it and return a row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        beside = install(wanted, folder)
        # The installed metadata may have another range; this copy of pyproject's shadows it.
        metadata = folder / f"det_seg_agent-{version('det_seg_agent')}.dist-info/METADATA"
        metadata.parent.mkdir()
        head = ["Metadata-Version: 2.1", "Name: det_seg_agent", f"Version: {version('det_seg_agent')}"]
        metadata.write_text("\n".join([*head, *(f"Requires-Dist: {line}" for line in ranges())]) + "\n")
        done = run([str(ROOT / "tools/host_promises.py")], name, name)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if not last.startswith("{"):
        print(done.stderr[-3000:], file=sys.stderr)
        return {HOST: wanted, "failed": f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:100]}"}
    kept = {promise: broken or "yes" for promise, broken in json.loads(last).items()}
    return {HOST: wanted, **kept, BESIDE: ", ".join(f"`{line}`" for line in beside) or "-"}


def check_seg(wanted: str) -> dict[str, str]:
    """Install a version of MMSegmentation, run the tests with it and return a row of the table."""
    row = {SEG: wanted, "with": ", ".join(f"`{each}`" for each in SETS[wanted])}
    with tempfile.TemporaryDirectory() as name:
        pip(Path(name), [f"{SEG}=={wanted}", *SETS[wanted]])
        # MMEngine before 0.10.6 cannot be imported beside it.
        (Path(name) / "transformers.py").write_text('raise ImportError("hidden")')
        for promise, (file, chosen) in TESTS.items():
            done = run(["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", file, "-k", chosen], name, str(ROOT))
            said = (done.stdout.strip().splitlines() or ["?"])[-1]
            row[promise] = "yes" if done.returncode == 0 else f"failed: {said[:100]}"
    return row


def run(words: list[str], host: str, where: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in the folder `where`, with the packages of the folder `host` before the environment's."""
    path = os.pathsep.join([host, str(ROOT), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": path, "YOLO_CONFIG_DIR": f"{host}/settings", "YOLO_OFFLINE": "1"}
    started = time.time()
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=where, env={**os.environ, **settings}, capture_output=True, text=True)
    print(f"{' '.join(words)[-60:]}: {time.time() - started:.0f} s", file=sys.stderr)
    return done


def table(rows: list[dict[str, str]]) -> str:
    """Format rows as a Markdown table; a row that lacks a column failed."""
    heads = max((list(row) for row in rows), key=lambda names: len(names))
    lines = [heads, ["---"] * len(heads), *([row.get(head, "failed") for head in heads] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(host: str, text: str) -> None:
    """Replace the table of a toolbox in docs/hosts.md."""
    note = f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, torch {version('torch')}:"
    before, start, rest = DOCS.read_text(encoding="utf-8").partition(f"<!-- {host} -->")
    after = rest.partition("<!-- end -->")[2]
    DOCS.write_text(f"{before}{start}\n{note}\n\n{text}\n<!-- end -->{after}", encoding="utf-8")


def main() -> int:
    """Check the versions; return 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("versions", nargs="*", help="versions of the toolbox; by default the table's and the newest")
    parser.add_argument("--host", choices=(HOST, SEG), default=HOST, help="the toolbox")
    parser.add_argument("--write", action="store_true", help="write the table to docs/hosts.md")
    options = parser.parse_args()
    if options.host == SEG:
        if unknown := [each for each in options.versions if each not in SETS]:
            parser.error(f"{unknown[0]}: there is no set of {SEG} {unknown[0]}; known: {', '.join(SETS)}")
        rows = [check_seg(wanted) for wanted in options.versions or SETS]
    else:
        rows = [check(wanted) for wanted in options.versions or dict.fromkeys([*VERSIONS, newest()])]
    text = table(rows)
    print(text)
    if options.write:
        write(options.host, text)
    return int(
        any(value != "yes" for row in rows for name, value in row.items() if name not in (HOST, SEG, "with", BESIDE))
    )


if __name__ == "__main__":
    sys.exit(main())
