"""Writing of the rendered data set to a folder, in COCO format with masks. Demo, tests and `compare` use it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from det_seg_agent.errors import ConfigError
from det_seg_agent.scenes.compose import train_scenes, val_scenes
from det_seg_agent.scenes.draw import CATEGORIES, Array, Rng, Scene, render
from det_seg_agent.scenes.labels import polygons_of, settle, spoil

MARKER = "scenes.json"

_FORMAT = "det_seg_agent.scenes/1"
_ENTRIES = frozenset({MARKER, "annotations", "train", "val", "masks"})
_JPEG_QUALITY = 92


def write_scenes(
    folder: Path, train: int = 320, val: int = 80, size: int = 160, seed: int = 0, mislabelled: int = 10
) -> Path:
    """Render the data set into `folder` and return its absolute path; does nothing if it is there already.

    Args:
        folder: output folder.
        train: number of training images.
        val: number of validation images.
        size: width and height in pixels, at least 64.
        seed: random seed.
        mislabelled: percentage of training images with wrong labels; the other kinds keep their proportions.

    Raises:
        ConfigError: if an argument is out of range, or the folder contains anything that this function did not write.
    """
    for name, value, least in (("train", train, 1), ("val", val, 1), ("size", size, 64), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"scenes: {name} is {value}; give {least} or more")
    if not 0 <= mislabelled < 100:
        raise ConfigError(f"scenes: mislabelled is {mislabelled}; give a percentage from 0 to 99")
    folder = Path(folder).expanduser().resolve()
    marker = {"format": _FORMAT, "train": int(train), "val": int(val), "size": int(size), "seed": int(seed)}
    if mislabelled != 10:
        marker["mislabelled"] = int(mislabelled)
    if _read_marker(folder) == marker:
        return folder
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        _write_split(fresh, "train", train_scenes(train, size, seed, mislabelled / 100), size)
        _write_split(fresh, "val", val_scenes(val, size, seed), size)
        (fresh / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        # Another process, such as another rank, may have rendered the same set in the meantime.
        if _read_marker(folder) != marker:
            _check_replaceable(folder)
            _swap(fresh, folder, Path(scratch) / "old", marker)
    return folder


def kinds(folder: Path) -> dict[str, str]:
    """Return the kind of every training image, by file name.

    Raises:
        ConfigError: if the folder has no readable kinds.
    """
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


def _write_split(root: Path, split: str, scenes: Sequence[tuple[str, Scene, Rng]], size: int) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for folder in (root / "annotations", root / split, root / "masks" / split):
        folder.mkdir(parents=True, exist_ok=True)
    for image_id, (kind, scene, rng) in enumerate(scenes, start=1):
        stem = f"{image_id:012d}"
        scene, visible = settle(scene)
        _write_image(root / split / f"{stem}.jpg", render(scene, visible, rng))
        labels = [(shape.category, mask) for shape, mask in zip(scene.shapes, visible, strict=True)]
        if kind == "mislabelled":
            labels = spoil(labels, size, rng)
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
                    "segmentation": polygons_of(mask),
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
    # Not imwrite, which only returns False on a full disk or for a path that it cannot encode.
    done, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if image.ndim == 3 else [])
    if not done:
        raise ConfigError(f"{path}: OpenCV cannot encode {path.suffix}; install a build of OpenCV with this codec")
    path.write_bytes(data.tobytes())
