"""The interface of a strategy and the registry that strategies join."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from det_seg_agent.errors import ConfigError
from det_seg_agent.signals import SampleSignals, Signals
from det_seg_agent.table import ScoreTable


class NoOptions(BaseModel):
    """The options of a strategy that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Request:
    """What a pass asks for: `count` of the samples, `ratio` of the data set, in pass `pass_index` of `total_passes`."""

    pass_index: int
    total_passes: int
    count: int
    ratio: float


@dataclass(frozen=True)
class Selection:
    """`indices` (n,) int64, rising and distinct; `weights` (n,) float32 factors of their losses, None for all 1."""

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
        preset: 'default' or 'paper'.
    """

    name: ClassVar[str] = ""
    Options: ClassVar[type[BaseModel]] = NoOptions
    selects_all: ClassVar[bool] = False
    feature_dim: int | None = 1
    weighs: bool = False  # whether its selections have weights
    needs_sufficiency: bool = False  # whether it cannot do without that signal

    def __init__(self, table: ScoreTable, seed: int, options: Any, preset: str = "default"):
        self.table, self.seed, self.preset = table, seed, preset
        self.options = self.resolved(options, preset)

    @classmethod
    def resolved(cls, options: Any, preset: str) -> Any:
        """Return the options in force under a preset."""
        return options

    def observe(  # noqa: B027
        self, samples: SampleSignals, signals: Signals, pass_index: int, total_passes: int
    ) -> None:
        """Take the signals of a finished pass; by default the score table is all that is needed.

        Args:
            samples: one row per sample that the pass showed, at least one.
            signals: the training images that they come from.
            pass_index: the pass, from 0.
            total_passes: passes of the run.
        """

    @abstractmethod
    def select(self, request: Request) -> Selection:
        """Return the selection of a pass; asked only for passes with a ratio below 1."""

    def stats(self) -> dict[str, float]:
        """Return figures of the last `observe`: any of balance, reward, policy_entropy."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return all that lasts, as tensors and primitives; the table is saved elsewhere."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take over what `state_dict` gave."""


_REGISTRY: dict[str, type[Strategy]] = {}


def register(name: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Return a class decorator that makes a strategy available as `agent.strategy=name`."""

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
    """Return the registered names."""
    return sorted(_REGISTRY)


def strategy_class(name: str) -> type[Strategy]:
    """Return the class for a registered name or 'package.module:Class'.

    Raises:
        ConfigError: if there is none.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
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
