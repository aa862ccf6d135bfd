"""Labels of a scene: visible masks, wrong labels for mislabelled scenes, and COCO polygons. For `scenes.folder`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from det_seg_agent.scenes.draw import Array, Rng, Scene, mask_of
from det_seg_agent.scenes.mix import Mix

MIN_VISIBLE = 12


def settle(scene: Scene) -> tuple[Scene, list[Array]]:
    """Return the scene without shapes that are almost hidden, and the visible mask of each remaining shape."""
    shapes = list(scene.shapes)
    while True:
        visible = topmost([mask_of(shape, scene.size) for shape in shapes])
        hidden = [index for index, mask in enumerate(visible) if np.count_nonzero(mask) < MIN_VISIBLE]
        if not hidden:
            return replace(scene, shapes=tuple(shapes)), visible
        # Remove one at a time, as that may uncover enough of another shape.
        del shapes[hidden[-1]]


def topmost(masks: Sequence[Array]) -> list[Array]:
    """Return each mask without the pixels that later masks cover."""
    above = np.zeros_like(masks[0]) if masks else None
    visible: list[Array] = []
    for mask in reversed(masks):
        assert above is not None
        visible.append(mask & ~above)
        above = above | mask
    return visible[::-1]


def spoil(labels: list[tuple[int, Array]], size: int, rng: Rng, mix: Mix) -> tuple[str, list[tuple[int, Array]]]:
    """Return wrong labels and what is wrong: all "classes" changed, or all "places", masks shifted by half their size.

    With a long tail, a wrong class is drawn by frequency, so that most of a rare class's labels stay right.
    """
    if rng.random() < 0.5:
        return "classes", [(mix.draw(rng, but=category), mask) for category, mask in labels]
    moved: list[Array] = []
    for _, mask in labels:
        x, y, width, height = cv2.boundingRect(mask)
        # Towards the centre, so that the shifted box stays inside the image.
        dx = (width + 1) // 2 * (1 if x + width / 2 < size / 2 else -1)
        dy = (height + 1) // 2 * (1 if y + height / 2 < size / 2 else -1)
        move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved.append(np.asarray(cv2.warpAffine(mask, move, (size, size), flags=cv2.INTER_NEAREST)))
    pairs = zip(labels, topmost(moved), strict=True)
    return "places", [(category, mask) for (category, _), mask in pairs if np.count_nonzero(mask) >= MIN_VISIBLE]


def polygons_of(mask: Array) -> list[list[float]]:
    """Return COCO polygons of a mask, in coordinates where pixel i covers [i, i + 1]."""
    # Contours pass through pixel centres; at twice the size they are a quarter pixel inside the true outline.
    double = np.ascontiguousarray(mask.repeat(2, axis=0).repeat(2, axis=1))
    contours, tree = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for contour, (_, _, _, parent) in zip(contours, np.asarray(tree)[0], strict=True):
        if parent >= 0:
            # A polygon cannot have a hole: split the mask at the hole and convert both parts.
            x, _, width, _ = cv2.boundingRect(contour)
            cut = (x + width // 2) // 2
            near, far = mask.copy(), mask.copy()
            near[:, cut:] = 0
            far[:, :cut] = 0
            return polygons_of(near) + polygons_of(far)
    polygons: list[list[float]] = []
    for contour in contours:
        # A tolerance below 0.7 only smooths the steps of slanted edges; no pixel changes sides.
        simple = cv2.approxPolyDP(contour, 0.6, True)
        points = np.asarray(simple if len(simple) >= 4 else contour).reshape(-1, 2)
        polygons.append([float(v) for v in ((points + 0.5) / 2.0).reshape(-1)])
    return polygons
