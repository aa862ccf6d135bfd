"""Whether the host toolboxes are there, in versions that this package works with."""

import importlib.util
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from det_seg_agent.errors import HostError

# The module by which a distribution is found, where its name does not tell.
MODULES = {"opencv-python": "cv2", "mmcv-lite": "mmcv", "mmsegmentation": "mmseg", "setuptools": "pkg_resources"}
TWINS = {"mmcv-lite": "mmcv"}  # the full mmcv works as well
HOSTS = ("ultralytics", "mmengine", "mmcv-lite", "mmsegmentation")  # we rely on their internals: the range is strict


def check_hosts(extra: str) -> None:
    """Refuse missing packages and unsupported host versions of an extra; the ranges are those of our own metadata.

    Args:
        extra: 'det' or 'seg'.

    Raises:
        HostError: naming the package, its version, the range and the pip command.
    """
    try:
        lines = requires("det_seg_agent") or []
    except PackageNotFoundError:
        return  # a bare copy of the sources does not say what it needs
    needed = [r for r in map(Requirement, lines) if r.marker is not None and r.marker.evaluate({"extra": extra})]
    missing = [r.name for r in needed if not _is_there(MODULES.get(r.name, r.name.replace("-", "_")))]
    if missing:
        raise HostError(f"{', '.join(missing)} not installed: pip install 'det_seg_agent[{extra}]'")
    for requirement in needed:
        found = _version(requirement.name) if requirement.name in HOSTS else None
        if found is not None and not requirement.specifier.contains(found, prereleases=True):
            raise HostError(
                f"{requirement.name} {found} is installed, which is not supported; the range is "
                f"{requirement.specifier}: pip install '{requirement.name}{requirement.specifier}'"
            )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _version(name: str) -> str | None:
    """Return the installed version of a distribution or its twin; None where a module has no metadata."""
    for each in (name, TWINS.get(name)):
        if each is not None:
            try:
                return version(each)
            except PackageNotFoundError:
                pass
    return None
