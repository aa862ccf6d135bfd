"""Which classes each sample shows, and how well the model does on each class. `Selector` keeps it for strategies."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from det_seg_agent.errors import ConfigError, StateError
from det_seg_agent.ranks import gather_objects, world

PLACES = 8  # classes that are kept of a sample, those with the largest shares


class ClassShares:
    """The classes of each sample, 24 bytes a sample.

    Attributes:
        index: (num_samples, 8) int16, classes in descending order of their shares; -1 where there are fewer.
        share: (num_samples, 8) uint8, share of the sample's labels (objects or pixels) in 1/255, at least 1; 0 where
            there is no class.
        labels: (classes,) float64, objects or pixels of each class in the data set.
    """

    def __init__(self, index: Tensor, share: Tensor, labels: Tensor):
        self.index, self.share, self.labels = index, share, labels

    @classmethod
    def of(cls, counts: Iterable[np.ndarray]) -> "ClassShares":
        """Read the shares from the number of objects or pixels of each class, (classes,) for each sample."""
        found, shares, labels = [], [], np.zeros(0)
        for row in counts:
            top = np.argsort(-row, kind="stable")[:PLACES]
            there = row[top] > 0
            share = np.where(there, np.maximum(np.round(255 * row[top] / max(row.sum(), 1)), 1), 0)
            pad = (0, PLACES - len(top))
            found.append(np.pad(np.where(there, top, -1), pad, constant_values=-1).astype(np.int16))
            shares.append(np.pad(share, pad).astype(np.uint8))
            labels = row + (labels if len(labels) else 0.0)
        return cls(torch.from_numpy(np.stack(found)), torch.from_numpy(np.stack(shares)), torch.from_numpy(labels))

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Tensor) -> "ClassShares":
        """Return the classes of the samples `index` (n,)."""
        return ClassShares(self.index[index], self.share[index], self.labels)

    def of_sample(self, values: Tensor, empty: float) -> Tensor:
        """Return the mean of `values` (classes,) over each sample's classes, weighted by share.

        Returns:
            (num_samples,) float32; `empty` for samples without a class.
        """
        share = self.share.float()
        total = share.sum(1)
        mean = (values[self.index.long().clamp(min=0)] * share).sum(1) / total.clamp(min=1)
        return torch.where(total > 0, mean, empty)

    def largest(self, values: Tensor, empty: float) -> Tensor:
        """Return the largest of `values` (classes,) over each sample's classes, (num_samples,); `empty` without."""
        found = values[self.index.long().clamp(min=0)].masked_fill(self.index < 0, float("-inf")).amax(1)
        return torch.where(self.index[:, 0] >= 0, found, empty)

    def of_class(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return sums over samples of `values` (num_samples,) float32, weighted by share, for each class.

        Returns:
            (classes,) float64 twice: the sums of share times value, and of share.
        """
        share = self.share.double() / 255
        place = self.index.long().clamp(min=0).flatten()
        none = torch.zeros(len(self.labels), dtype=torch.float64)
        sums = none.index_add(0, place, (share * values.double()[:, None]).flatten())
        return sums, none.index_add(0, place, share.flatten())

    def images(self) -> Tensor:
        """Return the number of samples that show each class, (classes,) float32."""
        place = self.index.long()
        return torch.bincount(place[place >= 0], minlength=len(self.labels)).float()


class Classes:
    """The classes of a run: their names, the samples' shares of them, and the model's level on each.

    Args:
        names: names of the classes.
        read: reads the counts that `ClassShares.of` takes, one row a sample in the order of the data set. Called once,
            on rank 0, if the strategy needs them.

    Attributes:
        shares: the samples' classes; None if they were not needed.
        level: (classes,) float32 in [0, 1], right / (predicted + labelled - right) in the training forwards of the
            last pass (IoU by pixels, or the like by objects); NaN for classes that it did not show.
        passes: the levels of all passes, by pass index.
    """

    def __init__(self, names: Sequence[str], read: Callable[[], Iterable[np.ndarray]]):
        self.names, self._read = tuple(names), read
        self.shares: ClassShares | None = None
        self.level = torch.full((len(self.names),), float("nan"))
        self.passes: dict[int, list[float]] = {}
        self._here: Tensor | None = None  # counts of this process, on its device
        self._all: Tensor | None = None  # counts of all processes, on rank 0

    def __len__(self) -> int:
        return len(self.names)

    def read_shares(self, num_samples: int) -> ClassShares:
        """Return the shares, which the first call reads.

        Raises:
            ConfigError: if they are not of `num_samples` samples.
        """
        if self.shares is None:
            self.shares = ClassShares.of(self._read())
            if len(self.shares) != num_samples:
                raise ConfigError(f"the classes of {len(self.shares)} samples were given, there are {num_samples}.")
        return self.shares

    def add(self, counts: Tensor) -> None:
        """Add a mini-batch's whole numbers (3, classes): right, predicted and labelled; no synchronisation."""
        counts = counts.detach().long()
        self._here = counts if self._here is None else self._here + counts

    def clear(self) -> None:
        """Discard the counts of the current pass."""
        self._here = self._all = None

    def collect(self) -> None:
        """Add up the counts of all ranks on rank 0. This is a collective."""
        here, self._here = self._here, None
        parts = [
            part for part in (self._all, *gather_objects(None if here is None else here.cpu())) if part is not None
        ]
        self._all = sum(parts[1:], parts[0]) if parts and world()[0] == 0 else None

    def end_pass(self, pass_index: int) -> None:
        """Compute the levels from the counts of the pass, which `collect` has gathered."""
        if self._all is None:
            return
        right, predicted, labelled = self._all.double()
        level = right / (predicted + labelled - right)
        self.level = torch.where(labelled > 0, level, float("nan")).float()
        self.passes[pass_index] = self.level.tolist()

    def state_dict(self) -> dict[str, Any]:
        """Return names, levels, and the gathered counts of the current pass; the shares are read again."""
        return {"names": list(self.names), "level": self.level, "passes": self.passes, "counts": self._all}

    def load_state_dict(self, state: dict[str, Any], first: bool) -> None:
        """Restore the state that `state_dict` returned; `first` tells rank 0, which holds what all had counted.

        Raises:
            StateError: if it is of other classes.
        """
        if state["names"] != list(self.names):
            raise StateError(
                f"the saved state is of the classes {', '.join(state['names'][:8])}..., and this run has "
                f"{', '.join(self.names[:8])}... Resume with the same classes, or start a new run."
            )
        self.level, self.passes = state["level"].clone(), dict(state["passes"])
        self._here, self._all = None, state["counts"] if first else None
