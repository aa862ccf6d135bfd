"""Set-up on every Python that pyproject.toml names: what the constraints pin, as far as it can be seen offline."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = [f"3.{minor}" for minor in range(30) if f"3.{minor}.5" in SpecifierSet(PROJECT["requires-python"])]
SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
PINS = [
    Requirement(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"
]


def environment(python: str, system: str) -> dict[str, str]:
    """Return what markers are evaluated with."""
    given = {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": system}
    return {**default_environment(), **given, "platform_system": SYSTEMS[system], "extra": ""}


def applies(requirement: Requirement, where: dict[str, str]) -> bool:
    """Return whether a requirement counts in an environment."""
    return requirement.marker is None or requirement.marker.evaluate(where)


def pins(where: dict[str, str]) -> dict[str, Version]:
    """Return name -> pinned version; each name once."""
    found = {}
    for pin in PINS:
        if applies(pin, where):
            [part] = pin.specifier
            name = canonicalize_name(pin.name)
            assert part.operator == "==" and name not in found, pin
            found[name] = Version(part.version)
    return found


def needed(where: dict[str, str]) -> Iterator[Requirement]:
    """Yield our own requirements with those of all extras, and those of the installed packages that are pinned."""
    extras = PROJECT["optional-dependencies"]
    ours = map(Requirement, [*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines)])
    yield from (requirement for requirement in ours if requirement.name != PROJECT["name"])  # an extra within others
    for name, version in pins(where).items():
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # pinned for another Python or system
        if Version(found.version).public == str(version):
            yield from map(Requirement, found.requires or [])


def test_the_pythons_are_those_of_the_readme_and_the_linters() -> None:
    assert len(PYTHONS) > 1
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / "README.md").read_text(encoding="utf-8")
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools["mypy"]["python_version"] == PYTHONS[0], "mypy refuses what a later standard library has"
    assert tools["ruff"]["target-version"] == "py" + PYTHONS[0].replace(".", "")
    assert all(python in (ROOT / ".ci/pythons").read_text(encoding="utf-8") for python in PYTHONS)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_one_pin_in_its_range(python: str, system: str) -> None:
    """Of ours and of what they need in turn; a CUDA library is torch's to name."""
    where = environment(python, system)
    pinned = pins(where)
    for requirement in needed(where):
        name = canonicalize_name(requirement.name)
        if applies(requirement, where) and not name.startswith(("nvidia-c", "nvidia-n", "cuda-", "triton")):
            assert name in pinned, f"{requirement} has no pin on Python {python}, {system}"
            assert requirement.specifier.contains(pinned[name], prereleases=True), f"{requirement}: {pinned[name]}"


@pytest.mark.parametrize("python", PYTHONS)
def test_no_pin_is_of_a_version_that_refuses_the_python(python: str) -> None:
    """By the metadata of what is installed here; `.ci/run` has the lowest and the highest Python tell theirs."""
    checked = 0
    for name, version in pins(environment(python, sys.platform)).items():
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        if Version(found.version).public == str(version):
            accepted = SpecifierSet(found.metadata.get("Requires-Python") or "")
            assert f"{python}.5" in accepted, f"{name} {version} needs Python {accepted}, and is pinned for {python}"
            checked += 1
    assert checked > 20


def test_no_pin_ties_torch_to_one_build() -> None:
    """A ROCm, a CPU or another CUDA build of the same version names other libraries."""
    names = {pin.name for pin in PINS}
    assert not [name for name in names if name.startswith(("nvidia-c", "nvidia-n", "cuda-", "triton"))]
    [torch] = [line for line in PROJECT["dependencies"] if Requirement(line).name == "torch"]
    assert all(part.operator == ">=" for part in Requirement(torch).specifier), (
        "a cap would bring a torch of another build"
    )


NO_PYTHON = "exit 127"  # a shim of pyenv
NO_VENV = '[ "$1" = -c ] && echo {version}'  # as Debian's without python3-venv
NO_PIP = (
    'if [ "$1" = -c ]; then echo {version}; else mkdir -p "$3/bin"; fi'  # or built without a library that pip needs
)
WORKS = """if [ "$1" = -c ]; then echo {version}; exit; fi
mkdir -p "$3/bin"; printf '#!/bin/sh\\n' > "$3/bin/python"; chmod +x "$3/bin/python" """


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((NO_PYTHON, NO_VENV, NO_PIP, WORKS), ["3.13"]),
        ((WORKS, WORKS, WORKS, NO_PIP), ["3.10", "3.12"]),
        ((NO_VENV, WORKS, WORKS, NO_PYTHON), ["3.11", "3.12"]),
        ((NO_PYTHON, NO_VENV, NO_PIP, NO_PIP), []),
        ((), []),
    ],
)
def test_ci_takes_the_lowest_and_the_highest_python_that_work(
    tmp_path: Path, kinds: tuple[str, ...], expected: list[str]
) -> None:
    """One that is installed and cannot make an environment is passed over, and does not fail the run."""
    for tool in ("bash", "chmod", "mkdir", "mktemp", "rm", "uniq"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    for version, kind in zip(PYTHONS, kinds, strict=False):
        file = tmp_path / f"python{version}"
        file.write_text(f"#!/bin/sh\n{kind.format(version=version)}\n")
        file.chmod(0o755)
    environment = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path / "none"), "HOME": str(tmp_path)}
    done = subprocess.run(["bash", ROOT / ".ci/pythons"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{version} {tmp_path / f'python{version}'}" for version in expected]
