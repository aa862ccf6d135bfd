"""How many passes and iterations a recipe becomes, and how all that counts iterations follows.

`plan` is the rule; `Recipe` scales a run's loop, schedulers and hooks by it, and `shorten` a whole config.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.registry import HOOKS, MODELS

from det_seg_agent.errors import ConfigError
from det_seg_agent.schedule import Schedule, is_full
from det_seg_agent.seg.counts import (
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
    """What a recipe becomes: `iterations` instead of its `full` ones, in `passes` over selections."""

    passes: int
    iterations: int
    full: int

    @property
    def budget(self) -> float:
        """Return the share of the recipe's iterations, and so of its images, in (0, 1]."""
        return self.iterations / self.full


def passes_of(max_iters: int, num_samples: int, batch: int) -> int:
    """Return the passes over the data set that `max_iters` iterations of `batch` images are, rounded, at least 1."""
    return max(1, round(max_iters * batch / num_samples))


def iterations_of(schedule: Schedule, pass_index: int, passes: int, num_samples: int, batch: int) -> int:
    """Return the iterations of one pass; its last batch is filled up."""
    return -(-schedule.count_at(pass_index, passes, num_samples) // batch)


def selects(schedule: Schedule, passes: int) -> bool:
    """Return whether any of the passes is over less than all images."""
    return not all(is_full(schedule.ratio_at(p, passes)) for p in range(passes))


def plan(schedule: Schedule, max_iters: int, num_samples: int, batch: int) -> Plan:
    """Return what a recipe of `max_iters` becomes: whole passes, of no more iterations than it has.

    Where every pass is over all images, as in a run of two passes, the length stays.

    Args:
        schedule: of the selections.
        max_iters: of the recipe.
        num_samples: size of the training set.
        batch: images of an iteration, over all processes.
    """
    passes = passes_of(max_iters, num_samples, batch)
    while selects(schedule, passes):
        iterations = sum(iterations_of(schedule, p, passes, num_samples, batch) for p in range(passes))
        if iterations <= max_iters:
            return Plan(passes, iterations, max_iters)
        if passes == 1:
            break
        passes = max(1, min(passes - 1, passes * max_iters // iterations))
    return Plan(passes, max_iters, max_iters)


class Recipe:
    """Scales what a recipe counts in iterations.

    Args:
        share: iterations of the run over those of the recipe, in (0, 1].
        full: iterations of the recipe.
        epoch_length, epochs: see `Schedulers`.
    """

    def __init__(self, share: float, full: int, epoch_length: int | None = None, epochs: int = 1):
        self.share, self.full = share, full
        self.schedulers = Schedulers(share, epoch_length, epochs)
        self._left: list[str] = []

    def apply(self, runner: Any) -> None:
        """Scale the runner's schedulers, which are not built yet, and its hooks, which are; warn of what is left."""
        runner.param_schedulers = self.schedulers.scale(runner.param_schedulers)
        for hook in runner.hooks:
            self.hook(type(hook), vars(hook))
        if self.warning():
            runner.logger.warning(self.warning())

    def warning(self) -> str:
        """Return one line that names what looks like a count of iterations and stayed as it is, or nothing."""
        left = ", ".join(self.schedulers.left + self._left)
        return left and (
            f"{left}: this looks like a count of iterations that det_seg_agent does not know. It stays as it is, while "
            f"{self.full} iterations of the recipe become {scaled(self.full, self.share)}. Where it is to follow, set "
            "it to the value in brackets."
        )

    def loop(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a loop that counts iterations; `max_iters` becomes that of the run."""
        result = {**config, "max_iters": scaled(self.full, self.share)}
        for key in ("val_begin", "val_interval"):
            if is_number(result.get(key)):
                result[key] = scaled_interval(result[key], self.share)
        if result.get("dynamic_intervals"):
            pairs = result["dynamic_intervals"]
            result["dynamic_intervals"] = [tuple(scaled_interval(n, self.share) for n in pair) for pair in pairs]
        return result

    def hook(self, cls: Any, values: MutableMapping[str, Any]) -> None:
        """Scale what a hook counts, in place.

        Args:
            cls: its class, or the name of one that is not known.
            values: its config, or the attributes of one that is built.

        Raises:
            ConfigError: for an average of weights that would begin after the run's end.
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
        """Scale an `EMAHook`: where it begins, and how many iterations its average looks back on."""
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
        if gamma is not None and name_of(cls) == "ExpMomentumEMA":  # of mmdet: its momentum falls over gamma iterations
            average["gamma"] = scaled(gamma, self.share)
        elif gamma is not None and not is_hosts(cls):  # the host's own gamma depends on the share that is trained
            self._left.append(f"custom_hooks: EMAHook.gamma={gamma} of {name_of(cls)} [{scaled(gamma, self.share)}]")


def shorten(config: Any, iterations: int) -> str:
    """Let a config's run last `iterations`, with all that counts them scaled alike, as `AgentIterLoop` does.

    Returns:
        A warning that names what stayed as it is, or nothing.

    Raises:
        ConfigError: for a `train_cfg` without `max_iters`, and as `Recipe` does.
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
