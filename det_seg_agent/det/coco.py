"""COCO data in, COCO figures out: the host's converter, and pycocotools."""

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from det_seg_agent.errors import ConfigError

NAMES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
SPLITS = (("train2017", "val2017"), ("train", "val"))
MARK = "# Made from annotations/instances_*.json; made again when those change.\n"
MOST_CLASSES = 10_000


def prepare_data(data: str | Path, segments: bool = False) -> str:
    """Return what the host's `data=` takes: a folder of an MS-COCO download is converted once, the rest is as it is.

    The conversion is the host's own; it goes to `<folder>/ultralytics`, or for outlines (`segments`) in place of boxes
    to `<folder>/ultralytics-segments`, with links to the images.

    Raises:
        ConfigError: for a folder without the expected files, unreadable JSON, or a folder that cannot be written to.
    """
    root = Path(data)
    if not root.is_dir():
        return str(data)
    root = root.resolve()
    for splits in SPLITS:
        jsons = [root / "annotations" / f"instances_{split}.json" for split in splits]
        if all(path.is_file() for path in jsons) and all((root / split).is_dir() for split in splits):
            break
    else:
        wanted = [f"annotations/instances_{split}.json" for split in SPLITS[0]] + [f"{split}/" for split in SPLITS[0]]
        missing = [name for name in wanted if not (root / name).exists()]
        raise ConfigError(
            f"data={data}: not the folder of an MS-COCO download: {', '.join(wanted)} are expected (or train and val "
            f"as the names), and {', '.join(missing)} are missing; complete the folder, or give a data YAML."
        )
    target = root / ("ultralytics-segments" if segments else "ultralytics")
    ready = target / "data.yaml"
    if target.exists() and not (ready.is_file() and ready.read_text(encoding="utf-8").startswith(MARK)):
        raise ConfigError(f"data={data}: {target} is in the way of the conversion and not made by it; rename it.")

    def fresh() -> bool:
        return ready.is_file() and all(ready.stat().st_mtime >= path.stat().st_mtime for path in jsons)

    if fresh():
        return str(ready)
    if not os.access(root, os.W_OK):
        raise ConfigError(f"data={data}: the folder is not writable, and the labels go to {target}; make it writable.")
    with tempfile.TemporaryDirectory(dir=root, prefix=".ultralytics-") as work:
        built = _convert(root, jsons, splits, Path(work), segments)
        if target.exists() and not fresh():
            shutil.rmtree(target)
        if not fresh():  # else another process of this run was first
            os.replace(built, target)
    return str(ready)


def _convert(root: Path, jsons: list[Path], splits: tuple[str, str], work: Path, segments: bool) -> Path:
    from ultralytics.data.converter import coco91_to_coco80_class, convert_coco

    categories: dict[int, str] = {}
    files: list[list[str]] = []
    for path in jsons:
        content = read_json(path)
        try:
            categories.update({int(c["id"]): str(c["name"]) for c in content["categories"]})
            files.append(sorted(str(image["file_name"]) for image in content["images"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: a category or image without id, name or file_name ({error!r}).") from error
        # Labels are written under these names, so that none may lead out of the folder.
        for name in files[-1]:
            if Path(name).is_absolute() or {"..", "images"} & set(Path(name).parts[:-1]):
                raise ConfigError(f"{path}: file_name {name!r} must lie inside the split's folder; correct it.")
    if not categories:
        raise ConfigError(f"{jsons[0]}: no categories; at least one is needed.")
    official = {i + 1 for i, c in enumerate(coco91_to_coco80_class()) if c is not None}
    is_coco = set(categories) == official
    for id_ in categories:
        if not 1 <= id_ <= MOST_CLASSES:
            raise ConfigError(f"{jsons[0]}: category id {id_} is not in 1..{MOST_CLASSES}; renumber the categories.")
    ids = sorted(categories) if is_coco else list(range(1, max(categories) + 1))
    (work / "annotations").mkdir()
    for path in jsons:
        (work / "annotations" / path.name).symlink_to(path)
    built = work / "built"
    try:
        convert_coco(str(work / "annotations"), str(built), cls91to80=is_coco, use_segments=segments)
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ConfigError(
            f"data={root}: the host's converter cannot read {jsons[0].name} and {jsons[1].name} ({error!r}); an "
            "annotation may name an image that is not listed, or lack image_id, bbox or category_id."
        ) from error
    for names, split in zip(files, splits):
        # The host resolves links in `train:` and `val:`, and would look for labels beside the images; not in lists.
        (built / f"{split}.txt").write_text("".join(f"./images/{split}/{name}\n" for name in names), encoding="utf-8")
        (built / "labels" / split).mkdir(parents=True, exist_ok=True)
        (built / "images" / split).symlink_to(Path("..") / ".." / split)
    layout = {
        # No `path`: the host then takes the file's folder, and the data may be moved.
        "train": f"{splits[0]}.txt",
        # A list, as the host takes a plain .../val2017.txt with "coco" in it for the official 80 classes.
        "val": [f"{splits[1]}.txt"],
        "names": {i: categories.get(id_, f"unused_{id_}") for i, id_ in enumerate(ids)},
    }
    (built / "data.yaml").write_text(MARK + yaml.safe_dump(layout, sort_keys=False), encoding="utf-8")
    return built


def read_json(path: Path) -> dict[str, Any]:
    """Return a COCO JSON.

    Raises:
        ConfigError: if it cannot be read, or is not of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    missing = {"images", "annotations", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise ConfigError(f"{path}: {', '.join(sorted(missing))} missing; it is not a COCO instances JSON.")
    return dict(content)


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
