"""A loader that starts each pass afresh and keeps its workers, and what the host's own loader decided."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler
from ultralytics.data.build import ContiguousDistributedSampler

from det_seg_agent.det.dataset import IndexedDataset
from det_seg_agent.sampler import SelectionSampler
from det_seg_agent.selector import Selector

NEVER = 1 << 60  # batches


class SelectionLoader(DataLoader[dict[str, Any]]):
    """Yields the batches of the sampler's current selection, and nothing that was drawn ahead from an older one.

    The host's infinite loader fetches across epochs; torch's own, with persistent workers, asks the sampler anew at
    each pass and keeps the workers. `reset` and `close` are what the host's trainer calls. No batch is dropped: the
    sampler fills up the last one where that is needed.
    """

    def __init__(self, dataset: IndexedDataset, sampler: SelectionSampler, stock: Any):
        workers = stock.num_workers
        super().__init__(
            dataset,
            batch_size=stock.batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=dataset.collate,
            pin_memory=stock.pin_memory,
            worker_init_fn=stock.worker_init_fn,
            generator=stock.generator,
            prefetch_factor=stock.prefetch_factor,
            persistent_workers=workers > 0,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Start at the first `next`, not before: the host makes iterators that it never uses."""
        yield from super().__iter__()

    def close(self) -> None:
        """Shut the workers down."""
        if self._iterator is not None:
            if self.num_workers:
                self._iterator._shutdown_workers()  # type: ignore[attr-defined]
            self._iterator = None

    reset = close


def shuffles(loader: Any) -> bool:
    """Return whether the host's loader shuffles: with `rect` it does so where all batches have one shape."""
    in_order = isinstance(loader.sampler, SequentialSampler | ContiguousDistributedSampler)
    return not in_order and getattr(loader.sampler, "shuffle", True)


def images_of_a_pass(loader: Any) -> int:
    """Return the images of this rank that the host's loader yields in a pass: without the batch that it drops."""
    return min(len(loader) * loader.batch_size, len(loader.sampler))


def batches_of_a_run(selector: Selector, batch: int) -> int:
    """Return the batches, of `batch` images a rank, that all passes of a run have together."""
    schedule, passes, size = selector.settings, selector.total_passes, batch * selector.world_size
    return sum(-(-schedule.count_at(p, passes, len(selector)) // size) for p in range(passes))


def needs_whole_batches(args: Any, stride: int) -> bool:
    """Return whether the last batch of a selection may not be smaller than the others.

    The host decides both of all images: with `compile` it drops a last batch that is smaller, and it refuses one of a
    single image where batch normalization would get a single value per channel (ultralytics 8.4.190).
    """
    smallest = max(stride, int(args.imgsz * (1 - args.multi_scale))) // stride * stride
    return bool(args.compile) or smallest < 2 * stride


def shown_samples(selector: Selector, images: list[int]) -> Tensor:
    """Return the samples of the selection, (n,) int64, that a pass trained on, given the images of each rank.

    With `full` the order is that of the host's loader: of a pass that was not whole, signals tell what it showed.
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
    return type(stock)(
        dataset,
        batch_size=stock.batch_size,
        sampler=stock.sampler,
        num_workers=stock.num_workers,
        collate_fn=dataset.collate,
        pin_memory=stock.pin_memory,
        drop_last=stock.drop_last,
        worker_init_fn=stock.worker_init_fn,
        generator=stock.generator,
        prefetch_factor=stock.prefetch_factor,
    )
