"""Counts of iterations: how they follow the length of a run, and which names stand for them."""

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from det_seg_agent.errors import ConfigError

COUNT = re.compile(r"(^|_)(iters?|iterations?|steps?)(_|$)")
COUNT_BY_ITERATION = re.compile(r"(^|_)(interval|begin|end|start|stop|milestones|warmup|periods?)(_|$)")


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; 8e4 is one as 80000 is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def whole(name: str, value: Any) -> int:
    """Return a count as an integer; 8e4 and 40.0 are integers too.

    Raises:
        ConfigError: for anything else, and below 1.
    """
    if not is_number(value) or value != int(value) or value < 1:
        raise ConfigError(f"{name}={value!r}: a whole number of at least 1 is needed.")
    return int(value)


def scaled(iterations: float, share: float) -> int:
    """Return `iterations` times `share`: the nearest integer, at least 1."""
    return max(1, round(iterations * share))


def scaled_interval(interval: float, share: float) -> int:
    """Return an interval times `share`, rounded up, so that a run has no more of them than before."""
    return max(1, math.ceil(interval * share - 1e-9)) if interval > 0 else int(interval)


def scaled_period(period: float, share: float) -> tuple[int, float]:
    """Return a period times `share`, and how often what is done once a period is to be done at each of the new ones.

    The second makes good what rounding changes: a period of one iteration cannot get shorter.
    """
    new = scaled(period, share)
    return new, new / (period * share)


def class_of(registry: Any, kind: Any) -> Any:
    """Return the class that a config's `type` stands for in the default scope, or its name where there is none."""
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(kind) or kind


def name_of(cls: Any) -> str:
    """Return the name of a class, or of one that is not known."""
    return cls.__name__ if inspect.isclass(cls) else str(cls)


def is_a(cls: Any, *kinds: type) -> bool:
    """Return whether `cls` is a class, and one of these."""
    return inspect.isclass(cls) and issubclass(cls, kinds)


def is_hosts(cls: Any) -> bool:
    """Return whether a class is of mmengine, mmseg or ours; what those count is known."""
    return inspect.isclass(cls) and cls.__module__.split(".")[0] in ("mmengine", "mmseg", "det_seg_agent")


def default_of(cls: Any, name: str) -> Any:
    """Return the default of an argument, None where there is none."""
    found = inspect.signature(cls).parameters.get(name) if inspect.isclass(cls) else None
    return None if found is None or found.default is inspect.Parameter.empty else found.default


def unknown_counts(name: str, values: Mapping[str, Any], by_epoch: bool, share: float) -> list[str]:
    """Return what looks like a count of iterations, as `name.key=value [scaled value]`.

    Args:
        name: of what has them.
        values: its settings or attributes.
        by_epoch: whether it counts epochs, so that `interval` and the like are of those.
        share: of the recipe's iterations.
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
