"""Tiny models and batches of every head of the real Ultralytics."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from ultralytics import RTDETR, YOLO
from ultralytics.cfg import get_cfg
from ultralytics.utils import ROOT

from det_seg_agent.det.coco_convert import prepare_data

CLASSES = 5
# Width and depth by family; YOLO11 and YOLO26 have attention with heads of 64 channels.
SCALES = {"yolov8": [0.33, 0.0625, 1024], "yolo11": [0.5, 0.125, 512], "yolo26": [0.5, 0.125, 512]}
FOLDERS = {"yolov8": "v8", "yolo11": "11", "yolo26": "26", "yolov10": "v10", "rtdetr": "v8"}


def write_head(folder: Path, name: str) -> str:
    """Write a narrow model of a name such as yolo11n-seg; return its file."""
    family, _, task = name.removesuffix("n").replace("n-", "-").partition("-")
    file = {"yolov10": "yolov10n", "rtdetr": "yolov8-rtdetr"}.get(family, f"{family}-{task}" if task else family)
    content = yaml.safe_load((ROOT / f"cfg/models/{FOLDERS[family]}/{file}.yaml").read_text())
    content["scales"] = {"n": SCALES.get(family, [0.33, 0.125, 1024])}
    if family == "rtdetr":
        content["scales"] = {"n": [0.33, 0.0625, 1024]}
        # hidden width, queries, points, heads, layers, width of the feed-forward, dropout, act, eval index, denoising
        content["head"][-1][-1] = ["nc", 32, 30, 4, 4, 2, 64, 0.0, None, -1, 20]
    if task == "pose":
        content["kpt_shape"] = [3, 3]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def build(folder: Path, name: str, classes: int = CLASSES, **arguments: Any) -> torch.nn.Module:
    """Return a model in training mode, with fixed weights; batch norms are fixed, so that images do not mix."""
    torch.manual_seed(0)
    host = host_of(write_head(folder, name))
    more = {"data_kpt_shape": [3, 3]} if host.task == "pose" else {}
    model = type(host.model)(host.model.yaml, nc=classes, verbose=False, **more).train()
    model.nc = classes  # as the trainer does
    model.args = get_cfg(overrides={"task": host.task, **arguments})
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model(torch.rand(4, 3, 64, 64))
    for norm in norms:
        norm.eval()
    return model


def batch_of(model: Any, where: tuple[int, ...] = (0, 0, 2, 3, 3, 3), images: int = 4) -> dict[str, Any]:
    """Return a batch for a model's task; `where` has the image of each object, and image 1 has none."""
    g = torch.Generator().manual_seed(0)
    n, task = len(where), model.args.task

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=g)

    batch: dict[str, Any] = {"img": rand(images, 3, 64, 64)}
    if task == "classify":
        batch["cls"] = torch.randint(0, CLASSES, (images,), generator=g)
    elif task == "semantic":
        batch["semantic_mask"] = torch.randint(
            0, 2 if model.model[-1].nc == 1 else CLASSES, (images, 64, 64), generator=g
        )
        batch["semantic_mask"][:, :20] = 255
    else:
        batch["batch_idx"] = torch.tensor(where).float()
        batch["cls"] = torch.randint(0, CLASSES, (n, 1), generator=g).float()
        batch["bboxes"] = torch.cat([rand(n, 2) * 0.4 + 0.3, rand(n, 2) * 0.2 + 0.2], 1)
    if task == "obb":
        batch["bboxes"] = torch.cat([batch["bboxes"], rand(n, 1) * 1.5], 1)
    if task == "pose":
        points = batch["bboxes"][:, None, :2] + (rand(n, 3, 2) - 0.5) * 0.2
        batch["keypoints"] = torch.cat([points, (rand(n, 3, 1) > 0.3).float() * 2], 2)
    if task == "segment":
        batch["masks"], batch["sem_masks"] = masks_of(batch, images, model.args.overlap_mask)
    return batch


def masks_of(batch: dict[str, Any], images: int, overlap: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return boxes as masks: (B, 16, 16) of one-based objects, or (N, 16, 16); and (B, 16, 16) of classes."""
    single = torch.zeros(len(batch["cls"]), 16, 16)
    joined, classes = torch.zeros(images, 16, 16), torch.zeros(images, 16, 16)
    seen = [0] * images
    for i, (x, y, w, h) in enumerate((batch["bboxes"] * 16).tolist()):
        image = int(batch["batch_idx"][i])
        seen[image] += 1
        at = (slice(int(y - h / 2), int(y + h / 2) + 1), slice(int(x - w / 2), int(x + w / 2) + 1))
        single[i][at] = 1
        joined[image][at] = seen[image]
        classes[image][at] = batch["cls"][i, 0]
    return joined if overlap else single, classes


def host_of(file: str) -> Any:
    """Return the host's model of a file, as its command line would."""
    return (RTDETR if "rtdetr" in Path(file).stem else YOLO)(file)


def write_data(scenes: Path, task: str, folder: Path) -> str:
    """Return the host's `data=` for a task, made of the scenes' outlines."""
    if task in ("segment", "semantic"):
        return prepare_data(scenes, segments=True)
    if task == "detect":
        return prepare_data(scenes)
    outlines = Path(prepare_data(scenes, segments=True))
    root = folder / task
    for split in ("train", "val"):
        for image in sorted((scenes / split).iterdir()):
            label = outlines.parent / "labels" / split / f"{image.stem}.txt"
            rows = [line.split() for line in label.read_text().splitlines()] if label.exists() else []
            if task == "classify":
                target = root / split / f"class_{rows[0][0] if rows else 0}" / image.name
            else:
                target = root / "images" / split / image.name
                lines = [f"{row[0]} {label_of(np.array(row[1:], np.float32).reshape(-1, 2), task)}" for row in rows]
                text = root / "labels" / split / f"{image.stem}.txt"
                text.parent.mkdir(parents=True, exist_ok=True)
                text.write_text("\n".join(lines))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, target)
    if task == "classify":
        return str(root)
    content = yaml.safe_load(outlines.read_text())
    layout = {"path": str(root), "train": "images/train", "val": "images/val", "names": content["names"]}
    (root / "data.yaml").write_text(yaml.safe_dump({**layout, "kpt_shape": [3, 3], "flip_idx": [0, 1, 2]}))
    return str(root / "data.yaml")


def label_of(points: np.ndarray, task: str) -> str:
    """Return an object's label: the corners of its rotated box, or its box and three of its outline's points."""
    if task == "obb":
        values = cv2.boxPoints(cv2.minAreaRect(points)).clip(0, 1).ravel().tolist()
    else:
        low, high = points.min(0), points.max(0)
        three = points[[0, len(points) // 3, 2 * len(points) // 3]]
        values = [*((low + high) / 2), *(high - low), *np.c_[three, [2, 1, 2]].ravel()]
    return " ".join(f"{value:.5f}" for value in values)
