"""A small rendered data set in COCO format, with images that are easy, redundant, hard or mislabelled.

It lets the selection of training images be tried end to end, in seconds and without a download: which images help a
detector or a segmentor is known here, because every image record carries its ``kind``.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from det_seg_agent.errors import ConfigError

CATEGORIES: dict[int, str] = {1: "disc", 2: "square", 3: "triangle", 4: "star"}
TRAIN_SHARES: dict[str, float] = {"easy": 0.30, "redundant": 0.35, "hard": 0.25, "mislabelled": 0.10}
VAL_SHARES: dict[str, float] = {"easy": 0.5, "hard": 0.5}
BASE_SCENES = 6
MIN_VISIBLE = 12
MARKER = "scenes.json"

_FORMAT = "det_seg_agent.scenes/1"
_ENTRIES = frozenset({MARKER, "annotations", "train", "val", "masks"})
_JPEG_QUALITY = 92
_STREAMS = {"train": 0, "val": 1, "bases": 2, "order": 3}

Array = np.ndarray[Any, np.dtype[Any]]
Rng = np.random.Generator


@dataclass(frozen=True)
class _Shape:
    category: int
    x: float
    y: float
    radius: float
    angle: float
    colour: tuple[float, float, float]
    texture: int
    strength: float


@dataclass(frozen=True)
class _Scene:
    """What is drawn; rendering it twice with the same noise gives the same pixels."""

    size: int
    ground: str
    ground_seed: int
    colour: tuple[float, float, float]
    shapes: tuple[_Shape, ...]
    noise: float
    gain: float = 1.0
    blur: float = 0.0


def write_scenes(folder: Path, train: int = 320, val: int = 80, size: int = 160, seed: int = 0) -> Path:
    """Render the data set into ``folder`` and return it; a folder that already holds it is left alone.

    Raises ``ConfigError`` for unusable arguments and for a folder that holds anything this function did not write.
    """
    for name, value, least in (("train", train, 1), ("val", val, 1), ("size", size, 64), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"scenes: {name} is {value}; give {least} or more")
    folder = Path(folder).expanduser().resolve()
    marker = {"format": _FORMAT, "train": int(train), "val": int(val), "size": int(size), "seed": int(seed)}
    if _read_marker(folder) == marker:
        return folder
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        _write_split(fresh, "train", _train_scenes(train, size, seed), size)
        _write_split(fresh, "val", _val_scenes(val, size, seed), size)
        (fresh / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        # Another process may have rendered the same set meanwhile, as the ranks of a distributed run do.
        if _read_marker(folder) != marker:
            _check_replaceable(folder)
            _swap(fresh, folder, Path(scratch) / "old", marker)
    return folder


def kinds(folder: Path) -> dict[str, str]:
    """Kind of every training image, by file name."""
    path = Path(folder) / "annotations" / "instances_train.json"
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
        return {image["file_name"]: image["kind"] for image in images}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no kinds of scenes can be read ({error!r}); render it with write_scenes") from error


# ---------------------------------------------------------------------------------------------------------------------
# The folder


def _read_marker(folder: Path) -> dict[str, Any] | None:
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and str(marker.get("format", "")).startswith(_FORMAT[:-1]) else None


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is a file, and scenes need a folder; give another path")
    present = {entry.name for entry in folder.iterdir()}
    if present and _read_marker(folder) is None:
        raise ConfigError(
            f"{folder}: is not empty and has no {MARKER} of this generator, so it is not overwritten; "
            "give an empty or new folder, or remove this one first"
        )
    if strangers := sorted(present - _ENTRIES):
        raise ConfigError(
            f"{folder}: holds scenes of other parameters, and also {', '.join(strangers[:5])}, which would be lost; "
            "give a new folder, or move these away first"
        )


def _swap(fresh: Path, folder: Path, old: Path, marker: dict[str, Any]) -> None:
    moved = False
    try:
        if folder.exists():
            os.replace(folder, old)
            moved = True
        os.replace(fresh, folder)
    except OSError:
        if _read_marker(folder) == marker:
            return
        raise
    finally:
        if moved and not folder.exists():
            os.replace(old, folder)


def _write_split(root: Path, split: str, scenes: Sequence[tuple[str, _Scene, Rng]], size: int) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for folder in (root / "annotations", root / split, root / "masks" / split):
        folder.mkdir(parents=True, exist_ok=True)
    for image_id, (kind, scene, rng) in enumerate(scenes, start=1):
        stem = f"{image_id:012d}"
        scene, visible = _settle(scene)
        _write_image(root / split / f"{stem}.jpg", _render(scene, visible, rng))
        labels = [(shape.category, mask) for shape, mask in zip(scene.shapes, visible, strict=True)]
        if kind == "mislabelled":
            labels = _spoil(labels, size, rng)
        semantic = np.zeros((size, size), np.uint8)
        for category, mask in labels:
            semantic[mask > 0] = category
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [float(v) for v in cv2.boundingRect(mask)],
                    "area": float(np.count_nonzero(mask)),
                    "iscrowd": 0,
                    "segmentation": _polygons(mask),
                }
            )
        _write_image(root / "masks" / split / f"{stem}.png", semantic)
        images.append({"id": image_id, "file_name": f"{stem}.jpg", "width": size, "height": size, "kind": kind})
    document = {
        "info": {"description": "rendered scenes", "version": _FORMAT},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name, "supercategory": "shape"} for key, name in CATEGORIES.items()],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document), encoding="utf-8")


def _write_image(path: Path, image: Array) -> None:
    # imencode and not imwrite: the latter only returns False for a full disk or a path it cannot encode.
    done, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if image.ndim == 3 else [])
    if not done:
        raise ConfigError(f"{path}: OpenCV cannot encode {path.suffix}; install a build of OpenCV with this codec")
    path.write_bytes(data.tobytes())


# ---------------------------------------------------------------------------------------------------------------------
# Which scenes


def _rng(seed: int, stream: str, index: int = 0) -> Rng:
    return np.random.default_rng([seed, _STREAMS[stream], index])


def _shares(shares: dict[str, float], count: int) -> list[str]:
    """The kinds of ``count`` images, by largest remainder."""
    exact = {kind: share * count for kind, share in shares.items()}
    counts = {kind: int(value + 1e-9) for kind, value in exact.items()}
    by_remainder = sorted(shares, key=lambda kind: counts[kind] - exact[kind])
    for kind in by_remainder[: count - sum(counts.values())]:
        counts[kind] += 1
    return [kind for kind, number in counts.items() for _ in range(number)]


def _train_scenes(count: int, size: int, seed: int) -> list[tuple[str, _Scene, Rng]]:
    order = _rng(seed, "order")
    names = [str(kind) for kind in order.permutation(_shares(TRAIN_SHARES, count))]
    bases = [_base(size, _rng(seed, "bases", index)) for index in range(BASE_SCENES)]
    scenes: list[tuple[str, _Scene, Rng]] = []
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


def _val_scenes(count: int, size: int, seed: int) -> list[tuple[str, _Scene, Rng]]:
    names = [str(kind) for kind in _rng(seed, "order", 1).permutation(_shares(VAL_SHARES, count))]
    rngs = [_rng(seed, "val", index) for index in range(count)]
    return [(kind, (_easy if kind == "easy" else _hard)(size, rng), rng) for kind, rng in zip(names, rngs, strict=True)]


def _easy(size: int, rng: Rng) -> _Scene:
    ground = _colour(rng)
    number = int(rng.integers(1, 3))
    scale = (0.20, 0.30) if number == 1 else (0.15, 0.20)
    shapes = _place(
        size, number, rng, radii=scale, margin=1.15, covered=0.0,
        colour=lambda: _contrasting(ground, rng, 110.0), strength=(0.0, 18.0), cluster=0.0,
    )  # fmt: skip
    return _Scene(size, "plain", _seed(rng), ground, shapes, noise=2.0)


def _base(size: int, rng: Rng) -> _Scene:
    ground = _colour(rng)
    shapes = _place(
        size, int(rng.integers(2, 4)), rng, radii=(0.11, 0.18), margin=1.2, covered=0.15,
        colour=lambda: _contrasting(ground, rng, 70.0), strength=(8.0, 25.0), cluster=0.2,
    )  # fmt: skip
    return _Scene(size, "textured", _seed(rng), ground, shapes, noise=3.0)


def _hard(size: int, rng: Rng) -> _Scene:
    ground = _colour(rng, 70.0, 185.0)
    shapes = _place(
        size, int(rng.integers(3, 7)), rng, radii=(0.055, 0.095), margin=0.7, covered=0.45,
        colour=lambda: _contrasting(ground, rng, 32.0, 55.0), strength=(4.0, 14.0), cluster=0.6,
    )  # fmt: skip
    return _Scene(size, "cluttered", _seed(rng), ground, shapes, noise=6.0, blur=float(rng.uniform(0.3, 0.7)))


def _jitter(scene: _Scene, rng: Rng) -> _Scene:
    """The same scene, as in the next frame of a still camera."""
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
) -> tuple[_Shape, ...]:
    """Shapes of which none has more than the share ``covered`` hidden by a later one.

    With the chance ``cluster`` a shape goes beside an earlier one, so that they tend to overlap.
    """
    shapes: list[_Shape] = []
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
            shape = _Shape(
                category, float(x), float(y), radius, angle, colour(), int(rng.integers(4)),
                float(rng.uniform(*strength)),
            )  # fmt: skip
            mask = _mask(shape, size)
            after = [int(np.count_nonzero(other & ~mask)) for other in masks]
            if all(now >= (1.0 - covered) * full for now, full in zip(after, left, strict=True)):
                shapes.append(shape)
                masks = [other & ~mask for other in masks] + [mask]
                left.append(int(np.count_nonzero(mask)))
                break
    return tuple(shapes)


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**31))


def _colour(rng: Rng, low: float = 25.0, high: float = 230.0) -> tuple[float, float, float]:
    blue, green, red = rng.uniform(low, high, 3)
    return float(blue), float(green), float(red)


def _contrasting(
    ground: tuple[float, float, float], rng: Rng, least: float, most: float = 442.0
) -> tuple[float, float, float]:
    """A colour whose distance from ``ground`` in BGR lies between ``least`` and ``most``."""
    base = np.asarray(ground)
    while True:
        step = rng.normal(size=3)
        colour = base + step / np.linalg.norm(step) * rng.uniform(least, min(most, 2.2 * least))
        if colour.min() >= 5.0 and colour.max() <= 250.0:
            return float(colour[0]), float(colour[1]), float(colour[2])


# ---------------------------------------------------------------------------------------------------------------------
# Labels


def _settle(scene: _Scene) -> tuple[_Scene, list[Array]]:
    """The scene without the shapes too hidden to be labelled, and the visible mask of each that stays."""
    shapes = list(scene.shapes)
    while True:
        visible = _topmost([_mask(shape, scene.size) for shape in shapes])
        hidden = [index for index, mask in enumerate(visible) if np.count_nonzero(mask) < MIN_VISIBLE]
        if not hidden:
            return replace(scene, shapes=tuple(shapes)), visible
        # One at a time: what it hid comes to light, and may make another large enough.
        del shapes[hidden[-1]]


def _topmost(masks: Sequence[Array]) -> list[Array]:
    """Each mask without what the later ones hide."""
    above = np.zeros_like(masks[0]) if masks else None
    visible: list[Array] = []
    for mask in reversed(masks):
        assert above is not None
        visible.append(mask & ~above)
        above = above | mask
    return visible[::-1]


def _spoil(labels: list[tuple[int, Array]], size: int, rng: Rng) -> list[tuple[int, Array]]:
    """Wrong labels: either every class is another one, or every mask is half its size away."""
    if rng.random() < 0.5:
        total = len(CATEGORIES)
        return [((category - 1 + int(rng.integers(1, total))) % total + 1, mask) for category, mask in labels]
    moved: list[Array] = []
    for _, mask in labels:
        x, y, width, height = cv2.boundingRect(mask)
        # Towards the middle, so that the moved box stays in the image.
        dx = (width + 1) // 2 * (1 if x + width / 2 < size / 2 else -1)
        dy = (height + 1) // 2 * (1 if y + height / 2 < size / 2 else -1)
        move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved.append(np.asarray(cv2.warpAffine(mask, move, (size, size), flags=cv2.INTER_NEAREST)))
    pairs = zip(labels, _topmost(moved), strict=True)
    return [(category, mask) for (category, _), mask in pairs if np.count_nonzero(mask) >= MIN_VISIBLE]


def _polygons(mask: Array) -> list[list[float]]:
    """COCO polygons of a mask, in coordinates where pixel ``i`` covers ``[i, i + 1]``."""
    # Contours run through pixel centres; at twice the size they are a quarter pixel inside the true outline.
    double = np.ascontiguousarray(mask.repeat(2, axis=0).repeat(2, axis=1))
    contours, tree = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for contour, (_, _, _, parent) in zip(contours, np.asarray(tree)[0], strict=True):
        if parent >= 0:
            # A polygon cannot have a hole: cut the mask through it, and describe either side.
            x, _, width, _ = cv2.boundingRect(contour)
            cut = (x + width // 2) // 2
            near, far = mask.copy(), mask.copy()
            near[:, cut:] = 0
            far[:, :cut] = 0
            return _polygons(near) + _polygons(far)
    polygons: list[list[float]] = []
    for contour in contours:
        # Below 0.7 only the staircase of a slanted edge goes, and no pixel changes sides.
        simple = cv2.approxPolyDP(contour, 0.6, True)
        points = np.asarray(simple if len(simple) >= 4 else contour).reshape(-1, 2)
        polygons.append([float(v) for v in ((points + 0.5) / 2.0).reshape(-1)])
    return polygons


# ---------------------------------------------------------------------------------------------------------------------
# Pixels


def _outline(shape: _Shape) -> Array:
    # The factors give the classes about equal areas, so that the size does not tell them apart.
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


def _mask(shape: _Shape, size: int) -> Array:
    mask = np.zeros((size, size), np.uint8)
    bits = 4
    cv2.fillPoly(mask, [np.round(_outline(shape) * 2**bits).astype(np.int32)], 255, cv2.LINE_8, bits)
    return mask


def _render(scene: _Scene, visible: Sequence[Array], rng: Rng) -> Array:
    image = _ground(scene)
    for shape, mask in zip(scene.shapes, visible, strict=True):
        fill = np.asarray(shape.colour, np.float32) + _texture(shape, scene.size)[..., None] * shape.strength
        soft = cv2.GaussianBlur(mask, (0, 0), 0.5).astype(np.float32)[..., None] / 255.0
        image = image * (1.0 - soft) + fill * soft
    if scene.blur > 0.0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), scene.blur))
    image = image * scene.gain + scene.noise * rng.standard_normal(image.shape, np.float32)
    return np.asarray(np.clip(np.round(image), 0, 255), np.uint8)


def _texture(shape: _Shape, size: int) -> Array:
    """Values from -1 to 1 that move with the shape: none, stripes, checks or rings."""
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


def _ground(scene: _Scene) -> Array:
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
            colour = _contrasting(scene.colour, rng, 22.0, 42.0)
            width = int(rng.integers(1, 3))
            start, stop = (int(ends[0]), int(ends[1])), (int(ends[2]), int(ends[3]))
            if rng.random() < 0.7:
                cv2.line(image, start, stop, colour, width)
            else:
                axes = (int(rng.integers(size // 12, size // 4)), int(rng.integers(size // 12, size // 4)))
                sweep = float(rng.uniform(60.0, 150.0))
                cv2.ellipse(image, start, axes, float(rng.uniform(0.0, 360.0)), 0.0, sweep, colour, width)
    return np.asarray(image, np.float32)
