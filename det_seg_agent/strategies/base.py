"""The interface of strategies and their registry. `Selector` resolves and calls strategies through it."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from det_seg_agent.errors import ConfigError
from det_seg_agent.settings import Settings, parse
from det_seg_agent.signals import Signals
from det_seg_agent.strategies.plugins import load_plugin, plugin_names
from det_seg_agent.sums import SampleSignals
from det_seg_agent.table import ScoreTable


class StrategyOptions(BaseModel):
    """Base of our strategies' options: unknown names and infinite values are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoOptions(StrategyOptions):
    """The options of a strategy that has none."""


@dataclass(frozen=True)
class Request:
    """Request for `count` samples, `ratio` of the data set, in pass `pass_index` (from 0) of `total_passes`."""

    pass_index: int
    total_passes: int
    count: int
    ratio: float


@dataclass(frozen=True)
class Selection:
    """The samples of a pass and their loss weights.

    Attributes:
        indices: (n,) int64, ascending; a sample may be repeated if the strategy `repeats`.
        weights: (n,) float32 > 0, factors of the samples' losses; None means 1 for all.
    """

    indices: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)


class Strategy(ABC):
    """The rule that makes a selection.

    A strategy draws only from generators that `seeding.generator(self.seed, ..., pass)` makes, so that a resumed run
    selects what the uninterrupted one would have.

    Args:
        table: what is known of the samples; updated before `observe` is called.
        seed: of everything that the strategy draws.
        options: an instance of the class's `Options`.
    """

    name: ClassVar[str] = ""
    Options: ClassVar[type[BaseModel]] = NoOptions
    stat_names: ClassVar[tuple[str, ...]] = ()  # keys of `stats`
    selects_all: ClassVar[bool] = False
    feature_dim: int | None = 0  # values that features are projected to; None: as they are; 0: no features
    keeps_features: bool = True  # whether `table.features` holds them
    repeats: bool = False  # whether a selection may hold a sample more than once
    weighs: bool = False  # whether its selections may have weights; the selector sets False if the loop ignores them
    needs_weights: bool = True  # whether one that `weighs` cannot do without them
    fixed_budget: bool = True  # whether a selection has the size that is asked for
    needs_sufficiency: bool = False  # whether it cannot do without that signal
    needs_classes: bool = False  # whether it cannot do without `table.classes`
    uses_classes: bool = False  # whether it reads them where there are any
    needs_images: bool = False  # whether `observe_images` is called; all images of a pass are then kept in memory

    def __init__(self, table: ScoreTable, seed: int, options: Any):
        self.table, self.seed = table, seed
        self.options = self.resolved(options)

    @classmethod
    def resolved(cls, options: Any) -> Any:
        """Return the options in force.

        Raises:
            ConfigError: for an option that has no effect beside the others.
        """
        return options

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:  # noqa: B027
        """Learn from the signals of a finished pass; does nothing by default, as the score table is updated already.

        This and the methods below are called on rank 0 only, in one thread.

        Args:
            samples: one row per observed sample, at least one; features are in `table.features`.
            pass_index: index of the pass, from 0.
            total_passes: number of passes in the run.
        """

    def observe_images(self, signals: Signals, pass_index: int, total_passes: int) -> None:  # noqa: B027
        """Learn from the images of a finished pass, at least one, in training order; called if `needs_images`."""

    @abstractmethod
    def select(self, request: Request) -> Selection:
        """Return the selection of a pass; called only for passes with a ratio below 1."""

    def full_weights(self) -> Tensor | None:
        """Return the loss weights (num_samples,) float32 > 0 of a pass over all samples; None means 1 for all."""
        return None

    def stats(self) -> dict[str, float]:
        """Return the figures of the last `observe` named in `stat_names`: any of balance, reward, policy_entropy."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the strategy's state as tensors and primitives, without the table, which is saved elsewhere."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restore the state that `state_dict` returned."""


_REGISTRY: dict[str, type[Strategy]] = {}


def register(name: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Return a class decorator that makes a strategy available as `agent.strategy=name`.

    Raises:
        ConfigError: when applied, if the class is not a `Strategy` or the name is taken.
    """

    def add(cls: type[Strategy]) -> type[Strategy]:
        if not issubclass(cls, Strategy):
            raise ConfigError(f"{cls!r} is not a subclass of det_seg_agent.Strategy; derive it from that class.")
        if _REGISTRY.get(name, cls) is not cls:
            raise ConfigError(f"a strategy named {name!r} is registered already; choose another name.")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def strategy_names() -> list[str]:
    """Return the names of ours, of those that are registered, and of installed packages, sorted."""
    return sorted({*_REGISTRY, *plugin_names()})


def strategy_class(name: str) -> type[Strategy]:
    """Return the class for a registered name, that of an installed package's entry point, or 'package.module:Class'.

    Raises:
        ConfigError: if there is no such strategy.
    """
    if name in _REGISTRY:  # first: no package takes a name of ours
        return _REGISTRY[name]
    if (loaded := load_plugin(name)) is not None:
        plugin, origin = loaded
        if not (isinstance(plugin, type) and issubclass(plugin, Strategy)):
            raise ConfigError(f"agent.strategy={name!r}: {origin} is not a subclass of det_seg_agent.Strategy.")
        return register(name)(plugin)
    module, _, attribute = name.partition(":")
    if attribute:
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"agent.strategy={name!r}: {error}. It must be importable as package.module:Class."
            ) from error
        if isinstance(found, type) and issubclass(found, Strategy):
            return found
        raise ConfigError(f"agent.strategy={name!r} is not a subclass of det_seg_agent.Strategy.")
    raise ConfigError(
        f"agent.strategy={name!r} is not known. Valid: {', '.join(strategy_names())}, or package.module:Class."
    )


def resolve(settings: Settings) -> tuple[type[Strategy], Any]:
    """Return the class of `settings.strategy` and the options in force.

    Raises:
        ConfigError: for a strategy or options that do not exist, or have no effect.
    """
    cls = strategy_class(settings.strategy)
    return cls, cls.resolved(parse(cls.Options, settings.options, "agent.options."))


def refuse_inert(options: BaseModel, defaults: BaseModel, inert: dict[str, str]) -> None:
    """Refuse options that were changed from their defaults but have no effect.

    Args:
        options: the effective options.
        defaults: the options when nothing is set.
        inert: maps each option without effect to the reason.

    Raises:
        ConfigError: naming the first such option.
    """
    for name, why in inert.items():
        value = getattr(options, name)
        if value != getattr(defaults, name):
            raise ConfigError(f"agent.options.{name}={value!r} has no effect {why}. Remove it, or change that.")


def check_selection(selection: Selection, num_samples: int, name: str, repeats: bool = False) -> None:
    """Refuse invalid indices or weights, which a user's own strategy may return.

    Args:
        selection: the selection to check.
        num_samples: number of samples in the data set.
        name: strategy and pass, for the message.
        repeats: whether samples may be repeated.

    Raises:
        ConfigError: if the selection is empty, or an index is out of range, unsorted or repeated, or the weights are
            not one finite positive number for each index. The message names the first such sample.
    """
    chosen, weights = selection.indices, selection.weights
    if not len(chosen):
        raise ConfigError(f"{name} selects no sample; a strategy returns the number of samples that it is asked for.")
    wrong = chosen[(chosen < 0) | (chosen >= num_samples)]
    if len(wrong):
        raise ConfigError(f"{name} selects sample {int(wrong[0])}, and there are samples 0 to {num_samples - 1}.")
    wrong = chosen[1:][chosen[1:] < chosen[:-1] if repeats else chosen[1:] <= chosen[:-1]]
    if len(wrong):
        raise ConfigError(
            f"{name} selects sample {int(wrong[0])} after itself or a later one; sort and list each once."
        )
    if weights is None:
        return
    if weights.shape != chosen.shape:
        raise ConfigError(
            f"{name} gives {tuple(weights.shape)} weights for {len(chosen)} samples; give one for each, or None."
        )
    wrong = chosen[~(weights.isfinite() & (weights > 0))]
    if len(wrong):
        weight = float(weights[chosen == wrong[0]])
        raise ConfigError(f"{name} gives sample {int(wrong[0])} the weight {weight}; weights are finite and above 0.")
