"""Errors that name the thing, the value and the remedy."""


class AgentError(Exception):
    """Base class of every error that this package raises on purpose."""


class ConfigError(AgentError, ValueError):
    """A setting, an argument or a data set that cannot be used; raised before training starts."""


class StateError(AgentError, RuntimeError):
    """A saved state that does not belong to this run."""


class HostError(AgentError, ImportError):
    """A toolbox, or a package that it needs, is missing or of a version that is not supported; raised on import."""
