"""The score table: one row per sample."""

from typing import Any

import torch
from torch import Tensor

from det_seg_agent.errors import StateError
from det_seg_agent.features import FeatureStore
from det_seg_agent.sums import SampleSignals


class ScoreTable:
    """What is known of every sample, as columns of length `num_samples`, 28 bytes a sample without features.

    Attributes:
        score: float32, last score that the strategy gave; NaN before the first.
        loss: float32, loss at last sight; NaN before the first.
        entropy: float32 in [0, 1], entropy at last sight; NaN before the first.
        sufficiency: float32 in [0, 1], min of precision and recall at last sight; NaN before, or where nobody tells it.
        seen: int32, passes that showed the sample.
        last_pass: int32, last pass that showed it; -1 before the first.
        selected: int32, passes that selected it.
        features: last feature vector of each sample, see `FeatureStore`; empty where the strategy keeps none.
    """

    COLUMNS = ("score", "loss", "entropy", "sufficiency", "seen", "last_pass", "selected")

    def __init__(self, num_samples: int):
        nan = float("nan")
        self.score = torch.full((num_samples,), nan)
        self.loss = torch.full((num_samples,), nan)
        self.entropy = torch.full((num_samples,), nan)
        self.sufficiency = torch.full((num_samples,), nan)
        self.seen = torch.zeros(num_samples, dtype=torch.int32)
        self.last_pass = torch.full((num_samples,), -1, dtype=torch.int32)
        self.selected = torch.zeros(num_samples, dtype=torch.int32)
        self.features = FeatureStore(num_samples)

    def __len__(self) -> int:
        return len(self.score)

    def update(self, signals: SampleSignals, pass_index: int) -> None:
        """Take the signals that pass `pass_index` gave of distinct samples."""
        self.loss[signals.index] = signals.loss
        self.entropy[signals.index] = signals.entropy
        self.sufficiency[signals.index] = signals.sufficiency
        self.seen[signals.index] += (self.last_pass[signals.index] != pass_index).int()
        self.last_pass[signals.index] = pass_index

    def show(self, index: Tensor, pass_index: int) -> None:
        """Note that pass `pass_index` walked over samples, also those that gave no finite signals."""
        self.last_pass[index] = pass_index

    def last(self, name: str) -> Tensor:
        """Return a signal's column, (num_samples,): NaN before the first sight, -inf where none was finite."""
        column: Tensor = getattr(self, name)
        return torch.where(column.isnan() & ~self.never_seen(), float("-inf"), column)

    def never_seen(self) -> Tensor:
        """Return a (num_samples,) bool mask."""
        return self.last_pass < 0

    def state_dict(self) -> dict[str, Any]:
        """Return the columns and the features."""
        return {**{name: getattr(self, name) for name in self.COLUMNS}, "features": self.features.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the columns.

        Raises:
            StateError: if they are of a data set of another size.
        """
        rows = len(state["score"])
        if rows != len(self):
            raise StateError(
                f"the saved state is of a data set of {rows} images, this one has {len(self)}. Resume on the data set "
                "that the run was started with, or start a new run."
            )
        for name in self.COLUMNS:
            setattr(self, name, state[name].clone())
        self.features.load_state_dict(state["features"])
