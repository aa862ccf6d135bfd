"""Conversion of an MS-COCO folder to the host's labels, by the host's own converter. The command lines use it."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from det_seg_agent.det.folder import Split
from det_seg_agent.errors import ConfigError

SPLITS = (("train2017", "val2017"), ("train", "val"))
MARK = "# Made from annotations/instances_*.json; made again when those change.\n"
RECORD = "conversion.json"  # records the sources of a conversion and its log lines
MOST_CLASSES = 10_000


def prepare_data(data: str | Path, segments: bool = False) -> str:
    """Return a value for the host's `data=`: a folder of an MS-COCO download is converted once, others are unchanged.

    The result is in `<folder>/ultralytics`, or for outlines (`segments`) instead of boxes in
    `<folder>/ultralytics-segments`, with links to the images. The numbers of objects read, converted and left out are
    logged, also if an earlier conversion is reused.

    Raises:
        ConfigError: if files are missing, a JSON cannot be read or leaves nothing to train on, or the folder is not
            writable.
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
    stats = [path.stat() for path in jsons]
    made_from = [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in zip(jsons, stats)]

    def account() -> list[str] | None:
        """Return the log lines of an earlier conversion of the same files, or None."""
        try:
            record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return list(record["account"]) if record["made_from"] == made_from else None

    lines = account()
    if lines is None:
        if not os.access(root, os.W_OK):
            raise ConfigError(
                f"data={data}: the folder is not writable, and the labels go to {target}; make it writable."
            )
        with tempfile.TemporaryDirectory(dir=root, prefix=".ultralytics-") as work:
            lines = _convert(root, jsons, splits, Path(work), segments)
            (Path(work) / "built" / RECORD).write_text(json.dumps({"made_from": made_from, "account": lines}))
            if account() is None:  # otherwise another process of this run was first
                if target.exists():
                    os.replace(target, Path(work) / "old")
                os.replace(Path(work) / "built", target)
    from det_seg_agent.det.messages import LOGGER  # not above, as it imports the host

    for line in lines:
        LOGGER.info(line)
    return str(ready)


def _convert(root: Path, jsons: list[Path], splits: tuple[str, str], work: Path, segments: bool) -> list[str]:
    """Write the host's labels to `work/built`; return the log lines."""
    from ultralytics.data.converter import coco91_to_coco80_class, convert_coco

    (work / "annotations").mkdir()
    categories: dict[int, str] = {}
    numbers: dict[str, int] = {}
    parts = []
    for path, split in zip(jsons, splits):
        part = Split(root, path, split, segments, numbers)
        for id_, name in ((row["id"], row["name"]) for row in part.categories):
            if (other := categories.setdefault(id_, name)) != name:
                raise ConfigError(f"{path}: category {id_} is {name!r}, and {other!r} in {jsons[0].name}; renumber.")
            if not 1 <= id_ <= MOST_CLASSES:
                raise ConfigError(f"{path}: category id {id_} is not in 1..{MOST_CLASSES}; renumber the categories.")
        part.write_json(work / "annotations")
        parts.append(part)
    if not parts[0].objects:
        raise ConfigError(f"{jsons[0]}: it has no objects to train on; add annotations.")
    is_coco = set(categories) == {i + 1 for i, c in enumerate(coco91_to_coco80_class()) if c is not None}
    built = work / "built"
    with _quiet():
        convert_coco(str(work / "annotations"), str(built), cls91to80=is_coco, use_segments=segments)
    for part in parts:
        part.write_links(built)
    ids = sorted(categories) if is_coco else list(range(1, max(categories) + 1))
    layout = {
        # Without `path` the host uses the YAML's folder, so that the data may be moved.
        "train": f"{splits[0]}.txt",
        # A list, as the host assumes the official 80 classes for a plain .../val2017.txt with "coco" in its path.
        "val": [f"{splits[1]}.txt"],
        "names": {i: categories.get(id_, f"unused_{id_}") for i, id_ in enumerate(ids)},
    }
    (built / "data.yaml").write_text(MARK + yaml.safe_dump(layout, sort_keys=False), encoding="utf-8")
    return [part.account() for part in parts]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the host, which would log our temporary folder; our log lines cover its warnings."""
    logger = logging.getLogger("ultralytics")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
