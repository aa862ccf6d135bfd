"""The schedule: what fraction of the data set each pass selects. `Settings` inherits from it."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Schedule(BaseModel):
    """Ratio of each pass, as a pure function of the pass index.

    The first `warmup` passes and the last fraction `final_full` of the passes train on the whole data set (InfoBatch,
    ICLR 2024, and Data Agent use full data for the last 12.5 %). The other passes select `ratio` of it. `oscillating`
    alternates a low and a high phase with mean `ratio`, `period` passes together (PODS, arXiv 2605.14773).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    ratio: float = Field(0.6, gt=0, le=1, description="share of the data set in a selection, 0 < ratio <= 1")
    schedule: Literal["constant", "oscillating"] = Field("constant", description="constant or oscillating")
    low: float | None = Field(None, gt=0, le=1, description="ratio of the low phase (oscillating), 0 < low <= ratio")
    high: float | None = Field(
        None, gt=0, le=1, description="ratio of the high phase (oscillating), ratio <= high <= 1"
    )
    period: int = Field(2, ge=2, description="passes of one low and one high phase together, an even number >= 2")
    warmup: int = Field(1, ge=0, description="number of first passes over the whole data set, an integer >= 0")
    final_full: float = Field(0.125, ge=0, le=1, description="share of last passes over the whole data set, 0..1")

    @model_validator(mode="after")
    def _phases_meet_the_mean(self) -> "Schedule":
        if self.schedule == "constant":
            if self.low is not None or self.high is not None:
                raise ValueError("low and high belong to schedule=oscillating; remove them or set that schedule")
            if self.period != type(self).model_fields["period"].default:
                raise ValueError("period belongs to schedule=oscillating; remove it or set that schedule")
            return self
        if self.period % 2:
            raise ValueError(
                f"period={self.period} cannot hold a low and a high phase of equal length; use an even one"
            )
        low, high = self.phases()
        if not 0 < low <= self.ratio <= high <= 1 or abs((low + high) / 2 - self.ratio) > 1e-9:
            raise ValueError(
                f"low={low:g} and high={high:g} must lie in (0, 1] around ratio={self.ratio:g} and have it as their "
                "mean; give one of the two and the other follows"
            )
        return self

    def phases(self) -> tuple[float, float]:
        """Return the ratios (low, high); one that is not set follows from the mean. By default both avoid 0 and 1."""
        if self.low is None and self.high is None:
            swing = min(self.ratio, 1 - self.ratio) / 2
            return self.ratio - swing, self.ratio + swing
        low = self.low if self.low is not None else 2 * self.ratio - float(self.high or 0)
        high = self.high if self.high is not None else 2 * self.ratio - low
        return low, high

    def first_final_pass(self, total_passes: int) -> int:
        """Return the first of the final full passes, of which there are `final_full * total_passes`, rounded up."""
        return total_passes - math.ceil(round(total_passes * self.final_full, 9))  # .3 of 90 is 27, not 27.000000001

    def ratio_at(self, pass_index: int, total_passes: int) -> float:
        """Return the ratio, in (0, 1], of pass `pass_index` (from 0) in a run of `total_passes`."""
        if pass_index < self.warmup or pass_index >= self.first_final_pass(total_passes):
            return 1.0
        if self.schedule == "constant":
            return self.ratio
        low, high = self.phases()
        return low if (pass_index - self.warmup) % self.period < self.period // 2 else high

    def count_at(self, pass_index: int, total_passes: int, num_samples: int) -> int:
        """Return the number of samples that pass `pass_index` selects: rounded to the nearest integer, at least 1."""
        return max(1, min(num_samples, round(self.ratio_at(pass_index, total_passes) * num_samples)))

    def images(self, total_passes: int, num_samples: int) -> int:
        """Return the number of images that the whole run trains on."""
        return sum(self.count_at(p, total_passes, num_samples) for p in range(total_passes))

    def budget(self, total_passes: int, num_samples: int) -> float:
        """Return `images` divided by the images of training on full data, in (0, 1]."""
        return self.images(total_passes, num_samples) / (total_passes * num_samples)

    def selects(self, total_passes: int, num_samples: int | None = None) -> bool:
        """Return whether any pass has less than all samples; with `num_samples`, also after rounding."""
        passes = range(total_passes)
        if num_samples is None:
            return not all(is_full(self.ratio_at(p, total_passes)) for p in passes)
        return any(self.count_at(p, total_passes, num_samples) < num_samples for p in passes)

    def nothing_selected(self, total_passes: int, what: str, num_samples: int | None = None) -> str:
        """Return the warning of a run in which no pass selects although `ratio` is below 1, else an empty text.

        Args:
            total_passes: number of passes in the whole run.
            what: what the samples are called, as images.
            num_samples: see `selects`.
        """
        if is_full(self.ratio) or self.selects(total_passes, num_samples):
            return ""
        return (
            f"nothing will be selected: the {total_passes} passes of this run are all over all {what} "
            f"(agent.warmup={self.warmup}, agent.final_full={self.final_full:g}). Train longer, or set agent.warmup=0 "
            "or agent.final_full=0."
        )

    def describe(self, total_passes: int) -> str:
        """Return a one-line description of the schedule, in passes."""
        final = total_passes - max(self.first_final_pass(total_passes), min(self.warmup, total_passes))
        first = min(self.warmup, total_passes)
        low, high = self.phases()
        middle = f"ratio {self.ratio:g}"
        if self.schedule == "oscillating":
            middle = f"ratio {low:g} / {high:g} by turns of {self.period // 2}"
        return f"{first} full, {max(0, total_passes - first - final)} at {middle}, {final} full"


def is_full(ratio: float) -> bool:
    """Return whether `ratio` means the whole data set."""
    return math.isclose(ratio, 1.0)
