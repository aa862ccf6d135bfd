"""The data loader of selections, and helpers that read or adjust the host's own loader. The trainers use both."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from det_seg_agent.det.compat import optional, setting
from det_seg_agent.det.dataset import IndexedDataset
from det_seg_agent.sampler import SelectionSampler
from det_seg_agent.selector import Selector

# The samplers that do not shuffle; the second one is for rectangular batches in several processes (from 8.4.0).
IN_ORDER = tuple(cls for cls in (SequentialSampler, optional("data.build", "ContiguousDistributedSampler")) if cls)


class SelectionLoader(DataLoader[dict[str, Any]]):
    """Yields the batches of the sampler's current selection, without prefetching from an older one.

    The host's infinite loader prefetches across epochs. Torch's loader with persistent workers restarts the sampler
    in each pass and keeps the workers. The host's trainer calls `reset` and `close`. No batch is dropped: the sampler
    pads the last one if necessary.
    """

    def __init__(self, dataset: IndexedDataset, sampler: SelectionSampler, stock: Any):
        persistent = stock.num_workers > 0
        super().__init__(dataset, sampler=sampler, persistent_workers=persistent, **shared_arguments(stock, dataset))

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yield the batches; fetching starts at the first `next`, as the host creates iterators that it never uses."""
        yield from super().__iter__()

    def close(self) -> None:
        """Shut down the workers."""
        if self._iterator is not None:
            if self.num_workers:
                self._iterator._shutdown_workers()  # type: ignore[attr-defined]
            self._iterator = None

    reset = close


def shared_arguments(stock: Any, dataset: IndexedDataset) -> dict[str, Any]:
    """Return the arguments of a `DataLoader` over `dataset` that are those of the host's loader."""
    names = ("batch_size", "num_workers", "pin_memory", "worker_init_fn", "generator", "prefetch_factor")
    return {"collate_fn": dataset.collate, **{name: getattr(stock, name) for name in names}}


def shuffles(loader: Any) -> bool:
    """Return whether the host's loader shuffles; with `rect` it does so only if all batches have the same shape."""
    in_order = isinstance(loader.sampler, IN_ORDER)
    return not in_order and getattr(loader.sampler, "shuffle", True)


def images_of_a_pass(loader: Any) -> int:
    """Return the number of images that the host's loader yields on this rank per pass, without a dropped batch."""
    return min(len(loader) * loader.batch_size, len(loader.sampler))


def batches_of_a_run(selector: Selector, batch: int) -> int:
    """Return the total number of batches, of `batch` images per rank, in all passes of a run."""
    schedule, passes, size = selector.settings, selector.total_passes, batch * selector.world_size
    return sum(-(-schedule.count_at(p, passes, len(selector)) // size) for p in range(passes))


def needs_whole_batches(args: Any, stride: int) -> bool:
    """Return whether the last batch of a selection must be as large as the others.

    With `compile` the host drops a smaller last batch. It also refuses a last batch of one image if batch
    normalisation would get a single value per channel. It decides both for the full data set (ultralytics 8.4.190).
    """
    smallest = max(stride, int(args.imgsz * (1 - args.multi_scale))) // stride * stride
    return bool(setting(args, "compile")) or smallest < 2 * stride


def shown_samples(selector: Selector, images: list[int]) -> Tensor:
    """Return the samples (n,) int64 that a pass trained on, given the number of images of each rank.

    With `strategy=full` the order is the host's and unknown: an incomplete pass returns no samples, and only those
    with signals count.
    """
    order = selector.sampler.order()
    if sum(images) >= len(order):
        return selector.selection.indices
    if selector.selects_all:
        return order[:0]
    return torch.cat([order[rank :: len(images)][:count] for rank, count in enumerate(images)])


def host_loader(stock: Any, dataset: IndexedDataset) -> Any:
    """Return a loader of the host's class that reads from `dataset`, and is `stock` in all else.

    It shares the sampler and the generator of `stock`, which has not been walked yet, so that batches are the same.
    """
    shared = shared_arguments(stock, dataset)
    return type(stock)(dataset, sampler=stock.sampler, drop_last=stock.drop_last, **shared)
