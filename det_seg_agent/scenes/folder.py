"""Writing of the rendered data set to a folder, in COCO format with masks. Demo, tests and `compare` use it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from det_seg_agent.errors import ConfigError
from det_seg_agent.scenes.compose import Image, train_images, val_images
from det_seg_agent.scenes.draw import CATEGORIES, Array, render
from det_seg_agent.scenes.labels import polygons_of, settle, spoil
from det_seg_agent.scenes.mix import Mix

MARKER = "scenes.json"
TRUTH = "truth.json"

_FORMAT = "det_seg_agent.scenes/2"
_ENTRIES = frozenset({MARKER, TRUTH, "annotations", "train", "val", "masks"})
_JPEG_QUALITY = 92


def write_scenes(
    folder: Path,
    train: int = 320,
    val: int = 80,
    size: int = 160,
    seed: int = 0,
    hard: int = 25,
    duplicates: int = 35,
    wrong_labels: int = 10,
    classes: int = 4,
    long_tail: int = 1,
    class_colours: int = 0,
) -> Path:
    """Render the data set into `folder` and return its absolute path; does nothing if it is there already.

    Beside the data, `truth.json` says of each training image by file name its `kind`, the `group` of near-duplicates
    (null if it is none), what is `wrong` with its labels ("classes", "places" or null) and the true `classes`.

    Args:
        folder: output folder.
        train: number of training images.
        val: number of validation images.
        size: width and height in pixels, at least 64.
        seed: random seed.
        hard: percentage of training images with many small objects on busy ground; if it is not 0, half of the
            validation images are like that too.
        duplicates: percentage that are near-duplicates: slightly moved copies of six scenes.
        wrong_labels: percentage with all classes wrong, or with all masks and boxes in wrong places.
        classes: number of classes, from 2 to 8.
        long_tail: how often the commonest class appears for each time of the rarest; 1 for equal shares. The six
            scenes have copies in the same ratio. Classes of validation images are balanced.
        class_colours: percentage of objects in the colour of their class, on dull ground; others have any colour.

    Raises:
        ConfigError: if an argument is out of range, or the folder contains anything that this function did not write.
    """
    for name, value, least in (("train", train, 1), ("val", val, 1), ("size", size, 64), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"scenes: {name} is {value}; give {least} or more")
    mix = Mix(hard, duplicates, wrong_labels, classes, long_tail, class_colours)
    folder = Path(folder).expanduser().resolve()
    numbers = {"train": train, "val": val, "size": size, "seed": seed, **asdict(mix)}
    marker = {"format": _FORMAT, **{name: int(value) for name, value in numbers.items()}}
    if _read_marker(folder) == marker:
        return folder
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        truth = _write_split(fresh, "train", train_images(train, size, seed, mix), size, mix)
        _write_split(fresh, "val", val_images(val, size, seed, mix), size, mix)
        (fresh / TRUTH).write_text(json.dumps(truth, indent=0) + "\n", encoding="utf-8")
        (fresh / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        # Another process, such as another rank, may have rendered the same set in the meantime.
        if _read_marker(folder) != marker:
            _check_replaceable(folder)
            _swap(fresh, folder, Path(scratch) / "old", marker)
    return folder


def truth_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of every training image, by file name in the order of the data set; see `write_scenes`.

    Raises:
        ConfigError: if the folder has no readable truth.
    """
    path = Path(folder) / TRUTH
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: {key: row[key] for key in ("kind", "group", "wrong", "classes")} for name, row in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: the truth cannot be read ({error!r}); render it with write_scenes") from error


def kinds(folder: Path) -> dict[str, str]:
    """Return the kind of every training image, by file name.

    Raises:
        ConfigError: if the folder has no readable truth.
    """
    return {name: row["kind"] for name, row in truth_of(folder).items()}


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


def _write_split(root: Path, split: str, scenes: Sequence[Image], size: int, mix: Mix) -> dict[str, dict[str, Any]]:
    """Write images, masks and annotations of a split and return its truth."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    truth: dict[str, dict[str, Any]] = {}
    for folder in (root / "annotations", root / split, root / "masks" / split):
        folder.mkdir(parents=True, exist_ok=True)
    for image_id, image in enumerate(scenes, start=1):
        stem = f"{image_id:012d}"
        scene, visible = settle(image.scene)
        _write_image(root / split / f"{stem}.jpg", render(scene, visible, image.rng))
        labels = [(shape.category, mask) for shape, mask in zip(scene.shapes, visible, strict=True)]
        true = sorted({CATEGORIES[category] for category, _ in labels})
        wrong = None
        if image.kind == "wrong":
            wrong, labels = spoil(labels, size, image.rng, mix)
        truth[f"{stem}.jpg"] = {"kind": image.kind, "group": image.group, "wrong": wrong, "classes": true}
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
        images.append({"id": image_id, "file_name": f"{stem}.jpg", "width": size, "height": size, "kind": image.kind})
    document = {
        "info": {"description": "rendered scenes", "version": _FORMAT},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name, "supercategory": "shape"} for key, name in mix.names.items()],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document), encoding="utf-8")
    return truth


def _write_image(path: Path, image: Array) -> None:
    # Not imwrite, which only returns False on a full disk or for a path that it cannot encode.
    done, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if image.ndim == 3 else [])
    if not done:
        raise ConfigError(f"{path}: OpenCV cannot encode {path.suffix}; install a build of OpenCV with this codec")
    path.write_bytes(data.tobytes())
