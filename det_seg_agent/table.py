"""The score table: what is known of each sample. `Selector` updates it and strategies read it."""

from typing import Any

import torch
from torch import Tensor

from det_seg_agent.classes import Classes
from det_seg_agent.features import FeatureStore
from det_seg_agent.sums import SampleSignals

EARLIER = -2  # the pass of an earlier run


class ScoreTable:
    """One row per sample, stored as columns of shape (num_samples,); 52 bytes a sample without features.

    Attributes:
        score: float32, last score from the strategy; NaN before the first.
        loss: float32, last observed loss; NaN until first observed.
        entropy: float32 in [0, 1], last observed entropy; NaN until first observed.
        sufficiency: float32 in [0, 1], last observed min of precision and recall; NaN until first observed, or if the
            adapter does not provide it.
        agreement: float32 in [0, 1], last observed probability of the labels; NaN until first observed, or if the
            adapter does not provide it.
        seen: int32, number of passes that observed the sample.
        last_pass: int32, last pass that trained on the sample; -1 before the first, `EARLIER` if an earlier run did.
        selected: int32, number of times that the sample was selected.
        loss_sum: float32, sum of the losses of all passes that observed the sample.
        agreed: int32, number of passes with an agreement.
        agreement_sum: float32, sum of the agreements of these passes.
        level_sum: float32, the same sum of the middle between agreement and least agreement.
        gap_sum: float32, that of the middle less the mean one of its pass, which rises during training.
        classes: the classes of the samples, where the adapter tells them; else None.
        features: last feature vector of each sample, see `FeatureStore`; empty if the strategy keeps none.
    """

    COLUMNS = ("score", "loss", "entropy", "sufficiency", "agreement", "seen", "last_pass", "selected")
    SUMS = ("loss_sum", "agreed", "agreement_sum", "level_sum", "gap_sum")

    def __init__(self, num_samples: int, classes: Classes | None = None):
        self.classes = classes
        nan = float("nan")
        self.score = torch.full((num_samples,), nan)
        self.loss = torch.full((num_samples,), nan)
        self.entropy = torch.full((num_samples,), nan)
        self.sufficiency = torch.full((num_samples,), nan)
        self.agreement = torch.full((num_samples,), nan)
        self.seen = torch.zeros(num_samples, dtype=torch.int32)
        self.last_pass = torch.full((num_samples,), -1, dtype=torch.int32)
        self.selected = torch.zeros(num_samples, dtype=torch.int32)
        self.loss_sum = torch.zeros(num_samples)
        self.agreed = torch.zeros(num_samples, dtype=torch.int32)
        self.agreement_sum, self.level_sum, self.gap_sum = torch.zeros(3, num_samples).unbind()
        self.features = FeatureStore(num_samples)

    def __len__(self) -> int:
        return len(self.score)

    def update(self, signals: SampleSignals, pass_index: int) -> None:
        """Store the signals of pass `pass_index`."""
        self.loss[signals.index] = signals.loss
        self.entropy[signals.index] = signals.entropy
        self.sufficiency[signals.index] = signals.sufficiency
        self.agreement[signals.index] = signals.agreement
        new = self.last_pass[signals.index] != pass_index
        self.seen[signals.index] += new.int()
        self.loss_sum[signals.index] += signals.loss.where(new, 0)
        known = new & signals.agreement.isfinite()
        if bool(known.any()):
            index, agreement = signals.index[known], signals.agreement[known]
            level = (agreement + signals.least_agreement[known]) / 2
            self.agreed[index] += 1
            self.agreement_sum[index] += agreement
            self.level_sum[index] += level
            self.gap_sum[index] += level - level.mean()
        self.last_pass[signals.index] = pass_index

    def show(self, index: Tensor, pass_index: int) -> None:
        """Record that pass `pass_index` trained on samples `index`, including those without finite signals."""
        self.last_pass[index] = pass_index

    def last(self, name: str) -> Tensor:
        """Return a signal's column (num_samples,): NaN if never trained on, -inf if no observation was finite."""
        column: Tensor = getattr(self, name)
        return torch.where(column.isnan() & ~self.never_seen(), float("-inf"), column)

    def never_seen(self) -> Tensor:
        """Return the mask (num_samples,) of samples that no pass has trained on, nor an earlier run."""
        return self.last_pass == -1

    def start(self, signals: SampleSignals, score: Tensor) -> None:
        """Take over the signals and scores (U,) of samples from an earlier run; sums and counts stay at zero."""
        for name in ("loss", "entropy", "sufficiency", "agreement"):
            getattr(self, name)[signals.index] = getattr(signals, name)
        self.score[signals.index] = score
        self.last_pass[signals.index] = EARLIER

    def state_dict(self) -> dict[str, Any]:
        """Return the columns and the features."""
        columns = {name: getattr(self, name) for name in (*self.COLUMNS, *self.SUMS)}
        return {**columns, "features": self.features.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned, of as many samples."""
        for name in (*self.COLUMNS, *self.SUMS):
            setattr(self, name, state[name].clone())
        self.features.load_state_dict(state["features"])
