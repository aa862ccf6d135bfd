"""The host's data set, seen through the current selection."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info
from ultralytics.data import ClassificationDataset

from det_seg_agent.det.credit import corners, credit_transforms, shares
from det_seg_agent.errors import StateError
from det_seg_agent.seeding import derive_seed

FEW = 4  # with fewer images at hand, Mosaic would mix an image with itself


class SharedPass:
    """The current pass in shared memory, so that it reaches running workers: 20 bytes a sample.

    Attributes:
        members: (N,) int64, the selection in its first `count` places.
        place: (N,) int64, a sample's place in `members`, -1 if it is not selected.
        weight: (N,) float32, factor of the sample's loss.
        shape: (N, 2) int64, height and width of the sample's batch (rectangular batches only).
        meta: (3,) int64: pass, count, whether weights are in force.
    """

    def __init__(self, num_samples: int):
        self.members = torch.arange(num_samples).share_memory_()
        self.place = torch.arange(num_samples).share_memory_()
        self.weight = torch.ones(num_samples).share_memory_()
        self.shape = torch.zeros(num_samples, 2, dtype=torch.int64).share_memory_()
        self.meta = torch.tensor([-1, num_samples, 0]).share_memory_()

    def set(self, pass_index: int, indices: Tensor, weights: Tensor | None) -> None:
        """Make `indices` the selection of pass `pass_index`."""
        count = len(indices)
        self.members[:count] = indices
        self.place.fill_(-1)
        self.place[indices] = torch.arange(count)
        self.weight.fill_(1)
        if weights is not None:
            self.weight[indices] = weights
        self.meta.copy_(torch.tensor([pass_index, count, int(weights is not None)]))


class Partners:
    """What mixing transforms take for the data set: the samples of the selection, known by their place in it.

    It answers what the host's mixing transforms ask: `buffer`, `cache`, `len`, `get_image_and_label`, and attributes.
    With all samples selected it answers as the host's data set would, draw for draw; with `fresh` only once there are
    a few images in the buffer, which then starts each pass empty.
    """

    def __init__(self, host: Any, current: SharedPass, fresh: bool):
        self.host, self.current, self.fresh = host, current, fresh

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("host", "current", "fresh"):
            raise AttributeError(name)
        return getattr(self.host, name)

    def __len__(self) -> int:
        return int(self.current.meta[1])

    @property
    def buffer(self) -> list[int]:
        """Places of the recently loaded images that are selected; of random ones while there are too few."""
        if len(self) == len(self.host) and not (self.fresh and len(self.host.buffer) < FEW):
            return list(self.host.buffer)
        places = self.current.place.numpy()[np.asarray(self.host.buffer, dtype=np.int64)]
        near: list[int] = places[places >= 0].tolist()
        return near if len(near) >= FEW else [random.randrange(len(self)) for _ in range(2 * FEW)]

    def get_image_and_label(self, place: int) -> dict[str, Any]:
        """Return the host's image and label of the sample in `place`, with its corners noted."""
        return load(self.host, int(self.current.members[place]))


def load(host: Any, index: int) -> dict[str, Any]:
    """Return the host's image and label of a sample, with its corners noted for the credit.

    Raises:
        StateError: if the image cannot be read, as it could when the run started.
    """
    try:
        label: dict[str, Any] = host.get_image_and_label(index)
    except FileNotFoundError as error:  # the host's for any file that it cannot decode
        raise StateError(
            f"{host.im_files[index]}: the image cannot be read, as it could when the run started. Put a whole file in "
            "its place and go on with resume=PATH/weights/last.pt."
        ) from error
    height, width = label["img"].shape[:2]
    label["shown"] = [(index, corners(0, 0, width, height), 1.0)]
    return label


class IndexedDataset(Dataset[dict[str, Any]]):
    """A `YOLODataset` whose items know their samples; everything else is the host's own.

    Items get `credits`, a list of (dataset index, share). With `fresh`, each process starts each pass with its image
    buffer empty and its random streams set by (seed, pass, worker), so that a pass does not depend on those before it.
    """

    def __init__(self, host: Any, seed: int, rank: int, fresh: bool):
        self.host, self.seed, self.rank, self.fresh = host, seed, rank, fresh
        self.current = SharedPass(len(host))
        self.partners = Partners(host, self.current, fresh)
        self._pass = -1
        host.transforms = credit_transforms(host.transforms, self.partners)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "host":
            raise AttributeError(name)
        return getattr(self.host, name)

    def __len__(self) -> int:
        return len(self.host)

    def close_mosaic(self, hyp: Any) -> None:
        """Let the host rebuild its transforms, and put the crediting ones in place again."""
        self.host.close_mosaic(hyp)
        self.host.transforms = credit_transforms(self.host.transforms, self.partners)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._begin()
        label = load(self.host, index)
        if self.fresh and self.host.rect:
            label["rect_shape"] = self.current.shape[index].numpy()
        item: dict[str, Any] = self.host.transforms(label)
        height, width = item["img"].shape[-2:]
        item["credits"] = list(shares(item.pop("shown"), height, width).items())
        return item

    def _begin(self) -> None:
        pass_index = int(self.current.meta[0])
        if not self.fresh or pass_index == self._pass:
            return
        self._pass = pass_index
        self._forget()
        info = get_worker_info()
        if info is not None:
            seed_process(self.seed, pass_index, self.rank, info.id + 1)

    def _forget(self) -> None:
        if self.host.cache != "ram":
            while self.host.buffer:
                old = self.host.buffer.pop()
                self.host.ims[old] = self.host.im_hw0[old] = self.host.im_hw[old] = None

    def _stack(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.host.collate_fn(items)
        return batch

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate as the host does, and add `credit_index`, `credit_image`, `credit_share` (C,) and `loss_weight` (B,).

        `loss_weight` is there only when the selection has weights: that of an image is the mean of its samples',
        weighted by their shares.
        """
        credits = [item.pop("credits") for item in items]
        batch = self._stack(items)
        flat = [(image, index, share) for image, pairs in enumerate(credits) for index, share in pairs]
        batch["credit_image"] = torch.tensor([row[0] for row in flat])
        batch["credit_index"] = torch.tensor([row[1] for row in flat])
        batch["credit_share"] = torch.tensor([row[2] for row in flat])
        if int(self.current.meta[2]):
            weight = self.current.weight[batch["credit_index"]] * batch["credit_share"]
            batch["loss_weight"] = torch.zeros(len(items)).index_add_(0, batch["credit_image"], weight)
        return batch

    def set_pass(self, pass_index: int, indices: Tensor, weights: Tensor | None, order: list[int], batch: int) -> None:
        """Make `indices` the selection; `order` is this process's walk over it, in batches of `batch`."""
        self.current.set(pass_index, indices, weights)
        if self.rect:
            stock = torch.from_numpy(np.stack([self.host.batch_shapes[self.host.batch[i]] for i in order])).long()
            self.current.shape.zero_()
            for _ in range(2):  # a sample of the first batch may fill up the last one: both get one shape
                for start in range(0, len(order), batch):
                    rows = torch.tensor(order[start : start + batch])
                    shapes = torch.maximum(stock[start : start + batch], self.current.shape[rows])
                    self.current.shape[rows] = shapes.max(0).values


class IndexedImages(IndexedDataset):
    """A `ClassificationDataset` whose items know their samples: each shows one image."""

    rect = False

    def __init__(self, host: Any, seed: int, rank: int, fresh: bool):
        self.host, self.seed, self.rank, self.fresh = host, seed, rank, fresh
        self.current = SharedPass(len(host))
        self._pass = -1
        self.im_files = [sample[0] for sample in host.samples]

    def close_mosaic(self, hyp: Any) -> None:
        """Do nothing: there is no mosaic."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._begin()
        return {**self.host[index], "credits": [(index, 1.0)]}

    def _forget(self) -> None:
        pass

    def _stack(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = default_collate(items)
        return batch


def index_dataset(host: Any, seed: int, rank: int, fresh: bool) -> IndexedDataset:
    """Return the indexed form of a data set of the host."""
    cls = IndexedImages if isinstance(host, ClassificationDataset) else IndexedDataset
    return cls(host, seed, rank, fresh)


def seed_process(seed: int, pass_index: int, rank: int, worker: int) -> None:
    """Set the random streams of Python, NumPy and torch for a pass in this process; worker 0 is the main process."""
    value = derive_seed(seed, "process", pass_index, rank, worker) % 2**32
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
