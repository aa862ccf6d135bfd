"""COCO metrics by pycocotools, and matching of a JSON or labels to the data; for `det.judge` and `det.truth`."""

import contextlib
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_seg_agent.errors import ConfigError

NAMES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
MOST_DETECTIONS = 100  # COCO's limit of detections per class and image


def find_val_json(data: dict[str, Any], split: str = "val") -> Path | None:
    """Return the COCO JSON of the validation set in `annotations/` beside the data; None if there is none.

    Args:
        data: the result of the host's `check_det_dataset`.
        split: the host's setting.
    """
    val = data.get(split or "val")
    if isinstance(val, list | tuple) and len(val) == 1:
        val = val[0]
    if not isinstance(val, str | Path):
        return None
    base = Path(str(data["path"])) if data.get("path") else Path(str(data["yaml_file"])).parent
    for folder in (base, Path(str(data.get("yaml_file", base))).parent, base.parent):
        path = folder / "annotations" / f"instances_{Path(val).name.removesuffix('.txt')}.json"
        if path.is_file():
            return path
    return None


def coco_metrics(
    truth: dict[str, Any],
    predictions: list[dict[str, Any]],
    image_ids: Iterable[int],
    kind: str = "bbox",
    max_det: int = MOST_DETECTIONS,
) -> dict[str, float]:
    """Return the 12 metrics of a pycocotools evaluation, by `NAMES`; -1 if undefined.

    At most 100 detections per class and image count, as in COCO, or `max_det` if an image has more objects of a class.

    Args:
        truth: ground truth in COCO's format; its categories are the classes.
        predictions: detections in COCO's result format.
        image_ids: ids of the images to evaluate.
        kind: `bbox` or `segm`.
        max_det: the host's limit of detections per image.
    """
    judge = evaluation(truth, predictions, image_ids, kind, max_det)
    with contextlib.redirect_stdout(io.StringIO()):
        judge.accumulate()
    # `summarize` only supports a limit of 100. Axes: IoU, recall, class, area, limit.
    precision, recall = judge.eval["precision"][..., -1], judge.eval["recall"]
    ap = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., area] for area in (1, 2, 3))]
    ar = [*(recall[..., 0, limit] for limit in (0, 1, 2)), *(recall[..., area, -1] for area in (1, 2, 3))]
    return dict(zip(NAMES, map(_mean, (*ap, *ar))))


def evaluation(
    truth: dict[str, Any], predictions: list[dict[str, Any]], image_ids: Iterable[int], kind: str, max_det: int
) -> Any:
    """Return pycocotools' `COCOeval` after `evaluate`, which matches detections to objects.

    The arguments are those of `coco_metrics`.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = sorted(image_ids)
    # pycocotools needs these fields, which hand-made files often lack; it treats id 0 as no match.
    annotations = [
        {"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a, "id": i} for i, a in enumerate(truth["annotations"], 1)
    ]
    limits = [1, 10, MOST_DETECTIONS]
    if max_det > MOST_DETECTIONS and most_objects(annotations, ids) > MOST_DETECTIONS:
        limits.append(max_det)
    with contextlib.redirect_stdout(io.StringIO()):
        ground, found = COCO(), COCO()
        ground.dataset = {"info": {}, **truth, "annotations": annotations}
        found.dataset = {**ground.dataset, "annotations": []}
        ground.createIndex()
        found.createIndex()
        judge = COCOeval(ground, ground.loadRes(predictions) if predictions else found, kind)
        judge.params.imgIds, judge.params.maxDets = ids, limits
        judge.evaluate()
    return judge


def _mean(values: NDArray[np.float64]) -> float:
    there = values[values > -1]
    return float(there.mean()) if there.size else -1.0


def most_objects(annotations: list[dict[str, Any]], image_ids: Iterable[int]) -> int:
    """Return the largest number of objects of one class in an image."""
    known = set(image_ids)
    counts = Counter((a["image_id"], a["category_id"]) for a in annotations if a["image_id"] in known)
    return max(counts.values(), default=0)


def format_table(metrics: dict[str, float], kind: str = "bbox") -> str:
    """Return the 12 metrics as text in two columns."""
    left, right = NAMES[:6], NAMES[6:]
    rows = [f"  {a:<10}{metrics[a]:7.3f}    {b:<10}{metrics[b]:7.3f}" for a, b in zip(left, right)]
    return f"COCO metrics (pycocotools, {kind})\n" + "\n".join(rows)


def restricted(truth: dict[str, Any], category: dict[int, int], single: bool) -> tuple[dict[str, Any], dict[int, int]]:
    """Return the ground truth restricted to the trained classes, and the map from class index to category id.

    Args:
        truth: ground truth in COCO's format.
        category: maps trained class indices to category ids.
        single: whether all classes were trained as one, the host's `single_cls`.
    """
    kept = set(category.values())
    annotations = [a for a in truth["annotations"] if a["category_id"] in kept]
    categories = [c for c in truth["categories"] if c["id"] in kept]
    if single:
        annotations = [{**a, "category_id": 1} for a in annotations]
        categories, category = [{"id": 1, "name": "item"}], {0: 1}
    return {**truth, "annotations": annotations, "categories": categories}, category


def match_images(images: list[dict[str, Any]], files: list[str], source: Any) -> dict[str, int]:
    """Map image files to image ids, by the longest suffix of the path in the JSON, else by the bare file name.

    For files behind symbolic links, the resolved path is tried as well.

    Args:
        images: rows of the JSON.
        files: image files of the data set.
        source: path of the JSON, for messages.

    Raises:
        ConfigError: if a file is not in the JSON, or two files match the same image.
    """
    by_path = {Path(image["file_name"]).as_posix(): int(image["id"]) for image in images}
    by_name: dict[str, set[int]] = {}
    for path, image_id in by_path.items():
        by_name.setdefault(Path(path).name, set()).add(image_id)
    ids: dict[str, int] = {}
    taken: dict[int, str] = {}
    unknown = []
    for file in dict.fromkeys(files):
        _, found = max((_longest_end(path, by_path) for path in (Path(file), Path(file).resolve())), key=lambda x: x[0])
        if found is None and len(same := by_name.get(Path(file).name, set())) == 1:
            found = next(iter(same))
        if found is None:
            unknown.append(file)
        elif found in taken:
            raise ConfigError(f"{source}: {taken[found]} and {file} are one image in it; give their folders there.")
        else:
            ids[file], taken[found] = found, file
    if unknown:
        some = ", ".join("/".join(Path(file).parts[-2:]) for file in unknown[:2])
        raise ConfigError(
            f"{source}: {len(unknown)} of {len(ids) + len(unknown)} validation images are not in it ({some}); "
            "give the set's own JSON."
        )
    return ids


def _longest_end(path: Path, by_path: dict[str, int]) -> tuple[int, int | None]:
    """Return the number of parts of the longest known suffix of a path, and its image id; (0, None) if none is."""
    for i in range(len(path.parts)):
        end = "/".join(path.parts[i:]) if i else path.as_posix()
        if end in by_path:
            return len(path.parts) - i, by_path[end]
    return 0, None


def match_categories(categories: list[dict[str, Any]], names: dict[int, str], source: Any) -> dict[int, int]:
    """Map class indices to category ids, by name; either side may have additional classes.

    Raises:
        ConfigError: if neither set of names contains the other, or names are not unique.
    """
    by_name = {str(c["name"]): int(c["id"]) for c in categories}
    # The conversion of a COCO folder names an id without category `unused_7`.
    real = {index: name for index, name in names.items() if name != f"unused_{index + 1}" or name in by_name}
    if len(by_name) < len(categories):
        raise ConfigError(f"{source}: two of its categories have one name; rename one.")
    if len(set(real.values())) < len(real):
        raise ConfigError(f"{source}: two classes of the data have one name; rename one.")
    # A partial overlap means that the lists do not belong together.
    if set(real.values()) <= set(by_name) or set(by_name) <= set(real.values()):
        return {index: by_name[name] for index, name in real.items() if name in by_name}
    unlike = sorted(set(real.values()) - set(by_name))
    alike = [(a, b) for a in unlike for b in by_name if "".join(a.split()).lower() == "".join(b.split()).lower()]
    hint = f" ({alike[0][0]!r} is not {alike[0][1]!r})" if alike else ""
    raise ConfigError(
        f"{source}: its {len(by_name)} categories {sorted(by_name)[:5]} are not the {len(real)} classes of the data "
        f"{list(real.values())[:5]}{hint}; make the names agree."
    )


def truth_of_labels(dataset: Any, names: dict[int, str]) -> dict[str, Any]:
    """Convert the labels of the host's data set to COCO ground truth; `names` maps class indices to names."""
    from PIL import Image
    from ultralytics.data.utils import exif_size

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    # A file listed twice counts as one image.
    for image_id, label in enumerate({str(label["im_file"]): label for label in dataset.labels}.values(), 1):
        with Image.open(label["im_file"]) as image:
            width, height = exif_size(image)  # the host drops `shape` when it batches by aspect ratio
        images.append({"id": image_id, "file_name": str(label["im_file"]), "width": width, "height": height})
        outlines = label["segments"] or [None] * len(label["cls"])
        for cls, (x, y, w, h), outline in zip(label["cls"].reshape(-1).tolist(), label["bboxes"].tolist(), outlines):
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(cls) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
            if outline is not None:
                annotations[-1]["segmentation"] = [(outline * [width, height]).reshape(-1).tolist()]
    categories = [{"id": index + 1, "name": name} for index, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}
