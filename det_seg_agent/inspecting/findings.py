"""What the labels of a data set say: classes, their imbalance, sizes of objects, and labels that look wrong."""

from dataclasses import dataclass

import numpy as np

from det_seg_agent.inspecting.contents import EXAMPLES, Contents, Fault
from det_seg_agent.settings import parse
from det_seg_agent.strategies.classwise import RepeatFactor, RepeatOptions, factors
from det_seg_agent.strategies.weights_to_selection import rates

TINY = 8.0  # pixels of an object's side, in an image resized to `imgsz`
HUGE = 0.9  # share of the image
OUTSIDE = 0.01  # of the image's size
SAME = 1000  # boxes are the same if they agree to 1 / SAME of the image


@dataclass
class Findings:
    """What the labels say.

    Attributes:
        images: (C,) int64, images that show each class.
        labels: (C,) float64, objects or pixels of each class.
        rare: classes of the rarest third, of those that are used, the rarest first.
        rare_share: share of the images that show one of them.
        lift_most: highest factor by which a selection without repeats can raise these images' share.
        lift_repeats: factor by which `repeat_factor` raises the images of the rarest third in a pass, their mean.
        empty: images without a label.
        tiny, huge: shares of the objects; NaN for pixels.
        faults: labels that look wrong.
    """

    images: np.ndarray
    labels: np.ndarray
    rare: list[int]
    rare_share: float
    lift_most: float
    lift_repeats: float
    empty: int
    tiny: float
    huge: float
    faults: list[Fault]

    @property
    def used(self) -> list[int]:
        """Classes that any image shows, the rarest first."""
        order = np.argsort(self.images, kind="stable")
        return [int(c) for c in order if self.images[c]]

    @property
    def imbalance(self) -> float:
        """Images of the commonest class over those of the rarest used one; 1 if no class is used."""
        counts = self.images[self.images > 0]
        return float(counts.max() / counts.min()) if len(counts) else 1.0

    @property
    def thinnest(self) -> int:
        """The used class with the fewest objects or pixels; 0 if there is none."""
        return int(np.where(self.labels > 0, self.labels, np.inf).argmin())

    @property
    def thinness(self) -> float:
        """Objects or pixels of the class with most over those of the used one with fewest; 1 if no class is used."""
        counts = self.labels[self.labels > 0]
        return float(counts.max() / counts.min()) if len(counts) else 1.0


def find(contents: Contents, ratio: float, imgsz: int) -> Findings:
    """Return what the labels say.

    Args:
        contents: the labels.
        ratio: share of the images in a selection.
        imgsz: longer side, in pixels, that images are resized to in training.
    """
    image, cls, _ = contents.pairs()
    images = np.bincount(cls, minlength=len(contents.names))
    labels = np.bincount(contents.cls, contents.amount, len(contents.names))
    used = [int(c) for c in np.argsort(images, kind="stable") if images[c]]
    rare = used[: len(used) // 3]
    with_rare = np.zeros(len(contents), bool)
    with_rare[image[np.isin(cls, rare)]] = True
    share = float(with_rare.mean()) if len(contents) else 0.0
    empty = len(contents) - len(np.unique(image))
    tiny, huge = _sizes(contents, imgsz)
    most = min(1 / ratio, 1 / share) if share else 1.0
    return Findings(
        images, labels, rare, share, most, _lift_of_repeats(contents, rare, ratio), empty,
        tiny, huge, [*contents.faults, *_faults(contents)],
    )  # fmt: skip


def _lift_of_repeats(contents: Contents, rare: list[int], ratio: float) -> float:
    """Return by what factor `repeat_factor` raises the images of the classes `rare` in a pass, their mean."""
    if not rare:
        return 1.0
    shares, options = contents.shares(), parse(RepeatOptions, {})
    weight = shares.largest(factors(shares, options.threshold, options.by, 0.5), 1.0)
    rate = rates(weight, ratio * len(contents), RepeatFactor.floor, options.cap).numpy()
    index = shares.index.numpy()
    lifts = [rate[(index == c).any(1)].mean() / ratio for c in rare if (index == c).any()]
    return float(np.mean(lifts)) if lifts else 1.0


def _sizes(contents: Contents, imgsz: int) -> tuple[float, float]:
    boxes = contents.boxes
    if boxes is None or not len(boxes):
        return float("nan"), float("nan")
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(0, 1)
    size = contents.sizes[contents.image].astype(np.float32)
    longest = size.max(1, keepdims=True)
    scale = np.where(longest > 0, size / np.maximum(longest, 1), 1.0) * imgsz  # unknown: taken as square
    tiny = np.sqrt((sides * scale).prod(1)) < TINY
    return float(tiny.mean()), float((sides.prod(1) > HUGE).mean())


def _faults(contents: Contents) -> list[Fault]:
    boxes = contents.boxes
    if boxes is None or not len(boxes):
        return []
    found = []

    def note(rows: np.ndarray, what: str, remedy: str) -> None:
        if len(rows):
            found.append(Fault(what, len(rows), contents.examples(rows), remedy))

    flat = (boxes[:, 2:] <= boxes[:, :2]).any(1)
    note(np.flatnonzero(flat), "boxes without a width or height", "Remove them: the hosts drop or refuse them.")
    out = (boxes < -OUTSIDE).any(1) | (boxes > 1 + OUTSIDE).any(1)
    note(
        np.flatnonzero(out & ~flat), "boxes that leave the image by more than 1 %",
        "Clip them; Ultralytics drops an image with such a label.",
    )  # fmt: skip
    grid = np.round(boxes.clip(0, 1) * SAME).astype(np.int64)
    key = contents.image
    for column in grid.T:
        key = key * (SAME + 1) + column if key.max(initial=0) < 2**52 else _compact(key) * (SAME + 1) + column
    key = _compact(key)
    order = np.lexsort((contents.cls, key))
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    alike = contents.cls[order][same + 1] == contents.cls[order][same]
    note(order[same[alike] + 1], "boxes that stand there twice with one class", "Remove the copies.")
    note(
        order[same[~alike] + 1], "boxes that stand there twice with two classes",
        "Decide on one class, unless objects may have several.",
    )  # fmt: skip
    return found


def _compact(key: np.ndarray) -> np.ndarray:
    """Return the rank of each value among the distinct ones."""
    ranks: np.ndarray = np.unique(key, return_inverse=True)[1]
    return ranks


def rare_examples(contents: Contents, findings: Findings, classes: int = 6) -> list[tuple[int, int]]:
    """Return (class, image) for the rarest classes, an image each."""
    found = []
    for c in findings.used[:classes]:
        rows = np.flatnonzero(contents.cls == c)
        found.append((c, int(contents.image[rows[np.argmax(contents.amount[rows])]])))
    return found[:EXAMPLES]
