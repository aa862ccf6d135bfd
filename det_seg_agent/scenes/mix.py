"""`Mix`: what the rendered data set consists of. `scenes.compose` and `.folder` use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from det_seg_agent.errors import ConfigError
from det_seg_agent.scenes.draw import CATEGORIES, Array, Rng

Key = TypeVar("Key", str, int)


@dataclass(frozen=True)
class Mix:
    """What the training images consist of; `write_scenes` has the attributes. The images left are easy, or rare."""

    hard: int = 25
    duplicates: int = 35
    wrong_labels: int = 10
    classes: int = 4
    long_tail: int = 1
    class_colours: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError if an attribute is out of range."""
        for name in ("hard", "duplicates", "wrong_labels", "class_colours"):
            if not 0 <= getattr(self, name) <= 100:
                raise ConfigError(f"scenes: {name} is {getattr(self, name)}; give a percentage from 0 to 100")
        if self.hard + self.duplicates + self.wrong_labels > 100:
            raise ConfigError(
                f"scenes: hard, duplicates and wrong_labels are {self.hard}, {self.duplicates} and "
                f"{self.wrong_labels} percent, together above 100; lower one of them"
            )
        if not 2 <= self.classes <= len(CATEGORIES):
            raise ConfigError(f"scenes: classes is {self.classes}; give 2 to {len(CATEGORIES)}")
        if self.long_tail < 1:
            raise ConfigError(f"scenes: long_tail is {self.long_tail}; give 1 for classes of equal shares, or more")

    @property
    def shares(self) -> dict[str, float]:
        """Share of each kind of training image."""
        easy = 100 - self.hard - self.duplicates - self.wrong_labels
        kinds = {"easy": easy, "duplicate": self.duplicates, "hard": self.hard, "wrong": self.wrong_labels}
        return {kind: percentage / 100 for kind, percentage in kinds.items()}

    @property
    def names(self) -> dict[int, str]:
        """Name of each class by its number, from 1."""
        return dict(list(CATEGORIES.items())[: self.classes])

    @property
    def frequencies(self) -> Array:
        """Relative frequency of each class in the training images, falling geometrically."""
        return tail(self.classes, self.long_tail)

    @property
    def rare(self) -> frozenset[int]:
        """Classes with less than half of an equal share."""
        return frozenset(c for c in self.names if self.frequencies[c - 1] < 0.5 / self.classes)

    def draw(self, rng: Rng, but: int | None = None) -> int:
        """Return a random class by frequency, other than `but`."""
        if self.long_tail == 1:
            return int(rng.integers(1, self.classes + 1)) if but is None else self._next(but, rng)
        weights = self.frequencies.copy()
        if but is not None:
            weights[but - 1] = 0.0
        return 1 + int(rng.choice(self.classes, p=weights / weights.sum()))

    def _next(self, category: int, rng: Rng) -> int:
        return (category - 1 + int(rng.integers(1, self.classes))) % self.classes + 1


def tail(count: int, ratio: float) -> Array:
    """Return `count` shares (sum 1) that fall geometrically, the first `ratio` times the last."""
    weights = float(ratio) ** -(np.arange(count) / max(1, count - 1))
    return np.asarray(weights / weights.sum())


def apportion(shares: Mapping[Key, float], count: int) -> list[Key]:
    """Return `count` keys, apportioned to the shares by largest remainder, equal ones side by side."""
    exact = {key: share * count for key, share in shares.items()}
    counts = {key: int(value + 1e-9) for key, value in exact.items()}
    by_remainder = sorted(counts, key=lambda key: counts[key] - exact[key])
    for key in by_remainder[: count - sum(counts.values())]:
        counts[key] += 1
    return [key for key, number in counts.items() for _ in range(number)]
