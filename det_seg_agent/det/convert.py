"""The folder of an MS-COCO download in, the host's labels out, by the host's own converter."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from det_seg_agent.errors import ConfigError

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
