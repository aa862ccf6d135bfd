"""Digests of everything that determines a cell's result (files, settings, versions, our sources), and its machine.

There are two identities. `Cell.key` covers settings, the host's resolved configuration, data and versions; a different
key means a different cell. `sources` covers our own code; the same key with other sources means an older result.
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
from det_seg_agent.strategies import strategy_class

PACKAGE = Path(__file__).parents[1]
ADAPTERS = {"detection": "det", "segmentation": "seg", "classification": "hf", "instruction": "hf"}
SHOWING_MODULES = (
    "budgets",
    "cli",
    "columns",
    "documents",
    "figures",
    "locks",
    "page",
    "pictures",
    "plots",
    "preparing",
    "queue",
    "report",
    "rows",
    "sections",
    "summary",
    "tables",
)
SHOWING = (
    "reporting/plots.py",
    "reporting/sheets.py",
    *(f"compare/{name}.py" for name in SHOWING_MODULES),
)
HOSTS = {
    "detection": ("torch", "ultralytics", "pycocotools"),
    "segmentation": ("torch", "mmengine", "mmcv-lite", "mmcv", "mmsegmentation"),
    "classification": ("torch", "transformers", "accelerate", "torchvision"),
    "instruction": ("torch", "transformers", "accelerate", "tokenizers", "peft"),
}
PACKAGES = ("det_seg_agent", "torchvision", "numpy", *dict.fromkeys(name for names in HOSTS.values() for name in names))
BLOCK = 1 << 20


def digest(value: Any) -> str:
    """Return a hash of JSON-like data; classes and functions are hashed by name."""
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
    """Return a hash of names relative to the common folder, which may be moved, and of sizes or contents.

    Args:
        paths: files or URLs, in the order of the data set; only the name counts if it is not a local file.
        content: whether to hash contents (as for labels) instead of sizes.
    """
    read = digest_of_file if content else os.path.getsize
    return digest([[name, read(path) if os.path.isfile(path) else None] for name, path in zip(relative(paths), paths)])


def portable(value: Any, without: frozenset[str] = frozenset()) -> Any:
    """Return settings in a form that is the same on every machine.

    The path of a local file becomes its name and a hash of its content; any other absolute path becomes its last part.

    Args:
        value: JSON-like settings.
        without: keys to leave out, at any depth.
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
    """Return the version of each package of a task's hosts, without the suffix for the device, such as +cpu."""
    return {name: found.partition("+")[0] for name in HOSTS[task] if (found := version(name)) is not None}


def version(name: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def sources(task: str, strategy: str) -> str:
    """Return a hash of our code that can change a result, and of the module of a user's or another package's strategy.

    Args:
        task: the task, whose adapter is included.
        strategy: known name or 'package.module:Class'.
    """
    others = {f"{folder}/" for folder in ADAPTERS.values() if folder != ADAPTERS[task]}
    found: dict[str, Any] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in SHOWING and not name.startswith(tuple(others)):
            found[name] = digest_of_file(path)
    module = strategy.partition(":")[0] if ":" in strategy else strategy_class(strategy).__module__
    if module.partition(".")[0] != PACKAGE.name:
        found["strategy"] = modules([module])
    return digest(found)


def modules(names: Sequence[str]) -> dict[str, str]:
    """Return a hash of the file of each module that is not ours, by name."""
    found = {}
    for name in names:
        spec = None if name.partition(".")[0] == PACKAGE.name else importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and os.path.isfile(spec.origin):
            found[name] = digest_of_file(spec.origin)
    return found


def digest_of_weights(model: Any) -> str:
    """Return a hash of a model's weights, to check that all cells of a seed start from the same."""
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.detach().cpu().numpy().tobytes())
    return found.hexdigest()[:12]


def machine() -> dict[str, str]:
    """Return versions, processor and accelerator of this machine."""
    import torch

    found = {"Python": platform.python_version(), "system": platform.platform(), "processor": processor()}
    found |= {name: known for name in PACKAGES if (known := version(name)) is not None}
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name(0)
    return {**found, "torch": torch.__version__, "threads of torch": str(torch.get_num_threads())}


def processor() -> str:
    """Return the processor's model name, or at least its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
