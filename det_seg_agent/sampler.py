"""The sampler that yields the current selection to a data loader. `Selector` owns one."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from det_seg_agent.errors import ConfigError
from det_seg_agent.features import BLOCK
from det_seg_agent.seeding import generator


class SelectionSampler(Sampler[int]):
    """Yields this rank's part of the selection, in an order that is a function of (seed, pass).

    All ranks yield the same number of indices, a multiple of `batch`. If the selection is not divisible, the first
    indices of the order are repeated (`padding` is their number). Ranks are sliced as in `DistributedSampler`.

    Args:
        num_samples: size of the data set; all of it is selected until the first `set_selection`.
        seed: random seed, the same on every rank.
        rank, world_size: rank of this process and number of processes.
        shuffle: False yields indices in ascending order, as rectangular batches need.
        batch: mini-batch size per rank if all mini-batches must be of that size, else 1.

    Raises:
        ConfigError: if `num_samples` is below 1 or `rank` is not in 0..world_size - 1.
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
        """Number of repeated indices in this pass, over all ranks."""
        return -len(self.indices) % (self.world_size * self.batch)

    def set_selection(self, indices: Tensor) -> None:
        """Yield `indices` (n,) int64 from the next `iter` on.

        Raises:
            ConfigError: if `indices` is empty.
        """
        if not len(indices):
            raise ConfigError("the selection is empty; raise agent.ratio.")
        self.indices = indices.to("cpu", torch.int64)

    def set_epoch(self, epoch: int) -> None:
        """Set the index of the pass, which determines the order."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return the padded order over all ranks, (len(self) * world_size,) int64."""
        order = self.indices
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=generator(self.seed, "order", self.epoch))]
        return torch.cat([order, order.repeat(-(-self.padding // len(order)))[: self.padding]])

    def __iter__(self) -> Iterator[int]:
        for block in self.order()[self.rank :: self.world_size].split(BLOCK):  # in blocks: a Python int takes 40 bytes
            yield from block.tolist()

    def __len__(self) -> int:
        return (len(self.indices) + self.padding) // self.world_size
