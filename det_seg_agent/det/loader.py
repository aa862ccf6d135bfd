"""A loader that starts each pass afresh and keeps its workers."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from det_seg_agent.det.dataset import IndexedDataset
from det_seg_agent.sampler import SelectionSampler


class SelectionLoader(DataLoader[dict[str, Any]]):
    """Yields the batches of the sampler's current selection, and nothing that was drawn ahead from an older one.

    The host's infinite loader fetches across epochs; torch's own, with persistent workers, asks the sampler anew at
    each pass and keeps the workers. `reset` and `close` are what the host's trainer calls.
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
            drop_last=stock.drop_last,
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
