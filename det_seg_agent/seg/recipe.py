"""Scaling of a recipe to the budget: number of passes and iterations, and all settings that count iterations.

`plan` computes the lengths. `Recipe` scales a run's loop, schedulers and hooks (used by the loops), and `shorten` a
whole config (used by `compare`).
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.registry import HOOKS, MODELS

from det_seg_agent.errors import ConfigError
from det_seg_agent.messages import LOGGER
from det_seg_agent.schedule import Schedule
from det_seg_agent.seg.scaling import (
    class_of,
    default_of,
    is_a,
    is_hosts,
    is_number,
    name_of,
    scaled,
    scaled_interval,
    scaled_period,
    unknown_counts,
    whole,
)  # fmt: skip
from det_seg_agent.seg.schedulers import Schedulers


@dataclass(frozen=True)
class Plan:
    """Length of a run: `iterations` instead of the recipe's `full` ones, in `passes` passes over selections."""

    passes: int
    iterations: int
    full: int

    @property
    def budget(self) -> float:
        """Fraction of the recipe's iterations, and thereby of its images, in (0, 1]."""
        return self.iterations / self.full


def passes_of(max_iters: int, num_samples: int, batch: int) -> int:
    """Return the number of full passes in `max_iters` iterations of `batch` images, rounded, at least 1."""
    return max(1, round(max_iters * batch / num_samples))


def iterations_of(schedule: Schedule, pass_index: int, passes: int, num_samples: int, batch: int) -> int:
    """Return the number of iterations of one pass; its last batch is padded."""
    return -(-schedule.count_at(pass_index, passes, num_samples) // batch)


def plan(schedule: Schedule, max_iters: int, num_samples: int, batch: int) -> Plan:
    """Return the length of a run: whole passes with at most `max_iters` iterations in total.

    If every pass trains on all images, as in a run of two passes, the length does not change.

    Args:
        schedule: schedule of the selections.
        max_iters: iterations of the recipe.
        num_samples: number of samples in the training set.
        batch: images per iteration, over all processes.
    """
    passes = passes_of(max_iters, num_samples, batch)
    while schedule.selects(passes):
        iterations = sum(iterations_of(schedule, p, passes, num_samples, batch) for p in range(passes))
        if iterations <= max_iters:
            return Plan(passes, iterations, max_iters)
        if passes == 1:
            break
        passes = max(1, min(passes - 1, passes * max_iters // iterations))
    return Plan(passes, max_iters, max_iters)


class Recipe:
    """Scales the settings of a recipe that count iterations.

    Args:
        share: iterations of the run divided by those of the recipe, in (0, 1].
        full: iterations of the recipe.
        epoch_length, epochs: see `Schedulers`.
    """

    def __init__(self, share: float, full: int, epoch_length: int | None = None, epochs: int = 1):
        self.share, self.full = share, full
        self.schedulers = Schedulers(share, epoch_length, epochs)
        self._left: list[str] = []

    def apply(self, runner: Any) -> None:
        """Scale the runner's schedulers (not built yet) and its hooks (built); warn about settings left unscaled."""
        runner.param_schedulers = self.schedulers.scale(runner.param_schedulers)
        for hook in runner.hooks:
            self.hook(type(hook), vars(hook))
        if self.warning():
            LOGGER.warning(self.warning())

    def warning(self) -> str:
        """Return one line naming unscaled settings that look like counts of iterations; empty if there are none."""
        left = ", ".join(self.schedulers.left + self._left)
        return left and (
            f"{left}: this looks like a count of iterations that det_seg_agent does not know. It stays as it is, while "
            f"{self.full} iterations of the recipe become {scaled(self.full, self.share)}. Where it is to follow, set "
            "it to the value in brackets."
        )

    def loop(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the scaled settings of an iteration-based loop; `max_iters` becomes that of the run."""
        result = {**config, "max_iters": scaled(self.full, self.share)}
        for key in ("val_begin", "val_interval"):
            if is_number(result.get(key)):
                result[key] = scaled_interval(result[key], self.share)
        if result.get("dynamic_intervals"):
            pairs = result["dynamic_intervals"]
            result["dynamic_intervals"] = [tuple(scaled_interval(n, self.share) for n in pair) for pair in pairs]
        return result

    def hook(self, cls: Any, values: MutableMapping[str, Any]) -> None:
        """Scale the counts of a hook, in place.

        Args:
            cls: class of the hook, or the name of an unknown class.
            values: config of the hook, or the attributes of a built one.

        Raises:
            ConfigError: if an `EMAHook` would begin after the end of the run.
        """
        if is_a(cls, CheckpointHook):
            if not values.get("by_epoch", True):
                for key, scale in (("interval", scaled_interval), ("save_begin", scaled)):
                    if is_number(values.get(key)) and values[key] > 0:
                        values[key] = scale(values[key], self.share)
        elif is_a(cls, EMAHook):
            self._average(values)
        elif not is_hosts(cls):
            by_epoch = values.get("by_epoch", True)
            self._left += unknown_counts(f"custom_hooks: {name_of(cls)}", values, by_epoch, self.share)

    def _average(self, values: MutableMapping[str, Any]) -> None:
        """Scale an `EMAHook`: its first iteration, and the decay of the average per iteration."""
        begin = values.get("begin_iter", 0)
        if begin > self.full:
            raise ConfigError(
                f"custom_hooks: EMAHook.begin_iter={begin}, and the recipe has {self.full} iterations. Begin earlier."
            )
        if begin > 0:
            values["begin_iter"] = scaled(begin, self.share)
        built = "ema_cfg" in values
        average = values["ema_cfg"] if built else values
        kind = average["type"] if built else average.get("ema_type", default_of(EMAHook, "ema_type"))
        cls, interval = class_of(MODELS, kind), average.get("interval", 1)
        new, power = scaled_period(interval, self.share)
        if interval > 1:
            average["interval"] = new
        momentum = average.get("momentum", default_of(cls, "momentum"))
        if momentum is not None:
            average["momentum"] = 1 - (1 - momentum) ** power
        gamma = average.get("gamma", default_of(cls, "gamma"))
        if gamma is not None and name_of(cls) == "ExpMomentumEMA":  # mmdet: momentum falls over gamma iterations
            average["gamma"] = scaled(gamma, self.share)
        elif gamma is not None and not is_hosts(cls):  # the host's gamma averages over a fraction of the steps
            self._left.append(f"custom_hooks: EMAHook.gamma={gamma} of {name_of(cls)} [{scaled(gamma, self.share)}]")


def shorten(config: Any, iterations: int) -> str:
    """Set the length of a config's run, in place, and scale all settings that count iterations, as `AgentIterLoop`.

    Returns:
        A warning that names settings left unscaled, or an empty string.

    Raises:
        ConfigError: if `train_cfg` has no valid `max_iters`, and as `Recipe` does.
    """
    full = whole("train_cfg.max_iters", config.train_cfg.get("max_iters"))
    if iterations == full:
        return ""
    recipe = Recipe(iterations / full, full)
    config.train_cfg.update(recipe.loop(config.train_cfg))
    if config.get("param_scheduler"):
        config.param_scheduler = recipe.schedulers.scale(config.param_scheduler)
    for hook in (*(config.get("default_hooks") or {}).values(), *(config.get("custom_hooks") or [])):
        if isinstance(hook, MutableMapping):
            recipe.hook(class_of(HOOKS, hook["type"]), hook)
    return recipe.warning()
