"""The current pass, where the workers of a loader see it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from det_seg_agent.errors import ConfigError


class SharedPass:
    """The current pass in shared memory, so that it reaches running workers.

    It takes 4 bytes a sample: 8 where the strategy weighs samples; with rectangular batches 4 more and 16 a batch.

    Attributes:
        members: (N,) int32, the selection, rising, in its first `count` places.
        weight: (N,) float32, factor of a sample's loss; None where the strategy does not weigh samples.
        batch: (N,) int32, the sample's batch; None without rectangular batches.
        shapes: (batches, 2) int64, height and width of each batch; None without rectangular batches.
        meta: (3,) int64: pass, count, whether weights are in force.
    """

    def __init__(self, num_samples: int, weighs: bool = False, batches: int = 0):
        self.members = torch.arange(num_samples, dtype=torch.int32).share_memory_()
        self.weight = torch.ones(num_samples).share_memory_() if weighs else None
        self.batch = torch.zeros(num_samples, dtype=torch.int32).share_memory_() if batches else None
        self.shapes = torch.zeros(batches, 2, dtype=torch.int64).share_memory_() if batches else None
        self.meta = torch.tensor([-1, num_samples, 0]).share_memory_()

    def __len__(self) -> int:
        return len(self.members)

    @property
    def selection(self) -> np.ndarray:
        """The selection (count,) int32, rising."""
        return self.members.numpy()[: int(self.meta[1])]

    def set(self, pass_index: int, indices: Tensor, weights: Tensor | None) -> None:
        """Make `indices` (n,), rising, the selection of pass `pass_index`.

        Raises:
            ConfigError: for weights of a strategy that does not say that it weighs samples.
        """
        if weights is not None:
            if self.weight is None:
                raise ConfigError(
                    "the strategy gives weights; set `weighs = True` in its class, so that they are used."
                )
            self.weight.fill_(1)
            self.weight[indices] = weights
        self.members[: len(indices)] = indices
        self.meta.copy_(torch.tensor([pass_index, len(indices), int(weights is not None)]))

    def set_shapes(self, order: list[int], batch: int, largest: Any) -> None:
        """Batch `order` by `batch`; `largest` returns the shape (2,) int64 that holds all of some samples.

        Samples of the first batches may fill up the last one: batches that share a sample get one shape.
        """
        assert self.batch is not None and self.shapes is not None
        first: dict[int, int] = {}  # batch that shows a sample first
        for number, start in enumerate(range(0, len(order), batch)):
            rows = np.asarray(order[start : start + batch])
            self.batch[rows] = number
            self.shapes[number] = torch.from_numpy(largest(rows))
            alike = sorted({first.setdefault(int(row), number) for row in rows} | {number})
            self.shapes[alike] = self.shapes[alike].amax(0)
