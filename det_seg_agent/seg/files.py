"""Check that every image has its mask, if masks are local files. `seg.index` uses it."""

import os
from typing import Any

import mmcv.transforms
import mmseg.datasets
from mmengine.dist import is_main_process

from det_seg_agent.errors import ConfigError
from det_seg_agent.ranks import gather_objects
from det_seg_agent.seg.masks import leaves_of, mask_loaders

STOCK = [loader._load_seg_map for loader in (mmcv.transforms.LoadAnnotations, mmseg.datasets.LoadAnnotations)]


def refuse_lost(dataset: Any, images: list[str], masks: list[str | None]) -> None:
    """Refuse images without a mask, if masks are local files; only rank 0 reads the disk. A collective.

    Args:
        dataset: the training set.
        images: path of each sample's image.
        masks: path of each sample's mask; None if the data set has none.

    Raises:
        ConfigError: on all ranks; names the first image and its missing mask.
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
    """Return the positions of paths that are not files; lists each folder once, as network drives are slow."""
    folders: dict[str, set[str]] = {}
    result = []
    for place, path in enumerate(paths):
        if path is None or "://" in path:
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = _files(folder or ".")
        if name not in folders[folder] and not os.path.isfile(path):  # the file system may ignore case
            result.append(place)
    return result


def _files(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def reads_plain_files(dataset: Any) -> bool:
    """Return whether a stock loader reads a data set's masks from local files, without a backend that maps paths.

    Args:
        dataset: a data set without wrappers.
    """
    loaders = mask_loaders(dataset)
    return bool(loaders) and all(
        type(loader)._load_seg_map in STOCK and all(map(_is_local, (loader, dataset))) for loader in loaders
    )


def _is_local(reader: Any) -> bool:
    given = getattr(reader, "file_client_args", None) or getattr(reader, "backend_args", None) or {}
    return set(given) <= {"backend"} and given.get("backend", "local") in ("local", "disk")
