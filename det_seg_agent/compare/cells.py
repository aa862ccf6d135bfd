"""The cells of a comparison: one training run each."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from det_seg_agent import __version__
from det_seg_agent.schedule import Schedule
from det_seg_agent.settings import Settings, parse
from det_seg_agent.strategies import strategy_class

FULL, SHORT, RANDOM = "full", "full, shorter", "random"
Role = Literal["full", "short", "selection"]
MANY = 1_000_000  # samples at which a selection's rounding to whole samples no longer counts


@dataclass(frozen=True)
class Cell:
    """One training run.

    Attributes:
        task: detection or segmentation.
        role: full data at the full schedule, full data on a shorter one, or a selection.
        label: of the strategy, as the tables have it.
        ratio: of the selection, or of the selections whose budget the shorter schedule has; 1 for `full`.
        seed: of the host and of everything that we draw.
        agent: settings of ours.
        host, data, scenes, config, config_text, iterations: see `Block`; `data` is resolved.
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
    config_text: str | None = None
    iterations: int | None = None

    @cached_property
    def key(self) -> str:
        """Return the hash by which a finished cell is known: of all settings, our defaults too, and of our version."""
        settings = parse(Settings, self.agent)
        cls = strategy_class(settings.strategy)
        options = cls.resolved(parse(cls.Options, settings.options), settings.preset).model_dump()
        known = {**asdict(self), "config": None, "version": __version__, "settings": settings.model_dump()}
        text = json.dumps({**known, "options": options}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Return what people and `--only` call it."""
        ratio = "" if self.role == "full" else f" {self.ratio:g}"
        return f"{self.task} {self.label}{ratio} seed {self.seed}"

    @property
    def folder(self) -> str:
        """Return the name of its folder; with other settings it has another, so that nothing is overwritten."""
        words = "".join(c if c.isalnum() or c in ".-" else "-" for c in self.name.replace(",", ""))
        return f"{words}-{self.key[:8]}"

    @property
    def budget(self) -> float:
        """Return about the budget to come: before rounding, and for segmentation as if there were many passes."""
        if self.role == "full":
            return 1.0
        passes = int(self.host["epochs"]) if self.task == "detection" else 100
        return self.schedule().budget(passes, MANY)

    def schedule(self) -> Schedule:
        """Return the schedule of the selection, or of that whose budget is matched."""
        known = {k: v for k, v in self.agent.items() if k in Schedule.model_fields}
        return parse(Schedule, {**known, "ratio": self.ratio}, "agent.")


def shorter(length: int, budget: float) -> int:
    """Return `length` times the budget to the nearest integer, halves up: the control is not to get less."""
    return max(1, math.floor(length * budget + 0.5))
