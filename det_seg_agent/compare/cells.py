"""The cells of a comparison: one training run each."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from det_seg_agent.schedule import Schedule
from det_seg_agent.settings import Settings, parse
from det_seg_agent.strategies import strategy_class

FULL, SHORT = "full", "full, shorter"
RANDOM, EVEN, QUALITY = "random", "even", "quality"
CONTROLS = (RANDOM, EVEN, QUALITY)  # strategies that run wherever another one does
Role = Literal["full", "short", "selection", "native"]
MANY = 1_000_000  # samples at which a selection's rounding to whole samples no longer counts
AGREE = 0.02  # of the images of full training: budgets that differ by no more are compared


@dataclass(frozen=True)
class Cell:
    """One training run.

    Attributes:
        task: detection or segmentation.
        role: full data at the full schedule, full data on a shorter one, a selection of a given budget, or one whose
            budget follows from its own rule.
        label: of the strategy, as the tables have it.
        ratio: of the selection, or of the selections whose budget the shorter schedule has; 1 for `full` and `native`.
        seed: of the host and of everything that we draw.
        agent: settings of ours.
        host, data, scenes, config, iterations: see `Block`; `data` is resolved.
        epochs: of the shorter schedule in detection.
        resolved: name -> digest of all that these settings stand for, as `prepare` found it; see `fingerprint`.
    """

    task: str
    role: Role
    label: str
    ratio: float
    seed: int
    agent: dict[str, Any]
    host: dict[str, Any]
    data: str
    scenes: dict[str, int] = field(default_factory=dict)
    config: str | None = None
    iterations: int | None = None
    epochs: int | None = None
    resolved: dict[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Return the hash by which a finished cell is known.

        It is of our settings, our defaults too, and of `resolved`, in whose place the host's settings and the paths of
        configuration and data do not count.
        """
        settings = parse(Settings, self.agent)
        cls = strategy_class(settings.strategy)
        options = cls.resolved(parse(cls.Options, settings.options)).model_dump()
        known = {name: getattr(self, name) for name in ("task", "role", "label", "ratio", "seed", "epochs", "resolved")}
        text = json.dumps({**known, "settings": settings.model_dump(), "options": options}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def strategy(self) -> str:
        """Return the strategy, a registered name or 'package.module:Class'."""
        return str(self.agent["strategy"])

    @property
    def name(self) -> str:
        """Return what people and `--only` call it."""
        ratio = "" if self.role in ("full", "native") else f" {self.ratio:g}"
        epochs = "" if self.epochs is None else f" at {self.epochs} epochs"
        return f"{self.task} {self.label}{ratio}{epochs} seed {self.seed}"

    @property
    def folder(self) -> str:
        """Return how the name of its folder begins; with other settings it has another."""
        words = "".join(c if c.isalnum() or c in ".-" else "-" for c in self.name.replace(",", ""))
        return f"{words}-{self.key[:8]}"

    @property
    def budget(self) -> float:
        """Return about the budget to come; 1, the most that it can be, where it follows from the strategy's rule."""
        if self.role in ("full", "native"):
            return 1.0
        if self.epochs is not None:
            return self.epochs / int(self.host["epochs"])
        return self.matched()

    def matched(self, samples: int = MANY) -> float:
        """Return the budget of the selections of this ratio; for segmentation as if there were many passes."""
        passes = int(self.host["epochs"]) if self.task == "detection" else 100
        return self.schedule().budget(passes, samples)

    def schedule(self) -> Schedule:
        """Return the schedule of the selection, or of that whose budget is matched."""
        known = {k: v for k, v in self.agent.items() if k in Schedule.model_fields}
        return parse(Schedule, {**known, "ratio": self.ratio}, "agent.")


def shorter(length: int, budget: float) -> int:
    """Return `length` times the budget to the nearest integer, halves up: the control is not to get less."""
    return max(1, math.floor(length * budget + 0.5))


def epochs_around(full: int, budget: float) -> list[int]:
    """Return the epochs of the shorter schedule: those that meet the budget, or else those below and above it."""
    nearest = shorter(full, budget)
    if abs(nearest / full - budget) <= AGREE:
        return [nearest]
    return sorted({max(1, math.floor(full * budget)), math.ceil(full * budget)})
