"""The rule by which a recipe's iterations follow the budget."""

import math
from typing import Any

SINGLE = ("begin", "end", "T_max", "step_size", "total_steps")
SEVERAL = ("milestones", "periods")


def passes_of(max_iters: int, num_samples: int, batch: int) -> int:
    """Return the passes over the data set that `max_iters` iterations of `batch` images are, rounded, at least 1."""
    return max(1, round(max_iters * batch / num_samples))


def scaled(iterations: int, budget: float) -> int:
    """Return `iterations` times the budget: the nearest integer, at least 1."""
    return max(1, round(iterations * budget))


def scaled_interval(interval: int, budget: float) -> int:
    """Return an interval times the budget, rounded up, so that a run has no more of them than before."""
    return max(1, math.ceil(interval * budget - 1e-9)) if interval > 0 else interval


def scale_scheduler(config: Any, budget: float) -> Any:
    """Return a parameter scheduler's config with what it counts in iterations times the budget.

    Schedulers that count epochs are returned as they are.
    """
    if not isinstance(config, dict) or config.get("by_epoch", True):
        return config
    result = config.copy()
    for key in SINGLE:
        if isinstance(result.get(key), int) and result[key] > 0 and result[key] < math.inf:
            result[key] = scaled(result[key], budget)
    for key in SEVERAL:
        if result.get(key):
            result[key] = [scaled(value, budget) for value in result[key]]
    return result


def scale_schedulers(configs: Any, budget: float) -> Any:
    """Return a `param_scheduler` setting, one config, a list, or a dict of them, scaled by `scale_scheduler`."""
    if isinstance(configs, list | tuple):
        return [scale_schedulers(config, budget) for config in configs]
    if isinstance(configs, dict) and "type" not in configs:
        return {name: scale_schedulers(config, budget) for name, config in configs.items()}
    return scale_scheduler(configs, budget)
