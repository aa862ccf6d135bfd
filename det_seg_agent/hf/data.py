"""Batches that know the indices of their samples, and the order of a selection. `hf.trainer` gives them to the host."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, Subset, get_worker_info

from det_seg_agent.classes import Classes
from det_seg_agent.errors import ConfigError
from det_seg_agent.sampler import SelectionSampler
from det_seg_agent.seeding import derive_seed

KEY = "det_seg_agent_index"  # of a batch: data set index of each sample, (B,) int64


class Numbered(Dataset[Any]):
    """A data set whose items come with their index.

    Args:
        dataset: the user's data set, with `__len__` and `__getitem__`.
        seed: seeds Python, NumPy and torch for each batch, by pass and samples: random augmentation is then the same
            after a resume, however many workers there are. None leaves the generators alone.
    """

    def __init__(self, dataset: Any, seed: int | None):
        self.dataset, self.seed = dataset, seed
        self._pass = torch.zeros(1, dtype=torch.int64).share_memory_()  # workers that persist see it change

    def __len__(self) -> int:
        return len(self.dataset)

    def set_pass(self, index: int) -> None:
        """Set the pass, which the seeds follow."""
        self._pass[0] = index

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]

    def __getitems__(self, indices: list[int]) -> list[tuple[int, Any]]:
        """Return the items of a batch, as torch's fetcher asks for them."""
        with self._seeded(indices):
            if hasattr(self.dataset, "__getitems__"):
                items = self.dataset.__getitems__(indices)
            else:
                items = [self.dataset[index] for index in indices]
        return list(zip(indices, items, strict=True))

    @contextmanager
    def _seeded(self, indices: list[int]) -> Iterator[None]:
        if self.seed is None:
            yield
            return
        held = None
        if get_worker_info() is None:  # the training itself draws from these generators
            held = random.getstate(), np.random.get_state(), torch.get_rng_state()
        seed = derive_seed(self.seed, "data", int(self._pass), *indices)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            if held is not None:
                random.setstate(held[0])
                np.random.set_state(held[1])
                torch.set_rng_state(held[2])


class NumberedCollator:
    """Collates the items of `Numbered` by the user's collator, and adds their indices to the batch."""

    def __init__(self, collate: Callable[[list[Any]], Any]):
        self.collate = collate

    def __call__(self, features: Sequence[tuple[int, Any]]) -> Any:
        """Return the batch.

        Raises:
            ConfigError: if the user's collator returns no dict.
        """
        batch = self.collate([item for _, item in features])
        if not isinstance(batch, Mapping):
            raise ConfigError(
                f"data_collator: it returns {type(batch).__name__}, and a batch has to be a dict of tensors, as those "
                "of transformers return."
            )
        batch[KEY] = torch.tensor([index for index, _ in features])  # type: ignore[index]
        return batch


class WholeOrder(Sampler[int]):
    """The order of the current selection over all processes, which the host splits by batches."""

    def __init__(self, source: SelectionSampler):
        self.source = source

    def __iter__(self) -> Iterator[int]:
        yield from self.source.order().tolist()

    def __len__(self) -> int:
        return len(self.source) * self.source.world_size


def files_of(dataset: Any) -> list[str] | None:
    """Return the image file of each sample where the data set says it, as torchvision's `ImageFolder`; else None."""
    if isinstance(dataset, Subset):
        whole = files_of(dataset.dataset)
        return None if whole is None else [whole[i] for i in dataset.indices]
    found = getattr(dataset, "files", None) or getattr(dataset, "samples", None)
    if not isinstance(found, Sequence) or len(found) != len(dataset):
        return None
    first = [row[0] if isinstance(row, tuple | list) else row for row in found]
    return [str(path) for path in first] if all(isinstance(path, str | Path) for path in first) else None


def classes_of(dataset: Any, names: Mapping[int, str] | None) -> Classes | None:
    """Return the classes of an image folder, whose `targets` are in memory; None of other data sets.

    Args:
        dataset: the training set.
        names: the classes' names, by their number.
    """
    indices: Sequence[int] | None = None
    while isinstance(dataset, Subset):
        indices = dataset.indices if indices is None else [dataset.indices[i] for i in indices]
        dataset = dataset.dataset
    targets = getattr(dataset, "targets", None)
    if not names or targets is None or len(targets) != len(dataset):
        return None
    labels = [int(target) for target in targets]
    chosen = labels if indices is None else [labels[i] for i in indices]
    return Classes([names[i] for i in sorted(names)], lambda: (np.bincount([y], minlength=len(names)) for y in chosen))
