"""One split of a COCO folder: its images, the objects that can be used, and a log line. `coco_convert` uses it."""

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from det_seg_agent.det.instances import SAME_FILE, Row, Size, read_coco
from det_seg_agent.errors import ConfigError

MARGIN = 0.01  # fraction of an image's size; the host drops an image whose labels exceed it by more
CROWD = "crowd regions (iscrowd=1)"
NOT_THERE = "objects of images that are not there"
BOX_OUTLINE = "objects without an outline, which get that of their box"
CUT = "objects cut to their image"


class Split:
    """Prepares one JSON of the folder for the host's converter: groups of images by link, with usable objects.

    The host finds labels by replacing the last `/images/` of a path by `/labels/`. Folders named `images` below the
    split's folder therefore get a link of their own, under another name.

    Args:
        root: the COCO folder.
        path: the JSON.
        split: name of the split's folder of images.
        segments: whether outlines are needed.
        numbers: see `read_coco`.

    Raises:
        ConfigError: if the JSON is unusable.
    """

    def __init__(self, root: Path, path: Path, split: str, segments: bool, numbers: dict[str, int]):
        self.folder, self.path, self.split, self.segments = root / split, path, split, segments
        self._listing = cache(lambda folder: set(os.listdir(folder)) if folder.is_dir() else set())
        content, self.left_out = read_coco(path, segments, self.size, numbers)
        self.categories: list[Row] = content["categories"]
        self.objects = len(content["annotations"]) + sum(n for r, n in self.left_out.items() if r != SAME_FILE)
        self.notes: Counter[str] = Counter()
        self.missing: list[str] = []
        self.links: dict[str, str] = {}  # folder inside the split's folder -> name of its link
        self.groups: dict[str, list[Row]] = {}  # name of the link -> images, with paths relative to it
        by_id: dict[int, Row] = {}
        for image in content["images"]:
            name = self.place(image["file_name"])
            if not (there := self.there(name)):
                self.missing.append(image["file_name"])
            link, inner = self.link(name)
            by_id[image["id"]] = row = {**image, "file_name": inner, "there": there, "annotations": []}
            self.groups.setdefault(link, []).append(row)
        for annotation in content["annotations"]:
            self.take(by_id[annotation["image_id"]], annotation)
        rows = by_id.values()
        self.images, self.kept = len(rows), sum(len(row["annotations"]) for row in rows)
        self.empty = sum(row["there"] and not row["annotations"] for row in rows)
        self.check()

    def place(self, name: str) -> str:
        """Return the path of a file relative to the split's folder.

        Raises:
            ConfigError: if it is outside the folder.
        """
        path = PurePosixPath(name)
        if path.is_absolute() and path.is_relative_to(self.folder.as_posix()):
            return str(path.relative_to(self.folder.as_posix()))
        if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(":"):
            # Labels are written under these names, so none may be outside the folder.
            raise ConfigError(f"{self.path}: file_name {name!r} must lie inside the split's folder; correct it.")
        if path.parts[0] == self.split and not self.there(name) and len(path.parts) > 1:
            return str(path.relative_to(self.split))
        return name

    def there(self, name: str) -> bool:
        """Return whether the split's folder contains the file, in a format that the host reads."""
        from ultralytics.data.utils import IMG_FORMATS

        path = self.folder / name
        return path.name in self._listing(path.parent) and path.suffix[1:].lower() in IMG_FORMATS

    def size(self, name: str) -> Size | None:
        """Return an image's (width, height) in pixels from its file, as the host reads it; None if unreadable."""
        from PIL import Image
        from ultralytics.data.utils import exif_size

        try:
            with Image.open(self.folder / self.place(name)) as image:
                width, height = exif_size(image)
        except OSError:
            return None
        return width, height

    def link(self, name: str) -> tuple[str, str]:
        """Return the name of the link to an image's folder, and the image's path relative to it."""
        path = PurePosixPath(name)
        if "images" not in path.parent.parts:
            return self.links.setdefault(".", self.split), name
        return self.links.setdefault(str(path.parent), f"{self.split}-{len(self.links) + 1}"), path.name

    def take(self, image: Row, annotation: Row) -> None:
        """Add an object to its image, clipped to the image, or count why it is left out."""
        if annotation["iscrowd"]:
            self.left_out[CROWD] += 1
            return
        if not image["there"]:
            self.left_out[NOT_THERE] += 1
            return
        width, height = image["width"], image["height"]
        if width is None:
            raise ConfigError(
                f"{self.path}: image {image['file_name']} has no width and height, and its file cannot be read; give "
                "them."
            )
        row = {key: annotation[key] for key in ("image_id", "category_id", "bbox", "iscrowd")}
        x, y, w, h = row["bbox"]
        xs, ys = [x, x + w], [y, y + h]
        if self.segments:
            outline = annotation.get("segmentation")
            polygons = _polygons(outline)
            if not polygons and not (isinstance(outline, dict) and outline.get("size") == [height, width]):
                self.notes[BOX_OUTLINE] += 1
            row["segmentation"] = polygons or outline
            xs += [v for polygon in polygons for v in polygon[::2]]
            ys += [v for polygon in polygons for v in polygon[1::2]]
        if (
            min(xs) < -MARGIN * width
            or max(xs) > (1 + MARGIN) * width
            or (min(ys) < -MARGIN * height or max(ys) > (1 + MARGIN) * height)
        ):
            self.notes[CUT] += 1
            _cut(row, width, height)
        image["annotations"].append(row)

    def check(self) -> None:
        """Refuse a split without usable images or objects, and images that would share a label file.

        Raises:
            ConfigError: names the fault and the remedy.
        """
        if not self.images:
            raise ConfigError(f"{self.path}: it lists no images; give the split's own JSON.")
        if len(self.missing) == self.images:
            raise ConfigError(
                f"{self.path}: none of its {self.images} images is in {self.folder}, of a format that the host "
                f"reads ({', '.join(self.missing[:2])}); correct file_name, or put the images there."
            )
        for rows in self.groups.values():
            seen: dict[PurePosixPath, str] = {}
            for name in (row["file_name"] for row in rows):
                stem = PurePosixPath(name).with_suffix("")
                if stem in seen:
                    raise ConfigError(
                        f"{self.path}: {seen[stem]} and {name} would have one label file, as the host names it "
                        "without the suffix; rename one."
                    )
                seen[stem] = name
        if self.objects and not self.kept:
            remedy = (
                "Crowd regions are not trained on. CVAT exports every mask as one: set iscrowd to 0 where an "
                "annotation is one object, or export polygons."
            )
            raise ConfigError(
                f"{self.path}: none of its {self.objects} objects can be used: {self._left_out()}. "
                f"{remedy if self.left_out[CROWD] else 'Correct them.'}"
            )
        if self.kept and self.notes[BOX_OUTLINE] == self.kept:
            raise ConfigError(
                f"{self.path}: none of its {self.kept} objects has an outline (segmentation), which this task needs; "
                "add them, or train a detection model."
            )

    def write_json(self, folder: Path) -> None:
        """Write a JSON for the host's converter for each link, and release the objects."""
        for link, rows in self.groups.items():
            content = {
                "images": [{key: row[key] for key in ("id", "file_name", "width", "height")} for row in rows],
                "annotations": [annotation for row in rows for annotation in row.pop("annotations")],
                "categories": self.categories,
            }
            (folder / f"instances_{link}.json").write_text(json.dumps(content), encoding="utf-8")

    def write_links(self, built: Path) -> None:
        """Write the links to the images, and the list of images, beside the host's labels."""
        for folder, link in self.links.items():
            (built / "images" / link).symlink_to(Path("..") / ".." / self.split / folder)
            (built / "labels" / link).mkdir(parents=True, exist_ok=True)
        names = sorted(f"./images/{link}/{row['file_name']}\n" for link, rows in self.groups.items() for row in rows)
        # A list, as the host resolves links in `train:` and `val:` and would then look for labels beside the images.
        (built / f"{self.split}.txt").write_text("".join(names), encoding="utf-8")

    def account(self) -> str:
        """Return one line with the numbers of objects and images used and left out."""
        parts = [f"{self.path}: {self.kept} of {self.objects} objects in {self.images - len(self.missing)} images"]
        if left_out := self._left_out():
            parts.append(f"left out: {left_out}")
        if self.missing:
            names = ", ".join(self.missing[:2])
            parts.append(
                f"{len(self.missing)} images are not there, or of a format that the host does not read ({names})"
            )
        parts += [f"{n} {note}" for note, n in self.notes.items()]
        return "; ".join([*parts, *([f"{self.empty} images without objects"] if self.empty else [])])

    def _left_out(self) -> str:
        return ", ".join(f"{n} {reason}" for reason, n in self.left_out.items() if n)


def _polygons(outline: Any) -> list[list[float]]:
    """Return the polygons of an outline that the host's converter accepts."""
    return [
        polygon
        for polygon in (outline if isinstance(outline, list) else [])
        if isinstance(polygon, list)
        and len(polygon) >= 6
        and not len(polygon) % 2
        and all(isinstance(v, int | float) for v in polygon)
    ]


def _cut(row: Row, width: float, height: float) -> None:
    """Clip an object's box and polygons to its image."""
    x, y, w, h = row["bbox"]
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    row["bbox"] = [left, top, right - left, bottom - top]
    if isinstance(row.get("segmentation"), list):
        row["segmentation"] = [
            [min(max(v, 0), (width, height)[i % 2]) for i, v in enumerate(polygon)] for polygon in row["segmentation"]
        ]
