"""Whether every image has its mask, where masks are plain files."""

import os
from typing import Any

import mmcv.transforms
import mmseg.datasets
from mmengine.dist import is_main_process

from det_seg_agent.errors import ConfigError
from det_seg_agent.ranks import gather_objects
from det_seg_agent.seg.masks import leaves_of, steps_of

STOCK = [loader._load_seg_map for loader in (mmcv.transforms.LoadAnnotations, mmseg.datasets.LoadAnnotations)]


def refuse_lost(dataset: Any, images: list[str], masks: list[str | None]) -> None:
    """Refuse an image without a mask, where the masks are plain files; rank 0 looks. A collective.

    Args:
        dataset: the training set.
        images: the image of each sample.
        masks: the mask of each sample, None where the data set has none.

    Raises:
        ConfigError: on all ranks, naming the first image and the mask that is not there.
    """
    plain = is_main_process() and all(map(reads_plain_files, leaves_of(dataset)))
    lost = gather_objects(missing(masks) if plain else [])[0]
    if lost:
        raise ConfigError(
            f"train_dataloader.dataset: {len(lost)} of {len(masks)} images have no mask, {images[lost[0]]} first, "
            f"whose mask would be {masks[lost[0]]}. Add the masks, take the images out, or correct seg_map_suffix and "
            "data_prefix.seg_map_path."
        )


def missing(paths: list[str | None]) -> list[int]:
    """Return the places of the paths that are no files; each folder is listed once, as a network drive is slow."""
    folders: dict[str, set[str]] = {}
    result = []
    for place, path in enumerate(paths):
        if path is None or "://" in path:
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = _files(folder or ".")
        if name not in folders[folder] and not os.path.isfile(path):  # a name's case may not count on this disk
            result.append(place)
    return result


def _files(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def reads_plain_files(dataset: Any) -> bool:
    """Return whether a data set's masks are read by a stock loader from local files, not by a backend that maps paths.

    Args:
        dataset: one without wrappers.
    """
    loaders = [step for step in steps_of(getattr(dataset, "pipeline", None)) if hasattr(step, "_load_seg_map")]
    return bool(loaders) and all(
        type(loader)._load_seg_map in STOCK and all(map(_is_local, (loader, dataset))) for loader in loaders
    )


def _is_local(reader: Any) -> bool:
    given = getattr(reader, "file_client_args", None) or getattr(reader, "backend_args", None) or {}
    return set(given) <= {"backend"} and given.get("backend", "local") in ("local", "disk")
