"""Composition of the data set: random scenes of each kind. `scenes.folder` writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from det_seg_agent.scenes.draw import CATEGORIES, Array, Rng, Scene, Shape, colour_of, contrasting, mask_of

TRAIN_SHARES: dict[str, float] = {"easy": 0.30, "redundant": 0.35, "hard": 0.25, "mislabelled": 0.10}
VAL_SHARES: dict[str, float] = {"easy": 0.5, "hard": 0.5}
BASE_SCENES = 6
_STREAMS = {"train": 0, "val": 1, "bases": 2, "order": 3}


def _rng(seed: int, stream: str, index: int = 0) -> Rng:
    return np.random.default_rng([seed, _STREAMS[stream], index])


def kinds_of(shares: dict[str, float], count: int) -> list[str]:
    """Return the kinds of `count` images, apportioned to the shares by largest remainder."""
    exact = {kind: share * count for kind, share in shares.items()}
    counts = {kind: int(value + 1e-9) for kind, value in exact.items()}
    by_remainder = sorted(shares, key=lambda kind: counts[kind] - exact[kind])
    for kind in by_remainder[: count - sum(counts.values())]:
        counts[kind] += 1
    return [kind for kind, number in counts.items() for _ in range(number)]


def train_shares(mislabelled: float) -> dict[str, float]:
    """Return the share of each kind; kinds with correct labels keep their proportions."""
    if mislabelled == TRAIN_SHARES["mislabelled"]:
        return TRAIN_SHARES
    scale = (1 - mislabelled) / (1 - TRAIN_SHARES["mislabelled"])
    return {kind: mislabelled if kind == "mislabelled" else scale * share for kind, share in TRAIN_SHARES.items()}


def train_scenes(count: int, size: int, seed: int, mislabelled: float) -> list[tuple[str, Scene, Rng]]:
    """Return (kind, scene, generator for its noise and labels) of each training image.

    Args:
        count: number of images.
        size: width and height in pixels.
        seed: random seed.
        mislabelled: fraction of images with wrong labels.
    """
    order = _rng(seed, "order")
    names = [str(kind) for kind in order.permutation(kinds_of(train_shares(mislabelled), count))]
    bases = [_base(size, _rng(seed, "bases", index)) for index in range(BASE_SCENES)]
    scenes: list[tuple[str, Scene, Rng]] = []
    copies = spoilt = 0
    for index, kind in enumerate(names):
        rng = _rng(seed, "train", index)
        if kind == "redundant":
            scene = _jitter(bases[copies % BASE_SCENES], rng)
            copies += 1
        elif kind == "mislabelled":
            scene = (_hard, _easy)[spoilt % 2](size, rng)
            spoilt += 1
        else:
            scene = (_easy if kind == "easy" else _hard)(size, rng)
        scenes.append((kind, scene, rng))
    return scenes


def val_scenes(count: int, size: int, seed: int) -> list[tuple[str, Scene, Rng]]:
    """Return (kind, scene, generator for its noise) of each validation image; arguments as in `train_scenes`."""
    names = [str(kind) for kind in _rng(seed, "order", 1).permutation(kinds_of(VAL_SHARES, count))]
    rngs = [_rng(seed, "val", index) for index in range(count)]
    return [(kind, (_easy if kind == "easy" else _hard)(size, rng), rng) for kind, rng in zip(names, rngs, strict=True)]


def _easy(size: int, rng: Rng) -> Scene:
    ground = colour_of(rng)
    number = int(rng.integers(1, 3))
    scale = (0.20, 0.30) if number == 1 else (0.15, 0.20)
    shapes = _place(
        size, number, rng, radii=scale, margin=1.15, covered=0.0,
        colour=lambda: contrasting(ground, rng, 110.0), strength=(0.0, 18.0), cluster=0.0,
    )  # fmt: skip
    return Scene(size, "plain", _seed(rng), ground, shapes, noise=2.0)


def _base(size: int, rng: Rng) -> Scene:
    ground = colour_of(rng)
    shapes = _place(
        size, int(rng.integers(2, 4)), rng, radii=(0.11, 0.18), margin=1.2, covered=0.15,
        colour=lambda: contrasting(ground, rng, 70.0), strength=(8.0, 25.0), cluster=0.2,
    )  # fmt: skip
    return Scene(size, "textured", _seed(rng), ground, shapes, noise=3.0)


def _hard(size: int, rng: Rng) -> Scene:
    ground = colour_of(rng, 70.0, 185.0)
    shapes = _place(
        size, int(rng.integers(3, 7)), rng, radii=(0.055, 0.095), margin=0.7, covered=0.45,
        colour=lambda: contrasting(ground, rng, 32.0, 55.0), strength=(4.0, 14.0), cluster=0.6,
    )  # fmt: skip
    return Scene(size, "cluttered", _seed(rng), ground, shapes, noise=6.0, blur=float(rng.uniform(0.3, 0.7)))


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
    radii: tuple[float, float],
    margin: float,
    covered: float,
    colour: Callable[[], tuple[float, float, float]],
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
        category = int(rng.integers(1, len(CATEGORIES) + 1))
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
                category, float(x), float(y), radius, angle, colour(), int(rng.integers(4)),
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
