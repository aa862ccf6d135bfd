"""Reading and normalising COCO instances JSON, for the conversion of a COCO folder and for evaluation."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from det_seg_agent.errors import ConfigError

Row = dict[str, Any]
Size = tuple[int, int]

NO_SIZE = "boxes without a size"
OUTSIDE = "objects outside their image"
NO_CATEGORY = "objects of a category that is not listed"
TWICE = "objects listed twice"
SAME_FILE = "images listed twice"


# What is read of a JSON to inspect it: outlines alone are most of a large one.
KEPT = frozenset((
    "images", "annotations", "categories", "id", "name", "file_name", "coco_url", "width", "height", "image_id",
    "category_id", "bbox", "iscrowd",
))  # fmt: skip


def read_json(path: Path, kept: Set[str] | None = None) -> Row:
    """Return a COCO JSON unchanged.

    Args:
        path: path of the JSON.
        kept: keys of objects, at any depth, to keep; the others are dropped while it is read, which saves memory.

    Raises:
        ConfigError: if it cannot be read or is not a COCO instances JSON.
    """
    try:
        hook = None if kept is None else (lambda row: {key: row[key] for key in row if key in kept})
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=hook)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error
    missing = {"images", "annotations", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise ConfigError(f"{path}: {', '.join(sorted(missing))} missing; it is not a COCO instances JSON.")
    for key in ("images", "annotations", "categories"):
        rows = content[key]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError(f"{path}: {key} is not a list of objects; it is not a COCO instances JSON.")
    return dict(content)


def read_coco(
    path: Path,
    outlines: bool = False,
    size: Callable[[str], Size | None] = lambda name: None,
    numbers: dict[str, int] | None = None,
) -> tuple[Row, Counter[str]]:
    """Return a normalised COCO JSON, and the number of objects and images left out, by reason.

    Image and annotation ids become 1, 2, ...; integer category ids are kept; file names have forward slashes;
    `iscrowd` and `area` are always present. An image's `width` and `height` (pixels) may be None.

    Args:
        path: path of the JSON.
        outlines: whether objects with equal box and category but different outlines are distinct.
        size: returns (width, height) in pixels of a file name, called if the JSON has no size.
        numbers: filled with the numbers given to textual category ids; pass it on to number another JSON alike.

    Raises:
        ConfigError: if it cannot be read, or rows lack required fields or contradict each other.
    """
    content = read_json(path)
    left_out: Counter[str] = Counter()
    categories = _categories(content["categories"], path, {} if numbers is None else numbers)
    images = _images(content["images"], path, size, left_out)
    annotations = _annotations(content["annotations"], path, images, categories, outlines, left_out)
    return {
        "images": list({row["id"]: row for row in images.values()}.values()),
        "annotations": annotations,
        "categories": list(categories.values()),
    }, left_out


def _key(value: Any) -> Any:
    """Return a normalised id: 7, 7.0 and "7" are equal."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and str(int(value)) == value:
        return int(value)
    return value if isinstance(value, int) else str(value)


def _given(row: Row, *keys: str) -> bool:
    return all(row.get(key) is not None for key in keys)


def _categories(rows: list[Row], path: Path, numbers: dict[str, int]) -> dict[Any, Row]:
    if not rows:
        raise ConfigError(f"{path}: no categories; at least one is needed.")
    result: dict[Any, Row] = {}
    for row in rows:
        if not _given(row, "id", "name"):
            raise ConfigError(f"{path}: category {row} has no id or no name; give it both (supercategory is not used).")
        key, name = _key(row["id"]), str(row["name"])
        number = numbers.setdefault(key, len(numbers) + 1) if isinstance(key, str) else key
        if result.setdefault(key, {"id": number, "name": name})["name"] != name:
            raise ConfigError(f"{path}: category id {row['id']!r} is {result[key]['name']!r} and {name!r}; renumber.")
    if len({row["id"] for row in result.values()}) < len(result):
        raise ConfigError(f"{path}: some category ids are numbers and some are text; use one kind.")
    return result


def _images(rows: list[Row], path: Path, size: Callable[[str], Size | None], left_out: Counter[str]) -> dict[Any, Row]:
    result: dict[Any, Row] = {}
    by_file: dict[str, Row] = {}
    for row in rows:
        # LVIS has no file_name, but its coco_url ends with folder and name.
        name = row.get("file_name") or urlsplit(str(row.get("coco_url") or "")).path.lstrip("/")
        if not name or not _given(row, "id"):
            raise ConfigError(f"{path}: image {row} has no id or no file_name; give it both.")
        name = Path(str(name).replace("\\", "/")).as_posix()
        key = _key(row["id"])
        if key in result and result[key]["file_name"] != name:
            raise ConfigError(f"{path}: image id {row['id']!r} is {result[key]['file_name']} and {name}; renumber.")
        if name in by_file:
            left_out[SAME_FILE] += 1
        else:
            width, height = (row["width"], row["height"]) if _sized(row) else size(name) or (None, None)
            by_file[name] = {"id": len(by_file) + 1, "file_name": name, "width": width, "height": height}
        result[key] = by_file[name]
    return result


def _sized(row: Row) -> bool:
    return _numbers([row.get("width"), row.get("height")]) and row["width"] > 0 and row["height"] > 0


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def _annotations(
    rows: list[Row],
    path: Path,
    images: dict[Any, Row],
    categories: dict[Any, Row],
    outlines: bool,
    left_out: Counter[str],
) -> list[Row]:
    needed = ("image_id", "bbox", "category_id")
    _refuse(
        [row for row in rows if not _given(row, *needed)],
        rows,
        path,
        "lack image_id, bbox or category_id, which the host's converter and pycocotools need; complete or remove them",
    )
    boxes = [row["bbox"] for row in rows]
    bad = [r for r, b in zip(rows, boxes) if not (isinstance(b, list | tuple) and len(b) == 4 and _numbers(b))]
    _refuse(bad, rows, path, "have a bbox that is not four numbers, where the host's converter stops; correct them")
    _refuse(
        [row for row in rows if _key(row["image_id"]) not in images],
        rows,
        path,
        "name an image that is not listed, where the host's converter stops; remove them, or list their images",
    )
    result: list[Row] = []
    seen: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        image, category = images[_key(row["image_id"])], categories.get(_key(row["category_id"]))
        x, y, w, h = box = [float(v) for v in row["bbox"]]
        outline = row.get("segmentation") if outlines else None
        crowd = int(bool(row.get("iscrowd")))
        reason = None
        if category is None:
            reason = NO_CATEGORY
        elif w <= 0 or h <= 0:
            reason = NO_SIZE
        elif image["width"] and (x + w <= 0 or y + h <= 0 or x >= image["width"] or y >= image["height"]):
            reason = OUTSIDE
        elif outline in (others := seen.setdefault((image["id"], category["id"], crowd, *box), [])):
            reason = TWICE
        if reason is not None or category is None:
            left_out[reason or NO_CATEGORY] += 1
            continue
        others.append(outline)
        area = row.get("area")
        result.append(
            {
                "id": len(result) + 1,  # pycocotools treats id 0 as no match
                "image_id": image["id"],
                "category_id": category["id"],
                "bbox": box,
                "area": area if _numbers([area]) else w * h,
                "iscrowd": crowd,
                **({"segmentation": row["segmentation"]} if row.get("segmentation") else {}),
            }
        )
    return result


def _refuse(bad: list[Row], rows: list[Row], path: Path, why: str) -> None:
    if bad:
        row = {key: bad[0].get(key) for key in ("id", "image_id", "category_id", "bbox")}
        raise ConfigError(f"{path}: {len(bad)} of {len(rows)} annotations {why}. The first is {row}.")
