"""Arithmetic that scales counts of iterations. `recipe.plan` sets the length of a run, `recipe.Recipe` applies it."""

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from det_seg_agent.errors import ConfigError

COUNT = re.compile(r"(^|_)(iters?|iterations?|steps?)(_|$)")
COUNT_BY_ITERATION = re.compile(r"(^|_)(interval|begin|end|start|stop|milestones|warmup|periods?)(_|$)")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def whole(name: str, value: Any) -> int:
    """Return a count as an integer; floats such as 8e4 and 40.0 are accepted.

    Raises:
        ConfigError: if it is not a whole number of at least 1.
    """
    if not is_number(value) or value != int(value) or value < 1:
        raise ConfigError(f"{name}={value!r}: a whole number of at least 1 is needed.")
    return int(value)


def scaled(iterations: float, share: float) -> int:
    """Return `iterations` times `share`, rounded to the nearest integer, at least 1."""
    return max(1, round(iterations * share))


def scaled_interval(interval: float, share: float) -> int:
    """Return an interval times `share`, rounded up, so that there are not more intervals than before."""
    return max(1, math.ceil(interval * share - 1e-9)) if interval > 0 else int(interval)


def scaled_period(period: float, share: float) -> tuple[int, float]:
    """Return a period times `share`, rounded, and the exponent for a factor that is applied once a period.

    The exponent compensates for rounding: a period of one iteration cannot get shorter.
    """
    new = scaled(period, share)
    return new, new / (period * share)


def class_of(registry: Any, kind: Any) -> Any:
    """Return the class of a config's `type` in the default scope, or the name if it is not registered."""
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(kind) or kind


def name_of(cls: Any) -> str:
    """Return the name of a class; a string is returned unchanged."""
    return cls.__name__ if inspect.isclass(cls) else str(cls)


def is_a(cls: Any, *kinds: type) -> bool:
    """Return whether `cls` is a class and a subclass of one of `kinds`."""
    return inspect.isclass(cls) and issubclass(cls, kinds)


def is_hosts(cls: Any) -> bool:
    """Return whether a class belongs to mmengine, mmseg or this package, whose counts are known."""
    return inspect.isclass(cls) and cls.__module__.split(".")[0] in ("mmengine", "mmseg", "det_seg_agent")


def default_of(cls: Any, name: str) -> Any:
    """Return the default of a class's argument; None if there is none."""
    found = inspect.signature(cls).parameters.get(name) if inspect.isclass(cls) else None
    return None if found is None or found.default is inspect.Parameter.empty else found.default


def unknown_counts(name: str, values: Mapping[str, Any], by_epoch: bool, share: float) -> list[str]:
    """Return the settings that look like counts of iterations, as `name.key=value [scaled value]`.

    Args:
        name: name of the owner, for the message.
        values: settings or attributes of the owner.
        by_epoch: whether the owner counts epochs, so that `interval` and similar settings are not iterations.
        share: iterations of the run divided by those of the recipe.
    """
    found = []
    for key, value in values.items():
        key = key.lstrip("_")
        numbers = value if isinstance(value, list | tuple) else [value]
        if not numbers or not all(is_number(number) and number > 1 for number in numbers):
            continue
        if COUNT.search(key) or (not by_epoch and COUNT_BY_ITERATION.search(key)):
            found.append(f"{name}.{key}={value} [{', '.join(str(scaled(number, share)) for number in numbers)}]")
    return found
