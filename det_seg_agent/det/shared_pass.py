"""The current pass in shared memory; `det.dataset` sets it, and the loader's workers read it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from det_seg_agent.errors import ConfigError


class SharedPass:
    """The current pass in shared memory, visible to running workers.

    It takes 4 bytes a sample, or 8 with weights; rectangular batches take 4 more, and 16 bytes a batch.

    Attributes:
        members: (N,) int32; its first `count` entries are the selection, ascending.
        weight: (N,) float32, loss weight of each sample; None if the strategy has no weights.
        batch: (N,) int32, batch of each sample; None without rectangular batches.
        shapes: (batches, 2) int64, height and width in pixels of each batch; None without rectangular batches.
        meta: (3,) int64: index of the pass, count, and whether the selection has weights.
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
        """The selection, (count,) int32, ascending."""
        return self.members.numpy()[: int(self.meta[1])]

    def set(self, pass_index: int, indices: Tensor, weights: Tensor | None) -> None:
        """Make `indices` (n,), ascending, the selection of pass `pass_index`.

        Raises:
            ConfigError: if there are weights but the strategy's `weighs` is False.
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
        """Set the shapes of rectangular batches.

        The last batch may repeat samples of the first ones; batches that share a sample get the same shape.

        Args:
            order: samples in the order of training.
            batch: batch size.
            largest: returns the smallest shape (2,) int64 that fits all given samples.
        """
        assert self.batch is not None and self.shapes is not None
        first: dict[int, int] = {}  # first batch of each sample
        for number, start in enumerate(range(0, len(order), batch)):
            rows = np.asarray(order[start : start + batch])
            self.batch[rows] = number
            self.shapes[number] = torch.from_numpy(largest(rows))
            alike = sorted({first.setdefault(int(row), number) for row in rows} | {number})
            self.shapes[alike] = self.shapes[alike].amax(0)
