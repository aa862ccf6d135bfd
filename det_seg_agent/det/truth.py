"""Ground truth for evaluation: a COCO JSON that matches the validation images, or their labels. `det.judge` uses it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from det_seg_agent.det.coco_metrics import (
    find_val_json,
    match_categories,
    match_images,
    restricted,
    truth_of_labels,
)
from det_seg_agent.det.instances import NO_CATEGORY, SAME_FILE, read_coco
from det_seg_agent.det.messages import LOGGER
from det_seg_agent.errors import ConfigError

COUNT_TOLERANCE = 0.01  # allowed difference in objects between labels and a JSON found beside the data, as a fraction


@dataclass
class Truth:
    """Ground truth for an evaluation."""

    content: dict[str, Any]  # in COCO's format, restricted to the trained classes
    ids: dict[str, int]  # image file -> image id
    category: dict[int, int]  # class index -> category id
    source: str  # description, for messages
    notes: list[str]  # differences from the labels, which the host evaluates on

    def results(self, kept: Mapping[str, Sequence[Mapping[str, Any]]], key: str = "bbox") -> list[dict[str, Any]]:
        """Return detections in COCO's result format, without those of classes that are not evaluated.

        Args:
            kept: by image file, the detections that the validator stored.
            key: `bbox` or `segmentation`.
        """
        return [
            {
                "image_id": self.ids[file],
                "category_id": self.category[row["class"]],
                "score": row["score"],
                key: row[key],
            }
            for file, rows in kept.items()
            for row in rows
            if row["class"] in self.category
        ]


def choose_json(dataset: Any, names: dict[int, str], args: Any, data: dict[str, Any], named: Any) -> Path | None:
    """Return the JSON to evaluate on: the one that the user named, or a matching one beside the data; None for labels.

    Args:
        dataset: the host's data set of the validation images.
        names: class names of the data, by index.
        args: the host's settings of the run.
        data: the result of the host's `check_det_dataset`.
        named: path of the user's JSON, or None.

    Raises:
        ConfigError: if the user's JSON is unusable.
    """
    path = Path(named) if named else find_val_json(data, args.split)
    if path is None:
        return None
    try:
        truth = truth_of_json(path, dataset, names, args)
        if not named:
            compare_counts(truth, dataset)
    except ConfigError as error:
        if named:
            raise ConfigError(f"agent.val_json: {error} Or drop agent.val_json to be judged by the labels.") from error
        LOGGER.warning(f"{error} It is set aside, and the run is judged by the labels of the validation set.")
        return None
    LOGGER.info("; ".join([f"judged by {path}", *truth.notes]))
    return path


def load_truth(path: Path | None, dataset: Any, names: dict[int, str], args: Any) -> Truth:
    """Return the ground truth from the JSON that `choose_json` chose, or from the labels; arguments as there."""
    if path is not None:
        return truth_of_json(path, dataset, names, args)
    content = truth_of_labels(dataset, {0: "item"} if args.single_cls else names)
    ids = {image["file_name"]: image["id"] for image in content["images"]}
    category = {c["id"] - 1: c["id"] for c in content["categories"]}
    return Truth(content, ids, category, "the labels of the validation set", [])


def truth_of_json(path: Path, dataset: Any, names: dict[int, str], args: Any) -> Truth:
    """Return the ground truth of a COCO JSON, restricted to the trained classes.

    Raises:
        ConfigError: if it cannot be read, or its images or classes do not match the data.
    """
    content, left_out = read_coco(path, outlines=args.task == "segment")
    for reason in (SAME_FILE, NO_CATEGORY):
        if left_out[reason]:
            raise ConfigError(f"{path}: {left_out[reason]} {reason}; correct the JSON.")
    ids = match_images(content["images"], [str(file) for file in dataset.im_files], path)
    category = match_categories(content["categories"], names, path)
    labels = count_labels(dataset)
    notes = []
    if not args.single_cls and (lacking := [names[c] for c in sorted(labels) if c not in category]):
        notes.append(f"it lacks classes that the labels have ({', '.join(lacking[:5])})")
    if args.classes is not None:
        trained = set(np.atleast_1d(args.classes).tolist())
        category = {index: id_ for index, id_ in category.items() if index in trained}
    content, category = restricted(content, category, bool(args.single_cls))
    used = set(ids.values())
    objects = [a for a in content["annotations"] if a["image_id"] in used]
    crowd = sum(a["iscrowd"] for a in objects)
    if crowd:
        notes.append(f"{crowd} crowd regions, which the labels lack, are ignored")
    if len(objects) - crowd != labels.total():
        notes.append(f"it has {len(objects) - crowd} objects, the labels have {labels.total()}")
    if args.task == "segment" and (without := drop_outlines(objects, content["images"], ids)):
        notes.append(f"masks are not judged: {without} objects have no outline that pycocotools takes")
    return Truth({**content, "annotations": objects}, ids, category, str(path), notes)


def count_labels(dataset: Any) -> Counter[int]:
    """Return the number of objects of each class index in the labels of the host's data set."""
    return Counter(int(c) for label in dataset.labels for c in label["cls"].reshape(-1))


def drop_outlines(objects: list[dict[str, Any]], images: list[dict[str, Any]], ids: dict[str, int]) -> int:
    """Remove outlines that pycocotools cannot read, and return the number of objects without one.

    Images without width and height get those of their files.
    """
    from PIL import Image
    from pycocotools import mask
    from ultralytics.data.utils import exif_size

    files, rows = {id_: file for file, id_ in ids.items()}, {row["id"]: row for row in images}
    without = 0
    for row in objects:
        image = rows[row["image_id"]]
        if image["width"] is None:
            with Image.open(files[image["id"]]) as opened:
                image["width"], image["height"] = exif_size(opened)
        outline = row.get("segmentation")
        try:
            if isinstance(outline, dict) and isinstance(outline["counts"], str):
                mask.area(outline)
            else:
                mask.frPyObjects(outline, image["height"], image["width"])
        except Exception:  # pycocotools raises many kinds
            row.pop("segmentation", None)
            without += 1
    return without


def compare_counts(truth: Truth, dataset: Any) -> None:
    """Refuse a JSON whose number of objects per class differs from that of the labels.

    Raises:
        ConfigError: if they differ by more than `COUNT_TOLERANCE`; never if the labels have no objects.
    """
    index = {id_: i for i, id_ in truth.category.items()}
    ours = Counter(index[a["category_id"]] for a in truth.content["annotations"] if not a["iscrowd"])
    labels = count_labels(dataset)
    differ = sum(abs(ours[c] - labels[c]) for c in {*ours, *labels})
    if labels and differ > COUNT_TOLERANCE * labels.total():
        raise ConfigError(
            f"{truth.source}: it has {ours.total()} objects in these images and classes, the labels have "
            f"{labels.total()} or other numbers in a class; agent.val_json= takes it all the same."
        )
