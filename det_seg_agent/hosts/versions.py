"""Check on import that a host toolbox is installed in a supported version. The packages det and seg call it."""

import importlib.util
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from det_seg_agent.errors import HostError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Module of a distribution, if the names differ.
MODULES = {
    "opencv-python": "cv2", "mmcv-lite": "mmcv", "mmsegmentation": "mmseg", "setuptools": "pkg_resources",
    "pyyaml": "yaml",
}  # fmt: skip
TWINS = {"mmcv-lite": "mmcv"}  # the full mmcv works as well
HOSTS = ("ultralytics", "mmengine", "mmcv-lite", "mmsegmentation")  # ranges are strict, as we rely on internals


def check_hosts(extra: str) -> None:
    """Check the packages of an extra against the version ranges in our own metadata.

    Args:
        extra: 'det' or 'seg'.

    Raises:
        HostError: if a package is missing or a host has an unsupported version; names the package, the version, the
            range and the pip command.
    """
    if not _is_there("packaging"):  # the extras bring it
        raise HostError(f"packaging not installed: pip install 'det_seg_agent[{extra}]'")
    try:
        lines = requires("det_seg_agent") or []
    except PackageNotFoundError:
        return  # a bare copy of the sources has no metadata
    # A run goes on without the packages of `report`; hatchling lists them again for each extra that includes it.
    report = {requirement.name for requirement in _of_extra(lines, "report")}
    needed = [requirement for requirement in _of_extra(lines, extra) if requirement.name not in report]
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


def _of_extra(lines: list[str], extra: str) -> "list[Requirement]":
    from packaging.requirements import Requirement

    found = [requirement for requirement in map(Requirement, lines) if requirement.marker is not None]
    return [r for r in found if r.marker is not None and r.marker.evaluate({"extra": extra})]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _version(name: str) -> str | None:
    """Return the installed version of a distribution or its twin; None if neither has metadata."""
    for each in (name, TWINS.get(name)):
        if each is not None:
            try:
                return version(each)
            except PackageNotFoundError:
                pass
    return None
