"""COCO figures by pycocotools, of what the host's validator predicts."""

import contextlib
import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from det_seg_agent.det.convert import read_json
from det_seg_agent.errors import ConfigError

NAMES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


def find_val_json(data: dict[str, Any]) -> Path | None:
    """Return the COCO JSON of the validation set that lies beside the data, if there is one.

    `data` is what the host's `check_det_dataset` returns.
    """
    val = data.get("val")
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
    truth: dict[str, Any], predictions: list[dict[str, Any]], image_ids: Iterable[int], kind: str = "bbox"
) -> dict[str, float]:
    """Return the 12 figures of pycocotools' `bbox` or `segm` evaluation over `image_ids`; -1 for what is not there."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not predictions:
        return dict.fromkeys(NAMES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        # pycocotools needs these fields, which hand-made files often lack.
        annotations = [
            {"id": i, "iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a}
            for i, a in enumerate(truth["annotations"], 1)
        ]
        ground.dataset = {"info": {}, **truth, "annotations": annotations}
        ground.createIndex()
        judge = COCOeval(ground, ground.loadRes(predictions), kind)
        judge.params.imgIds = sorted(image_ids)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(NAMES, map(float, judge.stats)))


def format_table(metrics: dict[str, float], kind: str = "bbox") -> str:
    """Return the 12 figures in two columns."""
    left, right = NAMES[:6], NAMES[6:]
    rows = [f"  {a:<10}{metrics[a]:7.3f}    {b:<10}{metrics[b]:7.3f}" for a, b in zip(left, right)]
    return f"COCO metrics (pycocotools, {kind})\n" + "\n".join(rows)


def evaluate(weights: Path, data: str, val_json: Path | None, **arguments: Any) -> dict[str, float]:
    """Judge the boxes of weights; see `evaluate_kinds`."""
    return evaluate_kinds(weights, data, val_json, **arguments)["bbox"]


def evaluate_kinds(weights: Path, data: str, val_json: Path | None, **arguments: Any) -> dict[str, dict[str, float]]:
    """Judge weights on the validation set by pycocotools; arguments are the host's (imgsz, batch, device, ...).

    Without `val_json` the set's labels are the ground truth.

    Returns:
        `bbox` -> its 12 figures, and `segm` -> its 12 figures for weights that predict masks and data with outlines.

    Raises:
        ConfigError: if classes or images of the JSON are not those of the data.
    """
    from ultralytics import YOLO

    model = YOLO(weights)
    kinds = ("bbox", "segm") if model.task == "segment" else ("bbox",)

    class Collector(model.task_map[model.task]["validator"]):  # type: ignore[misc,name-defined]
        """The host's validator, whose predictions are judged here and not by the host."""

        kept: dict[str, Any] = {}

        def init_metrics(self, model: Any) -> None:
            super().init_metrics(model)
            # Class indices as they are, and no second judgement of the host's own beside this one.
            self.class_map = list(range(len(model.names)))
            self.is_custom_json = self.build_gdict = False

        def pred_to_json(self, predn: dict[str, Any], pbatch: dict[str, Any]) -> None:
            start = len(self.jdict)
            super().pred_to_json(predn, pbatch)
            for prediction in self.jdict[start:]:
                prediction["file_name"] = str(pbatch["im_file"])  # the host's bare name may occur in two folders

        def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
            self.kept.update(predictions=self.jdict, names=self.names, data=self.dataloader.dataset)
            return stats

    with tempfile.TemporaryDirectory() as folder:
        fixed = {"data": data, "save_json": True, "plots": False, "project": folder, "name": "val"}
        model.val(validator=Collector, **{"conf": 0.001, "verbose": False, **arguments, **fixed})
    kept = Collector.kept
    if not kept:
        return {kind: dict.fromkeys(NAMES, 0.0) for kind in kinds}
    truth = read_json(val_json) if val_json else truth_of_labels(kept["data"], kept["names"])
    ids = match_images(truth["images"], [str(file) for file in kept["data"].im_files], val_json)
    if arguments.get("single_cls"):
        truth = one_category(truth)
    category = match_categories(truth["categories"], kept["names"], val_json)
    results = {}
    for kind, key in zip(kinds, ("bbox", "segmentation")):
        if not all(annotation.get(key) for annotation in truth["annotations"]):
            continue
        predictions = [
            {
                "image_id": ids[p["file_name"]],
                "category_id": category[p["category_id"]],
                key: p[key],
                "score": p["score"],
            }
            for p in kept["predictions"]
            if p["category_id"] in category
        ]
        results[kind] = coco_metrics(truth, predictions, ids.values(), kind)
    return results


def one_category(truth: dict[str, Any]) -> dict[str, Any]:
    """Return a COCO JSON whose objects are all of one category, as the host's `single_cls` trains them."""
    annotations = [{**a, "category_id": 1} for a in truth["annotations"]]
    return {**truth, "annotations": annotations, "categories": [{"id": 1, "name": "item"}]}


def match_images(images: list[dict[str, Any]], files: list[str], source: Any) -> dict[str, int]:
    """Return image file -> image id, by the longest end of the path that the JSON knows, or else by the bare name.

    Raises:
        ConfigError: if a file is not in the JSON.
    """
    by_path = {Path(image["file_name"]).as_posix(): int(image["id"]) for image in images}
    by_name: dict[str, set[int]] = {}
    for path, image_id in by_path.items():
        by_name.setdefault(Path(path).name, set()).add(image_id)
    ids: dict[str, int] = {}
    unknown = []
    for file in files:
        parts = Path(file).parts
        ends = ("/".join(parts[i:]) if i else Path(file).as_posix() for i in range(len(parts)))
        found = next((by_path[end] for end in ends if end in by_path), None)
        if found is None and len(same := by_name.get(parts[-1], set())) == 1:
            found = next(iter(same))
        if found is None:
            unknown.append(file)
        else:
            ids[file] = found
    if unknown:
        raise ConfigError(
            f"{source}: {len(unknown)} validation images, {unknown[0]} first, are not in it; give the set's own JSON."
        )
    return ids


def match_categories(categories: list[dict[str, Any]], names: dict[int, str], source: Any) -> dict[int, int]:
    """Return class index -> category id, by name, or by order where names differ and counts agree.

    Raises:
        ConfigError: if neither does.
    """
    by_name = {str(c["name"]): int(c["id"]) for c in categories}
    real = {index: name for index, name in names.items() if not name.startswith("unused_")}
    # One side may know more classes than the other, but a partial overlap means that the lists are not the same.
    if len(by_name) == len(categories) and (set(real.values()) <= set(by_name) or set(by_name) <= set(real.values())):
        return {index: by_name[name] for index, name in real.items() if name in by_name}
    if len(categories) == len(real):
        return dict(zip(sorted(real), sorted(int(c["id"]) for c in categories)))
    raise ConfigError(
        f"{source}: its {len(categories)} categories {sorted(by_name)[:5]} are not the model's {len(real)} classes "
        f"{list(real.values())[:5]}; make the names agree."
    )


def truth_of_labels(dataset: Any, names: dict[int, str]) -> dict[str, Any]:
    """Return COCO ground truth made of a YOLO data set's labels."""
    from PIL import Image
    from ultralytics.data.utils import exif_size

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, label in enumerate(dataset.labels, 1):
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
