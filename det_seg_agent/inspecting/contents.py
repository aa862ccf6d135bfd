"""`Contents`: the labels of a data set as flat arrays, for detection and segmentation alike. The adapters fill it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from det_seg_agent.classes import PLACES, ClassShares

EXAMPLES = 6  # images named and shown of each fault


@dataclass
class Fault:
    """Labels of one kind that look wrong.

    Attributes:
        what: what they are, in the plural.
        count: how many.
        images: indices of images that have them, some.
        remedy: what to do about them.
    """

    what: str
    count: int
    images: list[int]
    remedy: str


@dataclass
class Contents:
    """The labels of N images with M entries: objects, or the pixels of a class in an image.

    Attributes:
        source: what was read, for the heading.
        unit: "objects" or "pixels".
        names: class names, (C,).
        files: image files, (N,).
        image: (M,) int64, image of each entry, ascending.
        cls: (M,) int32, class of each entry.
        amount: (M,) float64, number of objects or pixels.
        boxes: (M, 4) float32, x1 y1 x2 y2 as fractions of the image; None for pixels.
        sizes: (N, 2) int32, width and height in pixels, 0 where unknown.
        faults: what reading the labels has found.
        unlabelled: images without a label file, or the like, which count as empty.
    """

    source: str
    unit: str
    names: Sequence[str]
    files: Sequence[str]
    image: np.ndarray
    cls: np.ndarray
    amount: np.ndarray
    boxes: np.ndarray | None
    sizes: np.ndarray
    faults: list[Fault] = field(default_factory=list)
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return image, class and amount of each class in each image, by image and then by descending amount."""
        key = self.image * len(self.names) + self.cls
        found, place = np.unique(key, return_inverse=True)
        amount = np.bincount(place, self.amount, len(found))
        image, cls = found // len(self.names), found % len(self.names)
        order = np.lexsort((-amount, image))
        return image[order], cls[order].astype(np.int32), amount[order]

    def shares(self) -> ClassShares:
        """Return the classes as the strategies take them."""
        image, cls, amount = self.pairs()
        first = np.searchsorted(image, np.arange(len(self)))
        rank = np.arange(len(image)) - first[image]
        total = np.bincount(image, amount, len(self))
        index = np.full((len(self), PLACES), -1, np.int16)
        share = np.zeros((len(self), PLACES), np.uint8)
        top = rank < PLACES
        index[image[top], rank[top]] = cls[top]
        share[image[top], rank[top]] = np.maximum(np.round(255 * amount[top] / total[image[top]]), 1)
        labels = np.bincount(cls, amount, len(self.names))
        return ClassShares(torch.from_numpy(index), torch.from_numpy(share), torch.from_numpy(labels))

    def examples(self, entries: np.ndarray) -> list[int]:
        """Return some images of the entries whose rows are given."""
        return np.unique(self.image[entries])[:EXAMPLES].tolist()
