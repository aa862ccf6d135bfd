"""Bright squares and bars on grey, which a tiny detector learns in seconds, with labels and a COCO JSON beside them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

CLASSES = {"square": (230, 60, 60), "bar": (60, 230, 60), "dot": (60, 60, 230)}


def write_shapes(root: Path, train: int = 12, val: int = 8, **more: Any) -> Path:
    """Write a data set of 64 px, two objects of two classes an image; return its YAML."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
        for i in range(count):
            image, lines = np.full((64, 64, 3), 40, np.uint8), []
            content["images"].append({"id": i + 1, "file_name": f"{i:03d}.png", "width": 64, "height": 64})
            for k in range(2):
                c = (i + k) % 3
                w, h = [(24, 24), (28, 14), (16, 16)][c]
                x, y = int(rng.integers(0, 4)) + 32 * k, int(rng.integers(0, 63 - h))
                image[y : y + h, x : x + w] = list(CLASSES.values())[c]
                lines.append(f"{c} {(x + w / 2) / 64} {(y + h / 2) / 64} {w / 64} {h / 64}\n")
                row = {"id": len(content["annotations"]) + 1, "image_id": i + 1, "category_id": c + 1}
                content["annotations"].append({**row, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
            Image.fromarray(image).save(root / "images" / split / f"{i:03d}.png")
            (root / "labels" / split / f"{i:03d}.txt").write_text("".join(lines))
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    layout = {"path": str(root), "train": "images/train", "val": "images/val", "names": list(CLASSES), **more}
    (root / "data.yaml").write_text(yaml.safe_dump(layout))
    return root / "data.yaml"


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change a JSON in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def change_labels(root: Path, change: Callable[[list[list[str]]], list[list[str]]], split: str = "") -> None:
    """Change the rows of each label file."""
    for path in (root / "labels").rglob(f"{split or '*'}/*.txt"):
        rows = change([line.split() for line in path.read_text().splitlines()])
        path.write_text("".join(" ".join(row) + "\n" for row in rows))
