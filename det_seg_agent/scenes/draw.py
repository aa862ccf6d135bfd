"""Description of a scene and its rendering to pixels. `scenes.compose`, `.labels` and `.folder` use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Rng = np.random.Generator
Colour = tuple[float, float, float]
CATEGORIES: dict[int, str] = {
    1: "disc", 2: "square", 3: "triangle", 4: "star", 5: "bar", 6: "cross", 7: "arrow", 8: "moon",
}  # fmt: skip
CLASS_COLOURS: dict[int, Colour] = {  # BGR: red, blue, green, yellow, magenta, cyan, orange, violet
    1: (40, 40, 215), 2: (215, 70, 40), 3: (50, 170, 40), 4: (40, 220, 235),
    5: (200, 50, 220), 6: (215, 210, 40), 7: (30, 130, 240), 8: (170, 40, 110),
}  # fmt: skip
# Corners of the shapes that no rule gives, in a frame with x along the shape's angle.
_CORNERS: dict[int, list[tuple[float, float]]] = {
    5: [(-1.5, -0.48), (1.5, -0.48), (1.5, 0.48), (-1.5, 0.48)],
    6: [(-1.25, -0.4), (-0.4, -0.4), (-0.4, -1.25), (0.4, -1.25), (0.4, -0.4), (1.25, -0.4),
        (1.25, 0.4), (0.4, 0.4), (0.4, 1.25), (-0.4, 1.25), (-0.4, 0.4), (-1.25, 0.4)],
    7: [(-1.3, -0.4), (0.1, -0.4), (0.1, -1.1), (1.4, 0.0), (0.1, 1.1), (0.1, 0.4), (-1.3, 0.4)],
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One object of a scene.

    Attributes:
        category: key of `CATEGORIES`.
        x, y: centre in pixels.
        radius: size in pixels.
        angle: rotation in radians.
        colour: BGR, 0 to 255.
        texture: 0 none, 1 stripes, 2 checks, 3 rings.
        strength: amplitude of the texture in grey levels.
    """

    category: int
    x: float
    y: float
    radius: float
    angle: float
    colour: Colour
    texture: int
    strength: float


@dataclass(frozen=True)
class Scene:
    """Description of an image; rendering is deterministic given the generator of the noise.

    Attributes:
        size: width and height in pixels.
        ground: kind of background: plain, textured or cluttered.
        ground_seed: seed of the background.
        colour: mean BGR colour of the background.
        shapes: the objects, later ones in front.
        noise: standard deviation of the noise in grey levels.
        gain: factor of the brightness.
        blur: sigma of the blur in pixels; 0 for none.
    """

    size: int
    ground: str
    ground_seed: int
    colour: Colour
    shapes: tuple[Shape, ...]
    noise: float
    gain: float = 1.0
    blur: float = 0.0


def _outline(shape: Shape) -> Array:
    # With these factors all classes have about the same area, so that size does not identify them.
    if shape.category in _CORNERS or shape.category == 8:
        corners = np.array(_CORNERS.get(shape.category) or _moon())
        cos, sin = np.cos(shape.angle), np.sin(shape.angle)
        turned = corners @ np.array([[cos, sin], [-sin, cos]])
        return np.asarray(turned * shape.radius + np.array([shape.x, shape.y]))
    if shape.category == 1:
        turns, reach = np.arange(48) / 48.0, np.full(48, 0.90)
    elif shape.category == 2:
        turns, reach = np.arange(4) / 4.0, np.full(4, 1.13)
    elif shape.category == 3:
        turns, reach = np.arange(3) / 3.0, np.full(3, 1.30)
    else:
        turns, reach = np.arange(10) / 10.0, np.tile([1.35, 0.58], 5)
    angles = 2.0 * np.pi * turns + shape.angle
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(along * (reach * shape.radius)[:, None] + np.array([shape.x, shape.y]))


def _moon() -> list[tuple[float, float]]:
    """Return the corners of a crescent: most of a circle, and back along another one."""
    outer, inner = np.linspace(0.25, 1.75, 33) * np.pi, np.linspace(1.68, 0.32, 21) * np.pi
    points = [(1.15 * np.cos(a), 1.15 * np.sin(a)) for a in outer]
    return [*points, *((0.32 + 0.92 * np.cos(a), 0.92 * np.sin(a)) for a in inner)]


def mask_of(shape: Shape, size: int) -> Array:
    """Return the mask (size, size) uint8 of a shape, 255 inside and 0 outside."""
    mask = np.zeros((size, size), np.uint8)
    bits = 4
    cv2.fillPoly(mask, [np.round(_outline(shape) * 2**bits).astype(np.int32)], 255, cv2.LINE_8, bits)
    return mask


def render(scene: Scene, visible: Sequence[Array], rng: Rng) -> Array:
    """Return the image (size, size, 3) uint8 BGR of a scene.

    Args:
        scene: the scene.
        visible: visible mask of each shape, from `labels.settle`.
        rng: generator of the noise.
    """
    image = _ground(scene)
    for shape, mask in zip(scene.shapes, visible, strict=True):
        fill = np.asarray(shape.colour, np.float32) + _texture(shape, scene.size)[..., None] * shape.strength
        soft = cv2.GaussianBlur(mask, (0, 0), 0.5).astype(np.float32)[..., None] / 255.0
        image = image * (1.0 - soft) + fill * soft
    if scene.blur > 0.0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), scene.blur))
    image = image * scene.gain + scene.noise * rng.standard_normal(image.shape, np.float32)
    return np.asarray(np.clip(np.round(image), 0, 255), np.uint8)


def _texture(shape: Shape, size: int) -> Array:
    """Return the texture (size, size) float32 in [-1, 1], aligned with the shape: none, stripes, checks or rings."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    dx, dy = columns - shape.x, rows - shape.y
    cos, sin = np.cos(shape.angle), np.sin(shape.angle)
    across, along = (dx * cos + dy * sin) / shape.radius, (dy * cos - dx * sin) / shape.radius
    if shape.texture == 0:
        return np.zeros((size, size), np.float32)
    if shape.texture == 1:
        return np.asarray(np.sin(across * 9.0), np.float32)
    if shape.texture == 2:
        return np.asarray(np.sign(np.sin(across * 7.0) * np.sin(along * 7.0)), np.float32)
    return np.asarray(np.sin(np.hypot(across, along) * 10.0), np.float32)


def _ground(scene: Scene) -> Array:
    size, rng = scene.size, np.random.default_rng(scene.ground_seed)
    depth, cells = {"plain": (5.0, 3), "textured": (16.0, 10), "cluttered": (17.0, 14)}[scene.ground]
    coarse = rng.uniform(-depth, depth, (cells, cells, 3)).astype(np.float32)
    image = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))
    image = image + np.asarray(scene.colour, np.float32)
    if scene.ground == "textured":
        rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
        turn, wave = rng.uniform(0.0, np.pi), size / rng.uniform(8.0, 20.0)
        phase = (columns * np.cos(turn) + rows * np.sin(turn)) * (2.0 * np.pi / wave)
        image = image + 9.0 * np.sin(phase)[..., None]
    if scene.ground == "cluttered":
        image = np.ascontiguousarray(image, np.float32)
        for _ in range(int(rng.integers(12, 20))):
            ends = rng.integers(-size // 8, size + size // 8, 4)
            colour = contrasting(scene.colour, rng, 22.0, 42.0)
            width = int(rng.integers(1, 3))
            start, stop = (int(ends[0]), int(ends[1])), (int(ends[2]), int(ends[3]))
            if rng.random() < 0.7:
                cv2.line(image, start, stop, colour, width)
            else:
                axes = (int(rng.integers(size // 12, size // 4)), int(rng.integers(size // 12, size // 4)))
                sweep = float(rng.uniform(60.0, 150.0))
                cv2.ellipse(image, start, axes, float(rng.uniform(0.0, 360.0)), 0.0, sweep, colour, width)
    return np.asarray(image, np.float32)


def colour_of(rng: Rng, low: float = 25.0, high: float = 230.0) -> Colour:
    """Return a random BGR colour with channels between `low` and `high`."""
    blue, green, red = rng.uniform(low, high, 3)
    return float(blue), float(green), float(red)


def contrasting(ground: Colour, rng: Rng, least: float, most: float = 442.0) -> Colour:
    """Return a random colour whose distance from `ground` in BGR lies between `least` and `most`."""
    base = np.asarray(ground)
    while True:
        step = rng.normal(size=3)
        colour = base + step / np.linalg.norm(step) * rng.uniform(least, min(most, 2.2 * least))
        if colour.min() >= 5.0 and colour.max() <= 250.0:
            return float(colour[0]), float(colour[1]), float(colour[2])
