"""What a cell's result follows from, in digests: files, settings, versions and our sources; and where it ran.

Two things are kept apart. `Cell.key` holds settings, the host's resolved configuration, data and versions: with another
key a cell is another one. `sources` is of our own code: a cell with its key and other sources is an older one.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from det_seg_agent.fingerprint import relative

PACKAGE = Path(__file__).parents[1]
ADAPTERS = {"detection": "det", "segmentation": "seg"}
SHOWING = (
    "reporting/plots.py",
    "reporting/sheets.py",
    *(f"compare/{name}.py" for name in ("cli", "columns", "page", "plots", "rows")),
)
HOSTS = {
    "detection": ("torch", "ultralytics", "pycocotools"),
    "segmentation": ("torch", "mmengine", "mmcv-lite", "mmcv", "mmsegmentation"),
}
PACKAGES = ("det_seg_agent", "torchvision", "numpy", *dict.fromkeys(HOSTS["detection"] + HOSTS["segmentation"]))
BLOCK = 1 << 20


def digest(value: Any) -> str:
    """Return a hash of JSON-like data; classes and functions count by their names."""
    text = json.dumps(value, sort_keys=True, default=lambda other: getattr(other, "__qualname__", str(other)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of_file(path: str | Path) -> str:
    """Return a hash of a file's content."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()[:16]


def digest_of_files(paths: Sequence[str], content: bool = False) -> str:
    """Return a hash of names below the folder that all share, and of sizes or contents; the folder may move.

    Args:
        paths: files or URLs, in the order of the data set. Of what is no local file only the name counts.
        content: whether the files are read, as labels are; else their sizes count.
    """
    read = digest_of_file if content else os.path.getsize
    return digest([[name, read(path) if os.path.isfile(path) else None] for name, path in zip(relative(paths), paths)])


def portable(value: Any, without: frozenset[str] = frozenset()) -> Any:
    """Return settings as they mean the same on another machine.

    A string that names a local file becomes its name and a hash of its content; another absolute path its last part.

    Args:
        value: JSON-like.
        without: keys that do not count, at any depth.
    """
    if isinstance(value, dict):
        return {str(k): portable(v, without) for k, v in value.items() if k not in without}
    if isinstance(value, list | tuple):
        return [portable(v, without) for v in value]
    if isinstance(value, str | Path):
        path = Path(value)
        if path.suffix and os.path.isfile(path):
            return [path.name, digest_of_file(path)]
        return path.name if path.is_absolute() else str(value)
    return value


def versions(task: str) -> dict[str, str]:
    """Return package -> version of a task's hosts; builds for other devices are one version."""
    return {name: found.partition("+")[0] for name in HOSTS[task] if (found := version(name)) is not None}


def version(name: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def sources(task: str, strategy: str) -> str:
    """Return a hash of the code of ours that can change a result, and of the module of a user's own strategy.

    Args:
        task: whose adapter counts.
        strategy: registered name or 'package.module:Class'.
    """
    others = {f"{folder}/" for name, folder in ADAPTERS.items() if name != task}
    found: dict[str, Any] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in SHOWING and not name.startswith(tuple(others)):
            found[name] = digest_of_file(path)
    if ":" in strategy:
        found["strategy"] = modules([strategy.partition(":")[0]])
    return digest(found)


def modules(names: Sequence[str]) -> dict[str, str]:
    """Return module -> hash of its file, of modules that are not ours."""
    found = {}
    for name in names:
        spec = None if name.partition(".")[0] == PACKAGE.name else importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and os.path.isfile(spec.origin):
            found[name] = digest_of_file(spec.origin)
    return found


def digest_of_weights(model: Any) -> str:
    """Return a hash of a model's weights, by which it is seen that all cells of a seed start from the same."""
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.detach().cpu().numpy().tobytes())
    return found.hexdigest()[:12]


def machine() -> dict[str, str]:
    """Return versions, processor and accelerator."""
    import torch

    found = {"Python": platform.python_version(), "system": platform.platform(), "processor": processor()}
    found |= {name: known for name in PACKAGES if (known := version(name)) is not None}
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name(0)
    return {**found, "torch": torch.__version__, "threads of torch": str(torch.get_num_threads())}


def processor() -> str:
    """Return the processor's name, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
