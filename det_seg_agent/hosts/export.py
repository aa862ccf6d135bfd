"""`det-seg-agent export`: lists of images to keep, by what a run knows of them, in the formats of the toolboxes."""

import argparse
import difflib
import json
import os
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from det_seg_agent.errors import ConfigError, listed
from det_seg_agent.files import replacing
from det_seg_agent.reporting.samples import COLUMNS, read_samples

KINDS = ("ultralytics", "mmseg", "coco")
COMPARED = {
    "<=": pc.less_equal, ">=": pc.greater_equal, "!=": pc.not_equal, "<": pc.less, ">": pc.greater, "=": pc.equal,
    "~": pc.match_substring,
}  # fmt: skip
CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|!=|==|<|>|=|~)\s*(.*?)\s*$")


def arguments_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="det-seg-agent export",
        description="Write the list of images to keep, by the columns of a run's samples.parquet.",
        epilog=f"Columns: {', '.join(COLUMNS)}. Operators: < <= > >= = != and, for texts, ~ (contains).",
    )
    parser.add_argument("run", help="folder of a run")
    parser.add_argument(
        "--where", action="append", default=[], metavar="CONDITION",
        help="such as 'suspect<0.7' or 'classes~truck'; where several are given, all must hold",
    )  # fmt: skip
    parser.add_argument("--format", choices=KINDS, help="by default that of the run's toolbox")
    parser.add_argument("--json", metavar="FILE", help="COCO JSON to take the subset of, with --format coco")
    parser.add_argument("--root", metavar="FOLDER", help="folder that names are relative to, with --format mmseg")
    parser.add_argument("--out", metavar="FILE", help="by default keep.txt or keep.json in the run's folder")
    parser.add_argument(
        "--drop-unknown", action="store_true", help="drop images whose value is unknown; by default they are kept"
    )
    return parser


def chosen(rows: pa.Table, conditions: list[str], drop_unknown: bool = False) -> tuple[pa.Table, int]:
    """Return the rows for which all conditions hold.

    Args:
        rows: a table with the columns of `samples.parquet`.
        conditions: texts such as `suspect<0.7`.
        drop_unknown: whether rows are left out if a value is null.

    Returns:
        The rows, and how many of them are there although a value is null.

    Raises:
        ConfigError: if a condition cannot be read or names no column.
    """
    kept = pa.array([True] * len(rows))
    unknown = pa.array([False] * len(rows))
    for condition in conditions:
        found = _compare(rows, condition)
        unknown = pc.or_(unknown, found.is_null())
        kept = pc.and_(kept, found.fill_null(not drop_unknown))
    return rows.filter(kept), pc.sum(pc.and_(kept, unknown)).as_py() or 0


def _compare(rows: pa.Table, condition: str) -> pa.Array:
    match = CONDITION.match(condition)
    if match is None:
        raise ConfigError(
            f"--where {condition!r}: it is no condition. Write COLUMN, one of < <= > >= = != ~, and a value, such as "
            "'suspect<0.7'."
        )
    name, sign, value = match.groups()
    if name not in rows.column_names:
        near = difflib.get_close_matches(name, rows.column_names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"--where {condition!r}: there is no column {name}.{hint} Valid: {listed(rows.column_names)}."
        )
    column = rows[name].combine_chunks()
    if pa.types.is_string(column.type):
        if sign not in ("=", "==", "!=", "~"):
            raise ConfigError(f"--where {condition!r}: {name} is a text; compare it by =, != or ~ (contains).")
        return COMPARED[sign.replace("==", "=")](column, value)
    try:
        number = float(value)
    except ValueError:
        raise ConfigError(f"--where {condition!r}: {value!r} is no number, and {name} is one.") from None
    if sign == "~":
        raise ConfigError(f"--where {condition!r}: ~ (contains) is for texts, and {name} is a number.")
    # Values are stored as float32, where 0.9 is not the 0.9 of float64: 0.9 <= 0.9 must hold.
    if pa.types.is_floating(column.type):
        return COMPARED[sign.replace("==", "=")](column, pa.scalar(number, column.type))
    return COMPARED[sign.replace("==", "=")](column.cast(pa.float64()), number)


def as_paths(files: list[str]) -> str:
    """Return a list of images as Ultralytics reads it under `train:` of a data YAML."""
    return "".join(f"{file}\n" for file in files)


def as_names(files: list[str], root: str | None) -> tuple[str, str, str]:
    """Return a list of images as MMSegmentation reads it as `ann_file`.

    Args:
        files: image files.
        root: folder that names are relative to, `data_prefix.img_path`; None for the deepest one with all images.

    Returns:
        The names without suffix, the folder, and the suffix, `img_suffix`.

    Raises:
        ConfigError: if an image is outside the folder, or suffixes differ.
    """
    if root is None:
        root = os.path.commonpath({os.path.dirname(file) for file in files})
    suffixes = sorted({os.path.splitext(file)[1] for file in files})
    if len(suffixes) > 1:
        raise ConfigError(
            f"--format mmseg: the images end in {listed(suffixes)}, and img_suffix of MMSegmentation is one. Export "
            f"one kind at a time: --where 'file~{suffixes[0]}'."
        )
    start = os.path.join(root, "")
    outside = [file for file in files if not file.startswith(start)]
    if outside:
        raise ConfigError(f"--root {root}: {outside[0]} is not in it, nor are {len(outside) - 1} others; give another.")
    names = (file[len(start) :].removesuffix(suffixes[0]) for file in files)
    return "".join(f"{name}\n" for name in names), root, suffixes[0]


def as_subset(files: list[str], path: Path) -> tuple[str, int]:
    """Return the part of a COCO JSON that is of these images, otherwise unchanged, and the number of its images.

    Raises:
        ConfigError: if the JSON cannot be read, or has none of the images.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        by_name: dict[str, list[Any]] = defaultdict(list)
        for row in content["images"]:
            name = str(row.get("file_name") or row.get("coco_url")).replace("\\", "/")
            by_name[PurePosixPath(name).name].append((name, row))
        annotations = content["annotations"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"--json {path}: no COCO JSON ({type(error).__name__}: {error}).") from error
    kept: dict[int, Any] = {}
    for file in files:
        rows = by_name.get(PurePosixPath(file.replace("\\", "/")).name, [])
        exact = [row for name, row in rows if f"/{file}".endswith(f"/{name}")] or [row for _, row in rows]
        for row in exact[:1]:
            kept[id(row)] = row
    if not kept:
        raise ConfigError(
            f"--json {path}: it has none of the {len(files):,} images, {files[0]} first; give their JSON."
        )
    ids = {row["id"] for row in kept.values()}
    images = [row for row in content["images"] if id(row) in kept]
    part = {**content, "images": images, "annotations": [row for row in annotations if row["image_id"] in ids]}
    return json.dumps(part), len(images)


def main(words: list[str]) -> int:
    """Export and say what was written."""
    given = arguments_parser().parse_args(words)
    folder = Path(given.run)
    if not (folder / "samples.parquet").is_file():
        raise ConfigError(
            f"export {folder}: it has no samples.parquet, which a run writes at its end; give its folder."
        )
    try:
        rows = read_samples(folder)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"export {folder}: samples.parquet cannot be read: {error}") from error
    kept, unknown = chosen(rows, given.where, given.drop_unknown)
    files = kept["file"].to_pylist()
    if not files:
        raise ConfigError(f"--where {' and '.join(given.where)}: no image of {len(rows):,} is left; loosen it.")
    mmseg = any(folder.glob("*.pth")) or any(folder.glob("*.py"))  # `score` leaves the config alone
    kind = given.format or ("mmseg" if mmseg else "ultralytics")
    if (given.json is None) == (kind == "coco"):
        raise ConfigError("--format coco and --json FILE belong together: give both, or neither.")
    out = Path(given.out) if given.out else folder / ("keep.json" if kind == "coco" else "keep.txt")
    if kind == "coco":
        content, count = as_subset(files, Path(given.json))
        use = f"{count:,} images of {given.json}"
    elif kind == "mmseg":
        content, root, suffix = as_names(files, given.root)
        use = f"dataset=dict(ann_file={str(out.absolute())!r}, img_suffix={suffix!r}), img_path is {root}"
    else:
        content, use = as_paths(files), f"train: {out.absolute()} in the data YAML"
    try:
        with replacing(out) as part:
            part.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out}: it cannot be written ({error}).") from error
    print(f"{out}: {len(files):,} of {len(rows):,} images ({use})")
    if unknown:
        print(f"{unknown:,} of them are kept although a value is unknown; --drop-unknown leaves them out")
    return 0
