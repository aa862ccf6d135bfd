"""Identification of samples by image path, and errors that name broken images. `seg.run` and the loops use it."""

import itertools
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dataset import DefaultSampler
from mmseg.datasets import MultiImageMixDataset

from det_seg_agent.errors import AgentError, ConfigError
from det_seg_agent.sampler import SelectionSampler
from det_seg_agent.seg.files import refuse_lost


def image_paths(dataset: Any) -> list[str]:
    """Return the image path of each sample, by dataset index, also through wrappers such as `ConcatDataset`.

    We use paths rather than the host's `sample_idx`, which is local to the parts of a `ConcatDataset`, is dropped by
    `PackSegInputs`, and is wrong if the host replaces a broken image by a random other one. A collective.

    Raises:
        ConfigError: if the data set does not provide paths, or contains an image twice or without its mask.
    """
    name = type(dataset).__name__
    if isinstance(dataset, MultiImageMixDataset) or not hasattr(dataset, "get_data_info"):
        raise ConfigError(
            f"train_dataloader.dataset.type={name!r} has no get_data_info and mixes or slices samples in a way of its "
            "own. Use the data set itself, or a ConcatDataset of several."
        )
    samples = [dataset.get_data_info(i) for i in range(len(dataset))]
    paths = [str(sample["img_path"]) for sample in samples]
    refuse_doubles(dataset, paths)
    refuse_lost(dataset, paths, [sample.get("seg_map_path") for sample in samples])
    return paths


def first_double(paths: list[str]) -> tuple[int, int] | None:
    """Return the positions of the first repeated path and of its first occurrence; None if all are distinct.

    The first occurrence comes first.
    """
    places: dict[str, int] = {}
    for place, path in enumerate(paths):
        first = places.setdefault(path, place)
        if first != place:
            return first, place
    return None


def refuse_doubles(dataset: Any, paths: list[str]) -> None:
    """Refuse a data set that contains an image more than once, as samples are identified by their image.

    Raises:
        ConfigError: names the image, its origin and the remedy.
    """
    double = first_double(paths)
    if double is None:
        return
    parts = parts_of(dataset)
    first, second = (bisect_right(list(itertools.accumulate(map(len, parts))), place) for place in double)
    if first != second:
        where = (
            f"{_listed(parts[first])} and {_listed(parts[second])} both have it. Take the doubles out of one of them"
        )
    elif hasattr(parts[first], "dataset"):
        name = type(parts[first]).__name__
        where = f"{name} repeats it. Take {name} off: the agent decides how often an image is trained on"
    else:
        where = f"{_listed(parts[first])} has it again. List every image once"
    raise ConfigError(
        f"train_dataloader.dataset holds {paths[double[0]]} more than once ({len(paths) - len(set(paths))} entries too "
        f"many): {where}."
    )


def parts_of(dataset: Any) -> list[Any]:
    """Return the parts of a `ConcatDataset`, in order; a list with the data set itself for others."""
    return [part for each in getattr(dataset, "datasets", []) for part in parts_of(each)] or [dataset]


def _listed(dataset: Any) -> str:
    """Return a short name of a data set's list of images or of their folder, for messages."""
    prefix = dict(getattr(dataset, "data_prefix", {}))
    return "/".join(str(getattr(dataset, "ann_file", "") or prefix.get("img_path", "")).split("/")[-2:])


class SampleIndex:
    """Maps image paths to dataset indices."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self._index = {path: i for i, path in enumerate(paths)}

    def mark(self, data_samples: list[Any]) -> list[int]:
        """Return the dataset index of each data sample, and store it as `sample_idx` in its metainfo.

        Raises:
            ConfigError: if a sample's `img_path` is missing or not in the training set.
        """
        result = []
        for sample in data_samples:
            path = sample.metainfo.get("img_path")
            if path not in self._index:
                raise ConfigError(
                    f"a training sample has img_path={path!r}, which is not one of the data set's. Keep 'img_path' in "
                    "PackSegInputs(meta_keys=...), and do not change it in the pipeline."
                )
            result.append(self._index[path])
            sample.set_metainfo({"sample_idx": result[-1]})
        return result


@contextmanager
def naming_broken_images(loader: Any, done: Any) -> Iterator[None]:
    """Replace an error in loading a batch of a selection by one that names the file; the host's often does not.

    Args:
        loader: the training loader.
        done: a callable that returns the number of batches of this pass so far.

    Raises:
        ConfigError: instead of the error, if an image of the next batch fails again when loaded alone.
    """
    try:
        yield
    except (AgentError, StopIteration):
        raise
    except Exception as error:
        source = loader.sampler.source
        start = done() * loader.batch_size
        known = isinstance(source, SelectionSampler | DefaultSampler)  # what they yield again is the same
        batch = list(source)[start : start + loader.batch_size] if known else []
        for index in batch:
            try:
                loader.dataset[index]
            except Exception as cause:
                info = loader.dataset.get_data_info(index)
                files = " or ".join(str(info[key]) for key in ("img_path", "seg_map_path") if info.get(key))
                raise ConfigError(
                    f"{files} cannot be loaded ({type(cause).__name__}: {cause}). Put a whole file in its place; a "
                    "training goes on with --resume. Where images may be missing, LoadImageFromFile(ignore_empty=True) "
                    "lets the host show another one."
                ) from error
        raise
