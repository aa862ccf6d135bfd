"""The host's data set with credits for each item and the current selection. The trainers' loaders read from it."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, default_collate, get_worker_info
from ultralytics.data import ClassificationDataset
from ultralytics.data.base import BaseDataset

from det_seg_agent.det.credit import carries, credit_transforms
from det_seg_agent.det.proxy import Noted, Partners, Proxy
from det_seg_agent.det.shared_pass import SharedPass
from det_seg_agent.det.sources import Sources
from det_seg_agent.errors import ConfigError, StateError
from det_seg_agent.seeding import derive_seed

UNKNOWN = (
    "its items do not say which image they show, as an `im_file` of the data set's `im_files` (or `samples`), so that "
    "nothing can be learnt about images. Keep `im_file` in what __getitem__ returns, or train with agent.strategy=full."
)
MOVED = (
    "its collate function returns other images than it gets, or in another order, so that nothing can be learnt about "
    "them. Keep them as they come, or train with agent.strategy=full."
)


class IndexedDataset(Proxy, Dataset[dict[str, Any]]):
    """Wraps the host's data set and adds to each item the samples that it shows; otherwise it behaves like the host's.

    Items get `credits`, a list of (dataset index, share), empty if unknown. Where the objects could be followed they
    also get `object_samples` (n,) int64, the dataset index of each object's image, -1 if unknown.

    With `fresh`, each process starts each pass with an empty image buffer and random generators seeded by (seed, pass,
    worker), so that a pass does not depend on earlier ones, and mixing transforms draw from the selection.

    Args:
        host: the host's data set.
        seed: random seed of the run.
        rank: rank of this process.
        fresh: whether passes train on selections.
        collate: the collate function of the host's loader; by default the data set's own or torch's.
        weighs: whether selections have weights.

    Raises:
        ConfigError: with `fresh`, if items cannot be assigned to the images of the data set.
    """

    def __init__(
        self,
        host: Any,
        seed: int,
        rank: int,
        fresh: bool,
        collate: Callable[..., Any] | None = None,
        weighs: bool = False,
    ):
        files = image_files(host)
        if fresh:
            check_files(host, files)
        collate = collate or getattr(host, "collate_fn", None) or default_collate
        super().__init__(host, _agent_collate=collate, _agent_streams=(seed, rank), _agent_pass=-1)
        own = vars(self)
        own["_agent_sources"] = sources = Sources(files)
        own["_agent_current"] = current = SharedPass(len(files), weighs, batches_of(host)) if fresh else None
        own["_agent_others"] = Noted(host, sources, mixed=True)
        own["_agent_partners"] = Partners(host, sources, current) if current else Noted(host, sources, mixed=False)
        if current is not None and current.shapes is not None:
            own["_agent_shapes"] = host.batch_shapes, host.batch
            host.batch_shapes, host.batch = current.shapes.numpy(), current.batch.numpy()  # type: ignore[union-attr]
            self._set_shapes(list(range(len(files))), host.batch_size)
        if fresh and not (is_stock(type(host)) and is_stock(collate)):
            self.collate([self[0], self[len(files) - 1]])

    @property
    def im_files(self) -> list[str]:
        """Image file of each sample."""
        return getattr(self.__wrapped__, "im_files", None) or list(self._agent_sources.files)

    @property
    def rect(self) -> bool:
        """Whether batches are rectangular."""
        return bool(getattr(self.__wrapped__, "rect", False))

    def __getitem__(self, index: int) -> Any:
        host, sources = self.__wrapped__, self._agent_sources
        self._begin()
        # For every item, as callbacks and `close_mosaic` may have changed the transforms.
        hosts, partners = (host, self), self._agent_partners
        credit_transforms(getattr(host, "transforms", None), sources, hosts, partners, self._agent_others)
        sources.start(index, type(host).__getitem__ is BaseDataset.__getitem__ and carries(host.transforms))
        try:
            item = host[index]
        except FileNotFoundError as error:  # the host raises this for any file that it cannot decode
            raise StateError(
                f"the image cannot be read, as it could when the run started: {error}. Put a whole file in its place "
                "and go on with resume=PATH/weights/last.pt."
            ) from error
        if item is None:  # a user's collate function is expected to skip it
            return item
        credits = sources.credits(item)
        if not credits and type(host).__getitem__ is ClassificationDataset.__getitem__:  # no `im_file`; one image
            credits = sources.credits({"im_file": host.samples[index][0]})
        if not credits:
            self._refuse(UNKNOWN)
        if not isinstance(item, dict):
            return item
        own: dict[str, Any] = {"credits": credits}
        samples = sources.unmark(item)
        if samples is not None:
            own["object_samples"] = samples
        return {**{key: value for key, value in item.items() if key != "shown"}, **own}

    def _refuse(self, why: str) -> None:
        if self._agent_current is not None:
            begun = int(self._agent_current.meta[0]) >= 0
            raise (StateError if begun else ConfigError)(f"the data set {type(self.__wrapped__).__name__}: {why}")

    def _begin(self) -> None:
        current = self._agent_current
        if current is None or int(current.meta[0]) == self._agent_pass:
            return
        vars(self)["_agent_pass"] = pass_index = int(current.meta[0])
        host, info = self.__wrapped__, get_worker_info()
        if isinstance(host, BaseDataset) and host.cache != "ram":
            while host.buffer:
                old = host.buffer.pop()
                host.ims[old] = host.im_hw0[old] = host.im_hw[old] = None
        if info is not None:
            seed, rank = self._agent_streams
            seed_process(seed, pass_index, rank, info.id + 1)

    def collate(self, items: list[Any]) -> Any:
        """Collate as the host does, and add `credit_index`, `credit_image`, `credit_share` (C,) and `loss_weight` (B,).

        `credit_object` (N,) is the row in `credit_index` of each object's sample, -1 if unknown; it exists only if the
        objects could be followed. `credit_weight` (C,), the samples' weights, and `loss_weight` exist only if
        the selection has weights: an image's weight is the mean over its samples, weighted by share. Nothing is added
        if the samples of the items are unknown.
        """
        shown = [item for item in items if item is not None]
        credits = [item.pop("credits") if isinstance(item, dict) else [] for item in shown]
        objects = [item.pop("object_samples", None) if isinstance(item, dict) else None for item in shown]
        files = [item.get("im_file") if isinstance(item, dict) else None for item in shown]
        batch = self._agent_collate(items)
        flat = [(image, index, share) for image, pairs in enumerate(credits) for index, share in pairs]
        if not flat:
            return batch
        whole = isinstance(batch, dict) and len(batch.get("img", ())) == len(credits)
        if not whole or list(batch.get("im_file", files)) != files:
            self._refuse(MOVED)
            return batch
        batch["credit_image"] = torch.tensor([row[0] for row in flat])
        batch["credit_index"] = torch.tensor([row[1] for row in flat])
        batch["credit_share"] = torch.tensor([row[2] for row in flat])
        followed = [samples.tolist() for samples in objects if samples is not None]
        if len(followed) == len(objects):
            rows = {(image, index): row for row, (image, index, _) in enumerate(flat)}
            owners = [rows.get((image, sample), -1) for image, samples in enumerate(followed) for sample in samples]
            batch["credit_object"] = torch.tensor(owners, dtype=torch.int64)
        current = self._agent_current
        if current is not None and int(current.meta[2]):
            batch["credit_weight"] = current.weight[batch["credit_index"]]
            weight = batch["credit_weight"] * batch["credit_share"]
            batch["loss_weight"] = torch.zeros(len(credits)).index_add_(0, batch["credit_image"], weight)
        return batch

    def set_pass(self, pass_index: int, indices: Tensor, weights: Tensor | None, order: list[int], batch: int) -> None:
        """Make `indices` the selection.

        Args:
            pass_index: index of the pass, from 0.
            indices: (n,) int64, ascending.
            weights: (n,) float32, loss weights, or None.
            order: this process's order of samples; used for rectangular batches only.
            batch: batch size.

        Raises:
            StateError: if the length of the data set has changed.
        """
        if len(self) != len(self._agent_current):
            raise StateError(
                f"the data set {type(self.__wrapped__).__name__} has {len(self)} images now, and had "
                f"{len(self._agent_current)} when the run began. Keep its length, or train with agent.strategy=full."
            )
        self._agent_current.set(pass_index, indices, weights)
        if self._agent_current.shapes is not None:
            self._set_shapes(order, batch)

    def _set_shapes(self, order: list[int], batch: int) -> None:
        shapes, batches = self._agent_shapes
        self._agent_current.set_shapes(order, batch, lambda rows: shapes[batches[rows]].max(0).astype(np.int64))


def image_files(host: Any) -> list[str]:
    """Return the image file of each sample of a data set, or its index as text if there are no known files."""
    if isinstance(host, Subset):
        files = image_files(host.dataset)
        return [files[index] for index in host.indices]
    if isinstance(host, ConcatDataset):
        return [file for each in host.datasets for file in image_files(each)]
    if isinstance(host, ClassificationDataset):
        return [str(sample[0]) for sample in host.samples]
    return [str(file) for file in getattr(host, "im_files", range(len(host)))]


def check_files(host: Any, files: list[str]) -> None:
    """Refuse a data set that does not support selections.

    Raises:
        ConfigError: if it is not the host's, or its length differs from its number of files.
    """
    name = type(host).__name__
    if not isinstance(host, BaseDataset | ClassificationDataset):
        raise ConfigError(
            f"the data set {name} is not the host's: images could not be selected within it. Give the host's own, or a "
            "subclass of it (several folders or lists of files can stand under `train:` in the data YAML), or train "
            "with agent.strategy=full."
        )
    if len(files) != len(host):
        raise ConfigError(
            f"the data set {name} has a length of {len(host)} and {len(files)} image files: images could not be "
            "selected. Let its length be that of its files, or train with agent.strategy=full."
        )


def is_stock(thing: Any) -> bool:
    """Return whether a class or function belongs to the host or to torch."""
    return str(thing.__module__).split(".")[0] in ("ultralytics", "torch")


def batches_of(host: Any) -> int:
    """Return the largest number of rectangular batches in a pass; 0 if batches are not rectangular."""
    return len(host.batch_shapes) + 1 if getattr(host, "rect", False) else 0


def seed_process(seed: int, pass_index: int, rank: int, worker: int) -> None:
    """Seed the generators of Python, NumPy and torch for a pass in this process; worker 0 is the main process."""
    value = derive_seed(seed, "process", pass_index, rank, worker) % 2**32
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
