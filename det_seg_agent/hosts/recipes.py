"""The recipes that the package carries: configs of the toolboxes, and comparisons.

They are in `.mim/configs`, as those of OpenMMLab's packages. `det_seg_agent::seg/...` in a config does not find them:
MMEngine (0.10, `mmengine.config.utils.MODULE2PACKAGE`) reads those of its own list of packages only.
"""

from pathlib import Path

from det_seg_agent.errors import ConfigError

FOLDER = Path(__file__).parents[1] / ".mim/configs"
SUFFIXES = (".py", ".yaml")


def recipe_names() -> list[str]:
    """Return the names of all recipes, such as seg/upernet_r50_80k_ade20k-512x512.py, sorted; bases are left out."""
    paths = (path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.suffix in SUFFIXES)
    return sorted(path.as_posix() for path in paths if "_base_" not in path.parts and "models" not in path.parts)


def found(given: str | Path) -> Path:
    """Return the file that the user named: one that is there, or else the recipe of that name.

    A recipe may be written as seg/NAME.py or configs/seg/NAME.py. The path is returned as given if there is neither, so
    that the caller's own error names it.
    """
    path = Path(given)
    name = path.as_posix().removeprefix("configs/")
    return path if path.exists() or name not in recipe_names() else FOLDER / name


def recipe_text(name: str) -> str:
    """Return what to write to a file of one's own: a config that inherits the recipe, or the recipe's YAML.

    Raises:
        ConfigError: if there is no such recipe.
    """
    path = found(name)
    if FOLDER not in path.parents:
        raise ConfigError(f"recipe {name}: there is none of that name. Valid: {', '.join(recipe_names())}.")
    if path.suffix == ".py":
        return (
            f"_base_ = {str(path)!r}\n"
            f"# From `det-seg-agent recipe {path.relative_to(FOLDER).as_posix()}`; change below what differs.\n"
            "agent = dict(ratio=0.6)\n"
        )
    return path.read_text(encoding="utf-8")
