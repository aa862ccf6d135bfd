"""Composition of the data set: random scenes of each kind. `scenes.folder` writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from det_seg_agent.scenes.draw import (
    CLASS_COLOURS,
    Array,
    Colour,
    Rng,
    Scene,
    Shape,
    colour_of,
    contrasting,
    mask_of,
)
from det_seg_agent.scenes.mix import Mix, apportion, tail

BASE_SCENES = 6
_STREAMS = {"train": 0, "val": 1, "bases": 2, "order": 3, "classes": 4}


@dataclass(frozen=True)
class Image:
    """An image to be rendered.

    Attributes:
        kind: easy, hard, rare (with an object of a rare class), duplicate or wrong (labels).
        scene: what is on it.
        rng: generator of its noise, and of its wrong labels.
        group: number of the scene of which it is a copy; None if it is no duplicate.
    """

    kind: str
    scene: Scene
    rng: Rng
    group: int | None = None


def _rng(seed: int, stream: str, index: int = 0) -> Rng:
    return np.random.default_rng([seed, _STREAMS[stream], index])


def train_images(count: int, size: int, seed: int, mix: Mix) -> list[Image]:
    """Return the training images.

    Args:
        count: number of images.
        size: width and height in pixels.
        seed: random seed.
        mix: what they consist of.
    """
    kinds = [str(kind) for kind in _rng(seed, "order").permutation(apportion(mix.shares, count))]
    copied = kinds.count("duplicate")
    firsts, copies = iter(_firsts(count - copied, _rng(seed, "classes"), mix)), iter(_copies(copied, mix))
    common = replace(mix, classes=mix.classes - len(mix.rare))
    bases = [_base(size, _rng(seed, "bases", index), common) for index in range(BASE_SCENES)]
    images: list[Image] = []
    spoilt = 0
    for index, kind in enumerate(kinds):
        rng, group = _rng(seed, "train", index), None
        if kind == "duplicate":
            group = next(copies)
            scene = _jitter(bases[group], rng)
        elif kind == "wrong":
            compose = _easy if spoilt % 2 or not mix.hard else _hard
            scene = compose(size, rng, mix, next(firsts))
            spoilt += 1
        else:
            scene = (_easy if kind == "easy" else _hard)(size, rng, mix, next(firsts))
            kind = "rare" if mix.rare & {shape.category for shape in scene.shapes} else kind
        images.append(Image(kind, scene, rng, group))
    return images


def val_images(count: int, size: int, seed: int, mix: Mix) -> list[Image]:
    """Return the validation images, with balanced classes; arguments as in `train_images`."""
    tailed, mix = mix.long_tail > 1, replace(mix, long_tail=1)
    shares = {"easy": 0.5, "hard": 0.5} if mix.hard else {"easy": 1.0}
    kinds = [str(kind) for kind in _rng(seed, "order", 1).permutation(apportion(shares, count))]
    images = []
    for index, kind in enumerate(kinds):
        rng, first = _rng(seed, "val", index), 1 + index % mix.classes if tailed else None
        images.append(Image(kind, (_easy if kind == "easy" else _hard)(size, rng, mix, first), rng))
    return images


def _firsts(count: int, rng: Rng, mix: Mix) -> list[int | None]:
    """Return the class of the first object of each image, so that a long tail is exact; None for any class."""
    if mix.long_tail == 1:
        return [None] * count
    shares = {category: float(mix.frequencies[category - 1]) for category in mix.names}
    return [int(category) for category in rng.permutation(apportion(shares, count))]


def _copies(count: int, mix: Mix) -> list[int]:
    """Return the number of the copied scene of each duplicate, the scenes in turns while they have copies left."""
    left = Counter(apportion(dict(enumerate(tail(BASE_SCENES, mix.long_tail).tolist())), count))
    turns = [(turn, scene) for scene, number in left.items() for turn in range(number)]
    return [scene for _, scene in sorted(turns)]


def _easy(size: int, rng: Rng, mix: Mix, first: int | None) -> Scene:
    ground = _ground_of(rng, mix)
    number = int(rng.integers(1, 3))
    scale = (0.20, 0.30) if number == 1 else (0.15, 0.20)
    shapes = _place(
        size, number, rng, mix, first, radii=scale, margin=1.15, covered=0.0,
        colour=_paint(mix, rng, ground, 110.0), strength=(0.0, 18.0), cluster=0.0,
    )  # fmt: skip
    return Scene(size, "plain", _seed(rng), ground, shapes, noise=2.0)


def _base(size: int, rng: Rng, mix: Mix) -> Scene:
    if mix.class_colours:  # copies differ from the other images in nothing else
        return _easy(size, rng, mix, None)
    ground = _ground_of(rng, mix)
    shapes = _place(
        size, int(rng.integers(2, 4)), rng, mix, None, radii=(0.11, 0.18), margin=1.2, covered=0.15,
        colour=_paint(mix, rng, ground, 70.0), strength=(8.0, 25.0), cluster=0.2,
    )  # fmt: skip
    return Scene(size, "textured", _seed(rng), ground, shapes, noise=3.0)


def _hard(size: int, rng: Rng, mix: Mix, first: int | None) -> Scene:
    ground = _ground_of(rng, mix, 70.0, 185.0)
    shapes = _place(
        size, int(rng.integers(3, 7)), rng, mix, first, radii=(0.055, 0.095), margin=0.7, covered=0.45,
        colour=_paint(mix, rng, ground, 32.0, 55.0), strength=(4.0, 14.0), cluster=0.6,
    )  # fmt: skip
    return Scene(size, "cluttered", _seed(rng), ground, shapes, noise=6.0, blur=float(rng.uniform(0.3, 0.7)))


def _ground_of(rng: Rng, mix: Mix, low: float = 25.0, high: float = 230.0) -> Colour:
    """Return the colour of a background: any, or almost grey where the classes have colours."""
    if not mix.class_colours:
        return colour_of(rng, low, high)
    blue, green, red = rng.uniform(60.0, 190.0) + rng.uniform(-12.0, 12.0, 3)
    return float(blue), float(green), float(red)


def _paint(mix: Mix, rng: Rng, ground: Colour, least: float, most: float = 442.0) -> Callable[[int], Colour]:
    """Return a function that returns a colour for an object of a class: that of its class, or one unlike the ground."""

    def colour(category: int) -> Colour:
        if mix.class_colours and rng.uniform(0.0, 100.0) < mix.class_colours:
            blue, green, red = np.clip(np.array(CLASS_COLOURS[category]) + rng.normal(0.0, 12.0, 3), 5.0, 250.0)
            return float(blue), float(green), float(red)
        return contrasting(ground, rng, least, most)

    return colour


def _jitter(scene: Scene, rng: Rng) -> Scene:
    """Return a slightly changed copy of a scene, like another frame of a static camera."""
    shift = scene.size / 100.0
    dx, dy = rng.uniform(-shift, shift, 2)
    shapes = tuple(
        replace(
            shape,
            x=shape.x + dx + float(rng.normal(0.0, 0.2 * shift)),
            y=shape.y + dy + float(rng.normal(0.0, 0.2 * shift)),
            radius=shape.radius * float(rng.uniform(0.98, 1.02)),
            angle=shape.angle + float(rng.uniform(-0.04, 0.04)),
        )
        for shape in scene.shapes
    )
    return replace(scene, shapes=shapes, gain=float(rng.uniform(0.97, 1.03)))


def _place(
    size: int,
    number: int,
    rng: Rng,
    mix: Mix,
    first: int | None,
    radii: tuple[float, float],
    margin: float,
    covered: float,
    colour: Callable[[int], Colour],
    strength: tuple[float, float],
    cluster: float,
) -> tuple[Shape, ...]:
    """Return at most `number` random shapes; a later shape hides at most the fraction `covered` of an earlier one.

    With probability `cluster` a shape is placed beside an earlier one, so that they tend to overlap.
    """
    shapes: list[Shape] = []
    masks: list[Array] = []
    left: list[int] = []
    for _ in range(number):
        radius = float(rng.uniform(*radii)) * size
        category = mix.draw(rng) if first is None or shapes else first
        for _attempt in range(60):
            x, y = rng.uniform(margin * radius, size - margin * radius, 2)
            if shapes and rng.random() < cluster:
                beside = shapes[int(rng.integers(len(shapes)))]
                turn, reach = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.8, 1.3) * (radius + beside.radius) * 0.75
                low, high = margin * radius, size - margin * radius
                x = np.clip(beside.x + reach * np.cos(turn), low, high)
                y = np.clip(beside.y + reach * np.sin(turn), low, high)
            angle = float(rng.uniform(0.0, 2.0 * np.pi))
            shape = Shape(
                category, float(x), float(y), radius, angle, colour(category), int(rng.integers(4)),
                float(rng.uniform(*strength)),
            )  # fmt: skip
            mask = mask_of(shape, size)
            after = [int(np.count_nonzero(other & ~mask)) for other in masks]
            if all(now >= (1.0 - covered) * full for now, full in zip(after, left, strict=True)):
                shapes.append(shape)
                masks = [other & ~mask for other in masks] + [mask]
                left.append(int(np.count_nonzero(mask)))
                break
    return tuple(shapes)


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**31))
