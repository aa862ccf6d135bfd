"""`PassReport`: the figures of a finished pass."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PassReport:
    """Figures of a finished pass; NaN for those that the strategy does not compute."""

    pass_index: int
    ratio: float
    selected: int  # samples in the selection
    total: int  # samples in the data set
    new: float  # share of the selected samples that the selection before did not hold
    images: int  # images trained on so far
    dropped: int  # images whose signals were not finite
    balance: float  # w, see reward.balance
    reward: float  # mean reward
    policy_entropy: float  # nats

    def line(self) -> str:
        """Return a one-line summary of the pass."""
        text = (
            f"pass {self.pass_index + 1}: selected {self.selected}/{self.total} ({self.ratio:.0%}), new {self.new:.0%}"
        )
        for name, value in (("w", self.balance), ("reward", self.reward), ("policy entropy", self.policy_entropy)):
            if value == value:
                text += f", {name} {value:.3f}"
        return text + (f", {self.dropped} images without finite signals" if self.dropped else "")
