"""Strategies of other packages, found by the entry points `det_seg_agent.strategies` of what is installed."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from det_seg_agent.errors import ConfigError

GROUP = "det_seg_agent.strategies"


def plugin_names() -> list[str]:
    """Return the names that installed packages give their strategies, sorted; none of them is imported."""
    return sorted(set(entry_points(group=GROUP).names))


def load_plugin(name: str) -> tuple[Any, str] | None:
    """Import what an installed package offers as strategy `name`.

    Returns:
        The object and its origin, for messages; None if no package offers the name.

    Raises:
        ConfigError: if it cannot be imported, or several packages offer the name; names the packages.
    """
    found = {_package(each): each for each in entry_points(group=GROUP, name=name)}
    if not found:
        return None
    if len(found) > 1:
        raise ConfigError(f"agent.strategy={name!r}: {' and '.join(sorted(found))} have a strategy of that name.")
    [(package, entry)] = found.items()
    origin = f"{entry.value} of the package {package}"
    try:
        return entry.load(), origin
    except Exception as error:  # whatever the package does on import
        raise ConfigError(
            f"agent.strategy={name!r}: {origin} cannot be imported ({type(error).__name__}: {error}). "
            "Repair, update or remove the package."
        ) from error


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
