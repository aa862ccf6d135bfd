"""A sampler that walks the current selection."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from det_seg_agent.errors import ConfigError
from det_seg_agent.features import BLOCK
from det_seg_agent.seeding import generator


class SelectionSampler(Sampler[int]):
    """Yields the indices of the selection in an order that follows from (seed, pass), this rank's share of it.

    All ranks yield equally many, a multiple of `batch`: where the selection does not divide, the first ones of the
    order are walked twice (`padding` says how many). Slicing by rank is `DistributedSampler`'s.

    Args:
        num_samples: size of the data set; the selection before the first `set_selection` is all of it.
        seed: the same on every rank.
        rank, world_size: this process, and how many there are.
        shuffle: False keeps rising index order, as rectangular batches need.
        batch: samples in a mini-batch of one rank, where no mini-batch may be smaller than the others.

    Raises:
        ConfigError: if there is nothing to sample from, or the rank is impossible.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        batch: int = 1,
    ):
        if num_samples < 1:
            raise ConfigError(f"num_samples={num_samples}: there is nothing to sample from; check the data set's path.")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank} does not lie in 0..{world_size - 1} (world_size={world_size}).")
        self.seed, self.rank, self.world_size, self.shuffle = seed, rank, world_size, shuffle
        self.batch, self.epoch = batch, 0
        self.indices = torch.arange(num_samples)

    @property
    def padding(self) -> int:
        """How many samples are walked twice in this pass, over all ranks."""
        return -len(self.indices) % (self.world_size * self.batch)

    def set_selection(self, indices: Tensor) -> None:
        """Walk over `indices` (n,) int64 from the next `iter` on."""
        if not len(indices):
            raise ConfigError("the selection is empty; raise agent.ratio.")
        self.indices = indices.to("cpu", torch.int64)

    def set_epoch(self, epoch: int) -> None:
        """Set the pass that the order follows from."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return the order over all ranks, padded, (len(self) * world_size,) int64."""
        order = self.indices
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=generator(self.seed, "order", self.epoch))]
        return torch.cat([order, order.repeat(-(-self.padding // len(order)))[: self.padding]])

    def __iter__(self) -> Iterator[int]:
        for block in self.order()[self.rank :: self.world_size].split(BLOCK):  # as Python ints all are 40 bytes each
            yield from block.tolist()

    def __len__(self) -> int:
        return (len(self.indices) + self.padding) // self.world_size
