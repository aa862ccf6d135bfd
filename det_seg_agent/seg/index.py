"""Which sample a data sample is."""

import itertools
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmseg.datasets import MultiImageMixDataset

from det_seg_agent.errors import AgentError, ConfigError
from det_seg_agent.sampler import SelectionSampler
from det_seg_agent.seg.files import refuse_lost


def image_paths(dataset: Any) -> list[str]:
    """Return the image path of each sample, by dataset index; wrappers such as `ConcatDataset` are seen through.

    Paths rather than the host's `sample_idx`: that one is local to the parts of a `ConcatDataset`, `PackSegInputs`
    drops it, and the host replaces a broken image by a random other one whose path the batch then shows. A collective.

    Raises:
        ConfigError: for a data set that does not say, or that holds an image twice or without its mask.
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
    """Return the first two places of the path that comes again first, None where none does."""
    places: dict[str, int] = {}
    for place, path in enumerate(paths):
        first = places.setdefault(path, place)
        if first != place:
            return first, place
    return None


def refuse_doubles(dataset: Any, paths: list[str]) -> None:
    """Refuse a data set that holds an image more than once, as what is learned of a sample belongs to its image.

    Raises:
        ConfigError: naming the image, where it comes from, and the remedy.
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
    """Return the data sets that a `ConcatDataset` joins, in order; another data set alone."""
    return [part for each in getattr(dataset, "datasets", []) for part in parts_of(each)] or [dataset]


def _listed(dataset: Any) -> str:
    """Return what tells a data set's list of images, or their folder, from another's."""
    prefix = dict(getattr(dataset, "data_prefix", {}))
    return "/".join(str(getattr(dataset, "ann_file", "") or prefix.get("img_path", "")).split("/")[-2:])


class SampleIndex:
    """Looks dataset indices up by image path."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self._index = {path: i for i, path in enumerate(paths)}

    def mark(self, data_samples: list[Any]) -> list[int]:
        """Return the dataset index of each data sample, and note it as `sample_idx` in its metainfo.

        Raises:
            ConfigError: for a sample without an `img_path` of the training set.
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
    """Name the file where a batch of a selection cannot be loaded; the host's own error often names none.

    Args:
        loader: the training loader.
        done: a callable that gives how many batches of this pass were walked.

    Raises:
        ConfigError: instead of the error, if an image of the next batch fails again when it is loaded alone.
    """
    try:
        yield
    except (AgentError, StopIteration):
        raise
    except Exception as error:
        walk = loader.sampler.walk
        start = done() * loader.batch_size
        batch = list(walk)[start : start + loader.batch_size] if isinstance(walk, SelectionSampler) else []
        for index in batch:
            try:
                loader.dataset[index]
            except Exception as cause:
                info = loader.dataset.get_data_info(index)
                files = " or ".join(str(info[key]) for key in ("img_path", "seg_map_path") if info.get(key))
                raise ConfigError(
                    f"{files} cannot be loaded ({type(cause).__name__}: {cause}). Put a whole file in its place and go "
                    "on with --resume. Where images may be missing, LoadImageFromFile(ignore_empty=True) lets the host "
                    "show another one."
                ) from error
        raise
