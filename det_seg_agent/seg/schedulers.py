"""Scaling of iteration-based learning rate and momentum schedulers to a run's length. `seg.recipe` uses it."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.param_scheduler import (
    ExponentialParamScheduler,
    ReduceOnPlateauParamScheduler,
    StepParamScheduler,
)
from mmengine.registry import PARAM_SCHEDULERS

from det_seg_agent.errors import ConfigError
from det_seg_agent.seg.scaling import (
    class_of,
    default_of,
    is_a,
    is_hosts,
    is_number,
    name_of,
    scaled,
    scaled_period,
    unknown_counts,
)

PLACES = ("begin", "end")  # iterations of the run
LENGTHS = ("T_max", "total_steps")  # iterations after `begin`, like `milestones` and the sums of `periods`
COUNTS = (*PLACES, *LENGTHS, "milestones", "periods", "step_size")


class Schedulers:
    """Scales configs of schedulers; those that count epochs do not change.

    Args:
        share: iterations of the run divided by those of the recipe.
        epoch_length: iterations of the recipe's epochs, for `convert_to_iter_based`.
        epochs: epochs of the recipe, if its loop counts them.

    Attributes:
        left: settings that look like counts of iterations but are unknown.
    """

    def __init__(self, share: float, epoch_length: int | None = None, epochs: int = 1):
        self.share, self.epoch_length, self.epochs = share, epoch_length, epochs
        self.left: list[str] = []

    def scale(self, configs: Any) -> Any:
        """Return a scaled `param_scheduler` setting: one config, a list, or a dict of them for several optimizers.

        Raises:
            ConfigError: if a scheduler ends before it begins.
        """
        if isinstance(configs, Mapping) and "type" not in configs:
            return {name: self.scale(config) for name, config in configs.items()}
        if not isinstance(configs, list | tuple):
            return self.scale([configs])[0]
        configs = [self._by_iteration(config) for config in configs]
        place = self._places([config for config in configs if _counts(config)])
        return [self._scale_one(config, place) if _counts(config) else config for config in configs]

    def _by_iteration(self, config: Any) -> Any:
        """Apply `convert_to_iter_based` by the length of the recipe's epochs, as those of the run vary."""
        if isinstance(config, _ParamScheduler) and not config.by_epoch:
            self.left.append(f"param_scheduler: {name_of(type(config))}, which is built already")
        if not isinstance(config, Mapping) or not config.get("convert_to_iter_based") or self.epoch_length is None:
            return config
        cls, length = class_of(PARAM_SCHEDULERS, config["type"]), config.get("epoch_length", self.epoch_length)
        if is_a(cls, ReduceOnPlateauParamScheduler) or not is_hosts(cls):
            return {**config, "epoch_length": scaled(length, self.share)}
        result = {key: value for key, value in config.items() if key not in ("convert_to_iter_based", "epoch_length")}
        result |= {"by_epoch": False, "end": config.get("end", self.epochs)}
        for key in COUNTS:
            value = result.get(key)
            if isinstance(value, list | tuple):
                result[key] = [length * v for v in value]
            elif is_number(value):
                result[key] = int(length * value)
        return result

    def _places(self, configs: list[Any]) -> Callable[[float], int]:
        """Return a function that maps an iteration of the recipe to one of the run.

        Adjacent phases remain adjacent. A phase of several iterations keeps at least two, as the host's warm-up would
        stay at its first value with only one.
        """
        points: set[float] = set()
        for config in configs:
            begin = config.get("begin", 0)
            points |= {config[key] for key in PLACES if is_number(config.get(key))}
            points |= {begin + length for length in _lengths(config)}
        known: dict[float, int] = {}
        before, there = 0.0, 0
        for point in sorted(point for point in points if point > 0):
            there = max(there + min(2, math.ceil(point - before)), round(point * self.share))
            known[point], before = there, point
        return lambda point: known.get(point, round(point * self.share))

    def _scale_one(self, config: Mapping[str, Any], place: Callable[[float], int]) -> dict[str, Any]:
        cls, begin, end = class_of(PARAM_SCHEDULERS, config["type"]), config.get("begin", 0), config.get("end")
        if end is not None and end <= begin:
            raise ConfigError(f"param_scheduler: {name_of(cls)} begins at {begin} and ends at {end}; end it later.")
        start = place(begin)
        result = {**config, **{key: place(config[key]) for key in PLACES if is_number(config.get(key))}}
        result |= {key: place(begin + config[key]) - start for key in LENGTHS if is_number(config.get(key))}
        if "milestones" in config:
            result["milestones"] = [max(1, round((begin + m) * self.share) - start) for m in config["milestones"]]
        if "periods" in config:
            ends = [place(begin + length) for length in _lengths(config)[-len(config["periods"]) :]]
            result["periods"] = [b - a for a, b in pairwise([start, *ends])]
        if is_a(cls, StepParamScheduler):
            result["step_size"], power = scaled_period(config["step_size"], self.share)
            result["gamma"] = config.get("gamma", default_of(StepParamScheduler, "gamma")) ** power
        elif is_a(cls, ExponentialParamScheduler):
            result["gamma"] = config["gamma"] ** scaled_period(1, self.share)[1]
        elif not is_hosts(cls):
            others = {key: value for key, value in config.items() if key not in COUNTS}
            self.left += unknown_counts(f"param_scheduler: {name_of(cls)}", others, True, self.share)
        return result


def _counts(config: Any) -> bool:
    """Return whether a scheduler's config counts iterations."""
    return isinstance(config, Mapping) and not config.get("by_epoch", True)


def _lengths(config: Mapping[str, Any]) -> list[float]:
    """Return the points of a scheduler in iterations after `begin`; the ends of its periods come last."""
    periods = config.get("periods", [])
    return [
        *(config[key] for key in LENGTHS if is_number(config.get(key))),
        *(sum(periods[: i + 1]) for i in range(len(periods))),
    ]
