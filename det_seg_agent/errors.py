"""Errors that name the thing, the value and the remedy, in lines that can be read."""

from collections.abc import Iterable

LIMIT = 290  # characters of a message; 300 with "error: " before it


class AgentError(Exception):
    """Base class of every error that this package raises on purpose."""


class ConfigError(AgentError, ValueError):
    """A setting, an argument or a data set that cannot be used; raised before training starts."""


class StateError(AgentError, RuntimeError):
    """A saved state that does not belong to this run."""


class HostError(AgentError, ImportError):
    """A toolbox, or a package that it needs, is missing or of a version that is not supported; raised on import."""


def shortened(text: str, limit: int = LIMIT) -> str:
    """Return a text of at most `limit` characters: its start and its end, where the cause or the remedy often is."""
    if len(text) <= limit:
        return text
    tail = max(0, limit - 5) // 2
    return f"{text[: max(0, limit - 5 - tail)].rstrip()} ... {text[len(text) - tail :].lstrip()}"


def listed(names: Iterable[str], limit: int = LIMIT // 2) -> str:
    """Return all names where they fit `limit` characters, or else two of them and the count of the others."""
    given = list(names)
    text = ", ".join(given)
    if len(text) <= limit:
        return text
    return f"{', '.join(shortened(name, limit // 2) for name in given[:2])} and {len(given) - 2:,} more"
