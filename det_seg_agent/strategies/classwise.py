"""Strategies that read the classes of the samples: repeat factors by frequency, and the curated selection."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from det_seg_agent.classes import Classes, ClassShares
from det_seg_agent.strategies.base import StrategyOptions, register
from det_seg_agent.strategies.trust import Trust
from det_seg_agent.strategies.weights_to_selection import ByWeight
from det_seg_agent.sums import SampleSignals


def factors(shares: ClassShares, threshold: float | None, by: str, power: float) -> Tensor:
    """Return each class's repeat factor max(1, (t / f)^power), (classes,) float32; 1 for classes without samples.

    Gupta et al. 2019 (LVIS), section 4.2, have power 0.5 and f the share of images that show the class; Yaman et al.
    2023 (IRFS) have the geometric mean of that and of the class's share of all objects or pixels.

    Args:
        shares: the classes of the samples.
        threshold: t; None for the median of the classes' f.
        by: "images" or "labels", the first or the second f.
        power: exponent.
    """
    frequency = shares.images().double() / max(len(shares), 1)
    if by == "labels":
        frequency = (frequency * shares.labels / shares.labels.sum().clamp(min=1)).sqrt()
    shown = frequency > 0
    t = float(frequency[shown].quantile(0.5)) if threshold is None and bool(shown.any()) else threshold or 0.0
    return torch.where(shown, (t / frequency.clamp(min=1e-12)) ** power, 1.0).clamp(min=1).float()


class ByClass(ByWeight):
    """Base of strategies whose weights depend on the samples' classes, with repeats up to the option `cap`."""

    needs_classes = True
    repeats = True

    def __init__(self, table: Any, seed: int, options: Any):
        super().__init__(table, seed, options)
        self.cap = self.options.cap

    @property
    def classes(self) -> Classes:
        """The classes of the run."""
        assert self.table.classes is not None  # the selector refuses the strategy without them
        return self.table.classes

    @property
    def shares(self) -> ClassShares:
        """The samples' shares of them."""
        return self.classes.read_shares(len(self.table))


class RepeatOptions(StrategyOptions):
    """Options of `RepeatFactor`."""

    threshold: float | None = Field(
        None, gt=0, le=1, description="share of images below which a class is repeated, 0..1; null: the median class's"
    )
    by: Literal["images", "labels"] = Field("images", description="images (LVIS), or labels (instance-aware, IRFS)")
    cap: int = Field(4, ge=1, description="how often a selection may hold a sample")


@register("repeat_factor")
class RepeatFactor(ByClass):
    """Selects samples in proportion to the repeat factor of their rarest class (Gupta et al. 2019, LVIS)."""

    Options: ClassVar[type[BaseModel]] = RepeatOptions
    options: RepeatOptions

    def weights(self) -> Tensor:
        """Return the largest factor of each sample's classes."""
        return self.shares.largest(factors(self.shares, self.options.threshold, self.options.by, 0.5), 1.0)


class CuratedOptions(StrategyOptions):
    """Options of `Curated`."""

    trust: float = Field(2.0, ge=0, le=8, description="exponent of trust in a sample's weight; 0: it is ignored")
    known: float = Field(0.4, gt=0, le=1, description="factor of the sample that is known best; 1: that is ignored")
    rarity: float = Field(0.5, ge=0, le=1, description="exponent of rarity in a class's weight; 0: rarity is ignored")
    deficit: float = Field(0.5, ge=0, le=1, description="share of the class's deficit in its weight; 0: it is ignored")
    by: Literal["largest", "mean"] = Field("mean", description="a sample's class weight: its classes' largest or mean")
    cap: int = Field(2, ge=1, description="how often a selection may hold a sample")


@register("curated")
class Curated(ByClass):
    """Selects samples by what their classes need and by how far their labels are trusted; a rule, without learning."""

    Options: ClassVar[type[BaseModel]] = CuratedOptions
    options: CuratedOptions

    def __init__(self, table: Any, seed: int, options: CuratedOptions):
        super().__init__(table, seed, options)
        self.trust = Trust(len(table))

    def observe(self, samples: SampleSignals, pass_index: int, total_passes: int) -> None:
        """Update the trust from the signals of the pass."""
        self.trust.update(samples, self.shares)

    def needs(self) -> Tensor:
        """Return the weight of each class, (classes,) float32."""
        need = factors(self.shares, None, "images", self.options.rarity)
        level = self.classes.level
        known = level.isfinite()
        if self.options.deficit and bool(known.any()):
            lack = torch.where(known, 1 - level, 1 - level[known].mean())
            need = need * (1 - self.options.deficit + self.options.deficit * lack / lack[known].mean().clamp(min=1e-6))
        return need

    def weights(self) -> Tensor:
        """Return need times trust."""
        combine = self.shares.largest if self.options.by == "largest" else self.shares.of_sample
        return combine(self.needs(), 1.0) * self.trust.weights(self.options.trust, self.options.known)

    def state_dict(self) -> dict[str, Any]:
        """Return the round-robin priorities and the trust."""
        return {**super().state_dict(), "trust": self.trust.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self.trust.load_state_dict(state["trust"])
