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


def scale_scheduler(config: Any, budget: float, epoch_length: int | None) -> Any:
    """Return a parameter scheduler's config with what it counts in iterations times the budget.

    Schedulers that count epochs stay as they are, but for `convert_to_iter_based`, which gets the mean length of an
    epoch.
    """
    if not isinstance(config, dict):
        return config
    result = config.copy()
    if config.get("by_epoch", True):
        if config.get("convert_to_iter_based") and epoch_length is not None:
            result["epoch_length"] = epoch_length
        return result
    for key in SINGLE:
        if isinstance(result.get(key), int) and result[key] > 0 and result[key] < math.inf:
            result[key] = scaled(result[key], budget)
    for key in SEVERAL:
        if result.get(key):
            result[key] = [scaled(value, budget) for value in result[key]]
    return result


def scale_schedulers(configs: Any, budget: float, epoch_length: int | None = None) -> Any:
    """Return a `param_scheduler` setting, one config, a list, or a dict of them, scaled by `scale_scheduler`."""
    if isinstance(configs, list | tuple):
        return [scale_schedulers(config, budget, epoch_length) for config in configs]
    if isinstance(configs, dict) and "type" not in configs:
        return {name: scale_schedulers(config, budget, epoch_length) for name, config in configs.items()}
    return scale_scheduler(configs, budget, epoch_length)
