"""`det-seg-agent inspect` for Ultralytics data YAMLs and COCO folders: reads the labels of the training images."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset, img2label_paths

from det_seg_agent.det.instances import KEPT, read_json
from det_seg_agent.det.label_files import read_label_files
from det_seg_agent.errors import ConfigError
from det_seg_agent.hosts.input_errors import input_errors
from det_seg_agent.inspecting.asked import Asked
from det_seg_agent.inspecting.contents import EXAMPLES, Contents, Fault
from det_seg_agent.inspecting.report import inspect

JSONS = ("instances_train2017.json", "instances_train.json")


def main(words: list[str]) -> int:
    """Run the command; return the exit status."""
    return inspect(words, lambda asked: (read_contents(asked), None))


def read_contents(asked: Asked) -> Contents:
    """Return the labels of the training images.

    Raises:
        ConfigError: if the data cannot be read.
    """
    path = Path(asked.data)
    if os.path.isdir(asked.data):
        found = [path / "annotations" / name for name in JSONS if (path / "annotations" / name).is_file()]
        if not found:
            raise ConfigError(
                f"data={path}: it has no annotations/{JSONS[0]} or {JSONS[1]}; give a data YAML or a JSON."
            )
        return read_coco_json(found[0])
    if path.suffix == ".json":
        return read_coco_json(path)
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"data={path}: give an Ultralytics data YAML, a COCO folder or JSON, or an MMEngine config.")
    return read_yaml(asked.data)


def read_yaml(data: str) -> Contents:
    """Return the labels that an Ultralytics data YAML names under `train`.

    Raises:
        ConfigError: if the YAML or its images are not there.
    """
    with input_errors(f"data={data}", "ultralytics", remedy="Give an Ultralytics data YAML or a COCO folder."):
        content = check_det_dataset(data, autodownload=False)
    names = [str(name) for _, name in sorted(content["names"].items())]
    train = content["train"]
    files = image_files([str(each) for each in (train if isinstance(train, list) else [train])])
    if not files:
        raise ConfigError(f"data={data}: train={train} has no images; correct it.")
    rows = read_label_files(img2label_paths(files))
    faults = []
    good = (rows.cls == np.floor(rows.cls)) & (rows.cls >= 0) & (rows.cls < len(names))
    for places, what, remedy in (
        (rows.bad, "lines that are no label", "A label is a class and a box of four numbers, or a polygon."),
        (rows.file[~good], f"objects of classes that are not 0 to {len(names) - 1}", "Correct them, or `names`."),
    ):
        if len(places):
            faults.append(Fault(what, len(places), np.unique(places)[:EXAMPLES].tolist(), remedy))
    return Contents(
        data, "objects", names, files, rows.file[good], rows.cls[good].astype(np.int32), np.ones(int(good.sum())),
        rows.boxes[good], np.zeros((len(files), 2), np.int32), faults, len(rows.absent),
    )  # fmt: skip


def image_files(given: list[str]) -> list[str]:
    """Return the image files in folders and in lists of files, as the host finds them, sorted.

    Raises:
        ConfigError: if a path is not there.
    """
    found: list[str] = []
    for path in given:
        if os.path.isdir(path):
            found += [os.path.join(root, name) for root, _, names in os.walk(path, followlinks=True) for name in names]
        elif os.path.isfile(path):
            lines = Path(path).read_text(encoding="utf-8-sig").strip().splitlines()
            parent = os.path.dirname(path) + os.sep
            found += [parent + line[2:] if line.startswith("./") else line for line in lines]
        else:
            raise ConfigError(f"train: {path} is not there; correct the data YAML.")
    return sorted(file for file in found if file.rpartition(".")[-1].lower() in IMG_FORMATS)


def read_coco_json(path: Path) -> Contents:
    """Return the labels of a COCO JSON; crowd regions are left out, as in training.

    Raises:
        ConfigError: if it cannot be read or is not a COCO instances JSON.
    """
    content = read_json(path, KEPT)
    images, categories = content["images"], content["categories"]
    folder = _folder_of(path, images)
    try:
        place = {row["id"]: i for i, row in enumerate(images)}
        number = {row["id"]: i for i, row in enumerate(categories)}
        names = [str(row["name"]) for row in categories]
        files = [str(folder / str(row.get("file_name") or Path(str(row["coco_url"])).name)) for row in images]
        sizes = np.array([(row.get("width") or 0, row.get("height") or 0) for row in images], np.int32).reshape(-1, 2)
        objects = [row for row in content["annotations"] if not row.get("iscrowd")]
        image = np.array([place.get(row["image_id"], -1) for row in objects], np.int64)
        cls = np.array([number.get(row["category_id"], -1) for row in objects], np.int32)
        boxes = np.array([row["bbox"] for row in objects], np.float64).reshape(-1, 4)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}; it is not a COCO instances JSON.") from error
    faults = []
    for wrong, what, remedy in (
        (image < 0, "objects of images that are not listed", "Remove them, or list the images."),
        ((cls < 0) & (image >= 0), "objects of categories that are not listed", "List the categories."),
    ):
        if wrong.any():
            examples = [i for i in np.unique(image[wrong])[:EXAMPLES].tolist() if i >= 0]
            faults.append(Fault(what, int(wrong.sum()), examples, remedy))
    scale = np.tile(np.maximum(sizes, 1), 2)[image] if len(images) else np.ones((0, 4))
    known = (image >= 0) & (cls >= 0)
    known[known] &= (sizes[image[known]] > 0).all(1)
    if unsized := int(((image >= 0) & (cls >= 0) & ~known).sum()):
        faults.append(Fault("objects of images without width and height", unsized, [], "Give them in the JSON."))
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) / scale
    order = np.flatnonzero(known)[np.argsort(image[known], kind="stable")]
    return Contents(
        str(path), "objects", names, files, image[order], cls[order], np.ones(len(order)),
        corners[order].astype(np.float32), sizes, faults,
    )  # fmt: skip


def _folder_of(path: Path, images: list[dict[str, Any]]) -> Path:
    """Return the folder that has a JSON's first images: beside its own, named as its split."""
    split = path.stem.removeprefix("instances_")
    root = path.parent.parent
    candidates = [root / split, root / "images" / split, root / "images", root, path.parent]
    for folder in candidates:
        if any((folder / str(row.get("file_name"))).is_file() for row in images[:3]):
            return folder
    return candidates[0]
