"""Suspected label errors: samples whose labels the model keeps disagreeing with. `reporting.samples` uses it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from det_seg_agent.classes import ClassShares
from det_seg_agent.strategies.trust import usual_of_classes
from det_seg_agent.table import ScoreTable

TELL = 0.5  # a suspect score from which on a reason is given


@dataclass(frozen=True)
class Suspects:
    """How far the labels of each sample are disagreed with.

    Attributes:
        score: (num_samples,) float32 in [0, 1]: 0 if the model agrees with the labels as much as with others of the
            same classes, 1 if in many passes it does not at all; NaN for samples without an agreement.
        agreement: (num_samples,) float32, mean over passes of the middle between agreement and least agreement, at the
            level that training has on average.
        usual: (num_samples,) float32, the same of the sample's classes.
    """

    score: Tensor
    agreement: Tensor
    usual: Tensor

    def why(self, index: int, passes: int) -> str:
        """Return the reason for a score of at least `TELL`; else an empty text."""
        if not float(self.score[index]) >= TELL:
            return ""
        often = "1 pass" if passes == 1 else f"{passes} passes"
        return f"agreement {self.agreement[index]:.2f} in {often}, usual for its classes {self.usual[index]:.2f}"


def suspects_of(table: ScoreTable, shares: ClassShares | None) -> Suspects:
    """Return the suspects of a run.

    The loss finds hard images as well; agreement compared within a class finds labels. The mean over an image's objects
    hides a wrong one among right ones, and the least doubts images of many objects; what counts is the middle of both.
    A sample that was trained on in early passes alone would look worse than it is, so what counts is its difference to
    the mean of each pass.

    Args:
        table: the score table.
        shares: the classes of the samples; None if they are unknown, so that all samples are compared with each other.
    """
    known = table.agreed > 0
    passes = table.agreed.clamp(min=1).float()
    mean = table.level_sum / passes
    overall = mean[known].mean() if bool(known.any()) else torch.tensor(float("nan"))
    level = torch.where(known, overall + table.gap_sum / passes, float("nan"))
    usual = overall.expand(len(table))
    if shares is not None and bool(known.any()):
        index = known.nonzero().squeeze(1)
        usual = shares.of_sample(usual_of_classes(shares.take(index), level[index], overall), float(overall))
    # Few passes say little: as if half a pass more had been as usual.
    score = (1 - level / usual.clamp(min=1e-6)).clamp(0, 1) * table.agreed / (table.agreed + 0.5)
    return Suspects(score, level.clamp(0, 1), usual)
