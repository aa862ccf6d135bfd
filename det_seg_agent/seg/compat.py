"""Workarounds that mmengine 0.10 and mmseg 1.2 need with current Python packages; no-ops if not needed.

`seg` applies them on import.
"""

import importlib
import importlib.util
import pickle
import time
import warnings
from typing import Any

import numpy as np
import torch


def prepare_host() -> None:
    """Apply all workarounds; call it before mmengine, mmcv or mmseg is imported."""
    quiet_pkg_resources()
    import_yapf()
    stub_mmcv_ops()
    allow_checkpoint_types()


def quiet_pkg_resources() -> None:
    """Silence setuptools' warning on `pkg_resources`, which mmengine 0.10 imports to resolve `mmseg::` configs."""
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")


def import_yapf(attempts: int = 20, wait: float = 0.1) -> None:
    """Import yapf, which mmengine 0.10 imports, again if its cache is just being written (yapf 0.32 to 0.43).

    On its first import for a user yapf writes its grammar to a cache, and makes the file visible before it has
    written the last bytes: a second process that starts at the same moment fails on an incomplete pickle.

    Args:
        attempts: imports to try.
        wait: seconds between two.

    Raises:
        EOFError, pickle.UnpicklingError: the cache stays incomplete.
    """
    if importlib.util.find_spec("yapf") is None:
        return
    for left in reversed(range(attempts)):
        try:
            importlib.import_module("yapf")
            return
        except (EOFError, pickle.UnpicklingError):
            if not left:
                raise
            time.sleep(wait)


class MissingOp:
    """Placeholder for a compiled operator; calling it raises."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise an error that says what to install.

        Raises:
            ModuleNotFoundError: always.
        """
        raise ModuleNotFoundError(
            f"mmcv's compiled operator {self.name} is not installed: this model needs the full mmcv. "
            "pip uninstall mmcv-lite, then install mmcv 2.1 built for your torch and CUDA."
        )


class MissingExtension:
    """Placeholder for `mmcv._ext`; each of its operators is a `MissingOp`."""

    def __getattr__(self, name: str) -> MissingOp:
        if name.startswith("__"):
            raise AttributeError(name)
        return MissingOp(name)


def stub_mmcv_ops() -> bool:
    """Make `mmcv.ops` importable without `mmcv._ext` (mmcv-lite 2.1); return whether that was necessary.

    mmseg 1.2 imports `mmcv.ops` for focal loss and four heads, whether or not a model uses them. We replace the
    function by which mmcv loads its operators; a model that runs one gets an error that says what to install.
    """
    if importlib.util.find_spec("mmcv") is None or importlib.util.find_spec("mmcv._ext") is not None:
        return False
    from mmcv.utils import ext_loader

    ext_loader.load_ext = lambda name, funcs: MissingExtension()
    return True


def history_method(owner: Any, name: str) -> Any:
    """Replace `getattr` in checkpoints, which `HistoryBuffer` uses to pickle its four methods; allow only those.

    Raises:
        pickle.UnpicklingError: for any other attribute or owner.
    """
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ("min", "max", "current", "mean"):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f"attribute {name!r} of {owner!r} is not allowed in a checkpoint")


def allow_checkpoint_types() -> None:
    """Allow the non-tensor types of mmengine 0.10 checkpoints in torch's restricted loading (since torch 2.6).

    These are log histories and NumPy scalars; loading remains restricted otherwise.
    """
    if not hasattr(torch.serialization, "add_safe_globals"):
        return
    from mmengine.logging import HistoryBuffer

    core = np._core if hasattr(np, "_core") else np.core
    kinds: list[Any] = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        (history_method, "builtins.getattr"),
        core.multiarray._reconstruct,
        core.multiarray.scalar,
    ]
    kinds += [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    torch.serialization.add_safe_globals(kinds)
