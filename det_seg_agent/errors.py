"""Exceptions of this package, and helpers that keep their messages short. All modules use them."""

from collections.abc import Iterable

LIMIT = 290  # characters in a message; about 300 with the prefix "error: "


class AgentError(Exception):
    """Base class of every error that this package raises on purpose."""


class ConfigError(AgentError, ValueError):
    """Invalid setting, argument or data set; raised before training starts."""


class StateError(AgentError, RuntimeError):
    """Saved state that does not match this run."""


class HostError(AgentError, ImportError):
    """Missing or unsupported version of a toolbox or of a package that it needs; raised on import."""


def shortened(text: str, limit: int = LIMIT) -> str:
    """Shorten `text` to `limit` characters by cutting its middle; the end often has the cause or the remedy."""
    if len(text) <= limit:
        return text
    tail = max(0, limit - 5) // 2
    return f"{text[: max(0, limit - 5 - tail)].rstrip()} ... {text[len(text) - tail :].lstrip()}"


def listed(names: Iterable[str], limit: int = LIMIT // 2) -> str:
    """Join names by commas; if that exceeds `limit` characters, return two of them and the number of others."""
    given = list(names)
    text = ", ".join(given)
    if len(text) <= limit:
        return text
    return f"{', '.join(shortened(name, limit // 2) for name in given[:2])} and {len(given) - 2:,} more"
