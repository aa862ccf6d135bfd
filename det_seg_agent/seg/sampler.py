"""The sampler of the training data loader, which users set in their config and the loops attach to a run."""

import itertools
from collections.abc import Iterator, Sized
from typing import Any

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from det_seg_agent.errors import ConfigError
from det_seg_agent.messages import LOGGER
from det_seg_agent.sampler import SelectionSampler


@DATA_SAMPLERS.register_module()
class AgentSampler(Sampler[int]):
    """Yields the current selection once per `iter`, from a sampler that one of our loops attaches.

    Set it as `train_dataloader = dict(sampler=dict(_delete_=True, type='AgentSampler'))`.

    Args:
        dataset: the training set; the host passes it.
        shuffle: whether to shuffle in each pass.
        seed: seed of the host's own samplers, which `strategy=full` uses; the host passes it.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None):
        self.dataset, self.shuffle, self.seed = dataset, shuffle, seed
        self.source: Sampler[int] | None = None
        self.skip = 0

    def attach(self, source: Sampler[int]) -> None:
        """Yield from `source` from now on: a `SelectionSampler`, or a sampler of the host."""
        self.source = source

    def _attached(self) -> Sampler[int]:
        if self.source is None:
            raise ConfigError(
                "AgentSampler belongs to a loop of det_seg_agent: set train_cfg = dict(type='AgentIterLoop') or "
                "dict(type='AgentEpochLoop') and add dict(type='AgentHook') to custom_hooks."
            )
        return self.source

    def __iter__(self) -> Iterator[int]:
        skip, self.skip = self.skip, 0
        return itertools.islice(iter(self._attached()), skip, None)

    def __len__(self) -> int:
        source = self.source
        return len(self.dataset) if source is None else len(source)  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        """Forward the epoch to a sampler of the host; for a `SelectionSampler` our loop sets the pass."""
        source = self._attached()
        if not isinstance(source, SelectionSampler) and hasattr(source, "set_epoch"):
            source.set_epoch(epoch)


def stock_sampler(sampler: AgentSampler, by_iterations: bool, seed: int | None) -> Sampler[int]:
    """Return the host's usual sampler for a loop: an infinite one if it counts iterations, else one for epochs."""
    cls = InfiniteSampler if by_iterations else DefaultSampler
    return cls(sampler.dataset, shuffle=sampler.shuffle, seed=sampler.seed if seed is None else seed)


def check_loader(loader: Any) -> None:
    """Refuse a training loader that cannot yield selections; warn if it restarts its workers in each pass.

    Raises:
        ConfigError: unless its sampler is an `AgentSampler` and its batch size is fixed.
    """
    if not isinstance(loader.sampler, AgentSampler) or loader.batch_size is None:
        raise ConfigError(
            f"train_dataloader.sampler.type={type(loader.sampler).__name__!r} does not yield selections. Set "
            "train_dataloader = dict(sampler=dict(_delete_=True, type='AgentSampler')), and no batch_sampler."
        )
    if loader.num_workers and not loader.persistent_workers:
        LOGGER.warning("train_dataloader.persistent_workers=False: workers restart at each pass.")
