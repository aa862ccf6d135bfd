"""`Cell`, one training run of a comparison, and the lengths of shorter schedules. All of `compare` uses them."""

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
CONTROLS = (RANDOM, EVEN, QUALITY)  # strategies that run at every ratio and seed of another one
BY_EPOCHS = ("detection", "classification", "instruction")  # tasks whose length is in epochs, `host["epochs"]`
Role = Literal["full", "short", "selection", "native"]
MANY = 1_000_000  # number of samples for which rounding to whole samples is negligible
AGREE = 0.02  # largest difference of budgets, as a fraction of full training, at which cells are compared


@dataclass(frozen=True)
class Cell:
    """One training run.

    Attributes:
        task: detection, segmentation, classification or instruction.
        role: `full` data at the full schedule, full data at a `short` schedule, a `selection` with a given budget, or
            a `native` rule that determines its own budget.
        label: name of the strategy in the tables.
        ratio: ratio of the selection, or of the selections that a shorter schedule matches; 1 for `full` and `native`.
        seed: seed of the host and of our generators.
        agent: our settings.
        host, data, scenes, config, iterations: see `Block`; `data` is resolved.
        epochs: epochs of the shorter schedule, where lengths are in epochs.
        resolved: digests of everything that these settings refer to, by name, from `prepare`; see `fingerprint`.
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
        """Hash that identifies the cell's results.

        It covers our settings including defaults, and `resolved`, which replaces the host's settings and the paths of
        config and data.
        """
        settings = parse(Settings, self.agent)
        cls = strategy_class(settings.strategy)
        options = cls.resolved(parse(cls.Options, settings.options)).model_dump()
        known = {name: getattr(self, name) for name in ("task", "role", "label", "ratio", "seed", "epochs", "resolved")}
        text = json.dumps({**known, "settings": settings.model_dump(), "options": options}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def strategy(self) -> str:
        """The strategy, a registered name or 'package.module:Class'."""
        return str(self.agent["strategy"])

    @property
    def row(self) -> str:
        """Label and ratio: the name of the cell's row in the tables."""
        return self.label if self.role in ("full", "native") else f"{self.label} {self.ratio:g}"

    @property
    def name(self) -> str:
        """Name of the cell in messages and for `--only`."""
        ratio = "" if self.role in ("full", "native") else f" {self.ratio:g}"
        epochs = "" if self.epochs is None else f" at {self.epochs} epochs"
        return f"{self.task} {self.label}{ratio}{epochs} seed {self.seed}"

    @property
    def folder(self) -> str:
        """Prefix of the name of the cell's folder; it depends on `key`."""
        words = "".join(c if c.isalnum() or c in ".-" else "-" for c in self.name.replace(",", ""))
        return f"{words}-{self.key[:8]}"

    @property
    def budget(self) -> float:
        """Approximate budget of the cell; for `native` the upper limit 1."""
        if self.role in ("full", "native"):
            return 1.0
        if self.epochs is not None:
            return self.epochs / int(self.host["epochs"])
        return self.matched()

    def matched(self, samples: int = MANY) -> float:
        """Return the budget of selections at this ratio for `samples` samples; in segmentation, of 100 passes."""
        passes = int(self.host["epochs"]) if self.task in BY_EPOCHS else 100
        return self.schedule().budget(passes, samples)

    def schedule(self) -> Schedule:
        """Return the schedule of the selection, or of the selections that a shorter schedule matches."""
        known = {k: v for k, v in self.agent.items() if k in Schedule.model_fields}
        return parse(Schedule, {**known, "ratio": self.ratio}, "agent.")


def shorter(length: int, budget: float) -> int:
    """Return `length` times the budget, rounded half up, so that the control does not get less."""
    return max(1, math.floor(length * budget + 0.5))


def epochs_around(full: int, budget: float) -> list[int]:
    """Return the epochs of the shorter schedule: one value within `AGREE` of the budget, else those below and above."""
    nearest = shorter(full, budget)
    if abs(nearest / full - budget) <= AGREE:
        return [nearest]
    return sorted({max(1, math.floor(full * budget)), math.ceil(full * budget)})
