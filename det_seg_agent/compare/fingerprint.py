"""What a cell starts from, and where it runs."""

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

PACKAGES = (
    "det_seg_agent", "torch", "torchvision", "numpy", "ultralytics", "pycocotools", "mmengine", "mmcv-lite", "mmcv",
    "mmsegmentation",
)  # fmt: skip


def fingerprint(model: Any) -> str:
    """Return a hash of a model's weights, by which it is seen that all cells of a seed start from the same."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def machine() -> dict[str, str]:
    """Return versions, processor and accelerator."""
    import torch

    found = {"Python": platform.python_version(), "system": platform.platform(), "processor": processor()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name(0)
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    found["our sources"] = digest.hexdigest()[:12]  # a cell's key holds settings and version
    return {**found, "torch": torch.__version__, "threads of torch": str(torch.get_num_threads())}


def processor() -> str:
    """Return the processor's name, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
