"""Check on import that a host toolbox is installed in a supported version. The packages det, seg and hf call it."""

import importlib
import importlib.util
import logging
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

# The newest version of each host that all tests ran with. A newer one gets a warning, and trains: the first batch's
# loss is checked against the sum of its images' parts.
TRIED = {
    "ultralytics": "8.4.190", "mmengine": "0.10.7", "mmcv-lite": "2.1.0", "mmsegmentation": "1.2.2",
    "transformers": "5.24.0",
}  # fmt: skip

# Why versions cannot work that are not older than the range; without a known reason a newer one gets the warning.
CANNOT_WORK = {
    "mmcv-lite": {">=2.2": "mmsegmentation itself refuses it"},
    "mmsegmentation": {"==1.2.0": "its wheel lacks a file that it reads on import"},
}
# The first version of a host that can be imported beside another package with a torch from some version on, and why.
BESIDE = {"mmengine": ("0.10.6", "transformers", "2.5", "both register an optimizer Adafactor")}
OLDER = "older ones lack what we build on, or were not tried (up to {})"


def check_hosts(extra: str) -> None:
    """Check the packages of an extra against the version ranges in our own metadata; warn of untried versions.

    Args:
        extra: 'det', 'seg' or 'hf'.

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
        found = _version(requirement.name) if requirement.name in TRIED else None
        if found is not None:
            _check(requirement, found)
            _check_others(requirement.name, found)


def _check(requirement: "Requirement", found: str) -> None:
    """Refuse or warn of the installed version of a host."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    name, tried = requirement.name, Version(TRIED[requirement.name])
    newer = Version(found) > tried
    if not requirement.specifier.contains(found, prereleases=True):
        known = CANNOT_WORK.get(name, {}).items()
        reason = next((why for versions, why in known if SpecifierSet(versions).contains(found)), None)
        if reason is None and not newer:
            reason = OLDER.format(tried)
        if reason is not None:
            raise HostError(
                f"{name} {found} is installed, which is not supported: {reason}. The range is "
                f"{requirement.specifier}: pip install '{name}{requirement.specifier}'"
            )
    if newer:
        logging.getLogger("det_seg_agent").warning(
            "%s %s is newer than %s, the newest that was tried; its first batch is checked. Please report a failure.",
            name, found, tried,
        )  # fmt: skip


def _check_others(name: str, found: str) -> None:
    """Refuse the installed version of a host that cannot be imported beside another package."""
    from packaging.version import Version

    first, other, torch, why = BESIDE.get(name, ("0", "", "", ""))
    if Version(found) < Version(first) and Version(version("torch")) >= Version(torch):
        try:
            importlib.import_module(other)
        except ImportError:
            return
        raise HostError(
            f"{name} {found} cannot be imported beside {other} and torch {version('torch')}: {why}. "
            f"pip install '{name}>={first}', or pip uninstall {other}"
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
