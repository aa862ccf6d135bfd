"""Masks are looked at whole, once, where they are loaded; and what lists of images may hold."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

from seg_runs import CONFIG, EPOCHS, config_of, fit  # first: it prepares the host

# isort: split
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from PIL import Image
from test_input_seg import DATA, but, data, filled, mask, run, spoilt
from torch.utils.data import DataLoader

from det_seg_agent import ConfigError, SelectionSampler
from det_seg_agent.reporting.trace import read
from det_seg_agent.seg.files import missing, refuse_lost
from det_seg_agent.seg.index import first_double, image_paths
from det_seg_agent.seg.masks import MaskError, Masks, limits_of

pytestmark = pytest.mark.slow  # it trains

LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
CROP = {"type": "CenterCrop", "crop_size": (16, 16)}
PACK = {"type": "PackSegInputs"}
PLAIN = [*LOAD, CROP, PACK]


def model_of(**heads: dict[str, Any]) -> Any:
    """Return the light UperNet with changed heads."""
    config = Config.fromfile(CONFIG, format_python_code=False).model
    for name, change in heads.items():
        config[name].update(change)
    return MODELS.build(config)


def dataset_of(root: Path, pipeline: Any = PLAIN, **more: Any) -> Any:
    """Return a data set of what `data` wrote, of five classes."""
    prefix = {"img_path": str(root / "data/train"), "seg_map_path": str(root / "data/masks/train")}
    given = {"type": "BaseSegDataset", "img_suffix": ".png", "data_prefix": prefix, "pipeline": pipeline, **more}
    return DATASETS.build({"metainfo": {"classes": tuple("abcde")}, **given})


@TRANSFORMS.register_module(force=True)
class OwnLoader(BaseTransform):
    """Loads a mask in a way of its own."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results["gt_seg_map"] = np.array(Image.open(results["seg_map_path"]))
        results["seg_fields"].append("gt_seg_map")
        return results


@TRANSFORMS.register_module(force=True)
class Fill(BaseTransform):
    """Puts a value into a corner, as cut-outs and rotations may do."""

    def __init__(self, value: int):
        self.value = value

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results["gt_seg_map"][:3, :3] = self.value
        return results


@DATASETS.register_module(force=True)
class Balanced(BaseSegDataset):
    """One whose images name their classes, for `ClassBalancedDataset`: image 0 has a rare one."""

    def get_cat_ids(self, idx: int) -> list[int]:
        return [0, 1] if idx else [0, 2]


# name -> pipeline; in each the bad pixel of a mask is outside the crop
PIPELINES: dict[str, list[dict[str, Any]]] = {
    "plain": PLAIN,
    "mask before image": [LOAD[1], LOAD[0], CROP, PACK],
    "one of two pipelines": [{"type": "RandomChoice", "transforms": [[*LOAD, CROP], [*LOAD, CROP]]}, PACK],
    "crop within": [*LOAD, {"type": "RandomApply", "transforms": [CROP], "prob": 1.0}, PACK],
    "nested": [
        {"type": "RandomApply", "transforms": [{"type": "Compose", "transforms": LOAD}, CROP], "prob": 1.0}, PACK,
    ],
    "own loader": [LOAD[0], {"type": "OwnLoader"}, CROP, PACK],
    "resized first": [LOAD[0], {"type": "Resize", "scale": (32, 32)}, LOAD[1], PACK],
}  # fmt: skip


@pytest.mark.parametrize("name", PIPELINES)
def test_a_bad_pixel_outside_the_crop_is_found(name: str, tmp_path: Path) -> None:
    data(tmp_path, label=but(2, spoilt()))
    dataset = dataset_of(tmp_path, PIPELINES[name])
    Masks(dataset, model_of())
    assert all("data_samples" in dataset[i] for i in (0, 1, 3))
    with pytest.raises(MaskError, match=r"2.png: the mask holds 9, and model.decode_head.num_classes=5 allows 0 to 4"):
        dataset[2]


def joined(root: Path, **more: Any) -> Any:
    """Return two data sets as one."""
    data(root / "a", 3)
    data(root / "b", 3, label=but(1, spoilt()))
    given = {"type": "BaseSegDataset", "img_suffix": ".png", "pipeline": PLAIN}
    prefix = {"img_path": "train", "seg_map_path": "masks/train"}
    parts = [{**given, "data_root": str(root / name / "data"), "data_prefix": prefix} for name in "ab"]
    return DATASETS.build({"type": "ConcatDataset", "datasets": parts, **more})


def test_parts_of_a_joined_data_set_are_checked_each(tmp_path: Path) -> None:
    dataset = joined(tmp_path)
    assert len(image_paths(dataset)) == 6
    Masks(dataset, model_of())
    for good in (0, 1, 2, 3, 5):
        assert "data_samples" in dataset[good]
    with pytest.raises(MaskError, match=r"b/data/masks/train/1.png: the mask holds 9"):
        dataset[4]


@pytest.mark.parametrize("threshold", [0.01, 0.9])
def test_a_class_balanced_data_set_trains_unless_it_repeats(tmp_path: Path, threshold: float) -> None:
    data(tmp_path, label=but(2, spoilt()))
    inner = {"type": "Balanced", "img_suffix": ".png", "data_root": str(tmp_path / "data"), "pipeline": PLAIN}
    inner["data_prefix"] = {"img_path": "train", "seg_map_path": "masks/train"}
    dataset = DATASETS.build({"type": "ClassBalancedDataset", "dataset": inner, "oversample_thr": threshold})
    if threshold == 0.9:
        with pytest.raises(ConfigError, match=r"0.png more than once .*: ClassBalancedDataset repeats it. Take Class"):
            image_paths(dataset)
        return
    assert len(image_paths(dataset)) == 6
    Masks(dataset, model_of())
    with pytest.raises(MaskError, match=r"2.png: the mask holds 9"):
        dataset[2]


def test_workers_check_a_sample_once_among_them(tmp_path: Path) -> None:
    data(tmp_path)
    dataset = dataset_of(tmp_path)
    masks = Masks(dataset, model_of())
    loader = DataLoader(dataset, 2, num_workers=2, collate_fn=list)
    assert len(list(loader)) == 3
    assert [check.seen.tolist() for check in masks.checks] == [[1] * 6]
    assert masks.values.nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    spoilt().save(tmp_path / "data/masks/train/3.png")
    assert len(list(loader)) == 3, "other workers do not look again"
    masks.checks[0].seen[3] = 0
    with pytest.raises(MaskError) as error:
        list(loader)
    assert str(error.value).startswith(f"{tmp_path}/data/masks/train/3.png: the mask holds 9,")
    assert "\n" not in str(error.value), "the message alone, without the worker's traceback"


def test_the_error_is_the_same_after_a_pickle() -> None:
    assert str(pickle.loads(pickle.dumps(MaskError("a.png: bad")))) == "a.png: bad"


# What is allowed ----------------------------------------------------------------------------------------------------

CE = {"type": "CrossEntropyLoss"}
SIGMOID = {"type": "CrossEntropyLoss", "use_sigmoid": True}
ONE = {"num_classes": 1, "out_channels": 1, "loss_decode": SIGMOID}
TWO = {"num_classes": 2, "out_channels": 1, "loss_decode": SIGMOID}


@pytest.mark.parametrize(
    ("heads", "good", "bad", "message"),
    [
        ({}, [0, 4, 255], [5, 254], "num_classes=5 allows 0 to 4 and ignore_index=255"),
        ({"decode_head": {"ignore_index": 0}, "auxiliary_head": {"ignore_index": 0}}, [0, 4], [255], "ignore_index=0"),
        ({"auxiliary_head": {"num_classes": 3}}, [0, 2, 255], [3], "auxiliary_head.num_classes=3 allows 0 to 2"),
        ({"auxiliary_head": {"ignore_index": 9}}, [0, 4], [9, 255], "9, .*decode.*=255|255, .*aux.*=9"),
        ({"decode_head": ONE, "auxiliary_head": ONE}, [0, 1, 255], [2], "num_classes=1 with one channel allows 0 to 1"),
        ({"decode_head": TWO, "auxiliary_head": TWO}, [0, 1, 255], [2], "num_classes=2 with one channel allows 0 to 1"),
        (
            {"decode_head": {"num_classes": 1}, "auxiliary_head": {"num_classes": 1}}, [0, 255], [1],
            "num_classes=1 with one channel without loss_decode.use_sigmoid=True allows 0 alone",
        ),
    ],
)  # fmt: skip
def test_what_a_mask_may_hold_follows_the_heads(
    heads: dict[str, Any], good: list[int], bad: list[int], message: str, tmp_path: Path
) -> None:
    data(tmp_path, 1)
    model = model_of(**heads)
    for values, fails in ((good, False), *(([value], True) for value in bad)):
        Image.fromarray(np.resize(np.array(values, np.uint8), (64, 64))).save(tmp_path / "data/masks/train/0.png")
        dataset = dataset_of(tmp_path)
        Masks(dataset, model)
        if not fails:
            assert "data_samples" in dataset[0]
            continue
        with pytest.raises(MaskError, match=message):
            dataset[0]


def test_a_head_with_labels_of_its_own_sets_no_limit() -> None:
    edges = {"type": "STDCHead", "num_classes": 2, "out_channels": 1, "boundary_threshold": 0.1}
    limits = limits_of(model_of(auxiliary_head=edges))
    assert [(limit.classes, limit.ignore_index) for limit in limits] == [(5, 255)]
    assert limits_of(torch.nn.Linear(1, 1)) == []


def test_values_count_as_the_loss_gets_them(tmp_path: Path) -> None:
    """After `reduce_zero_label` and the data set's own classes."""
    data(tmp_path, 2, label=but(1, spoilt(6)))
    dataset = dataset_of(tmp_path, reduce_zero_label=True)
    masks = Masks(dataset, model_of())
    assert "data_samples" in dataset[0]
    assert masks.values.nonzero().flatten().tolist() == [0, 1, 2, 3, 255]
    with pytest.raises(MaskError, match=r"1.png: the mask holds 5 \(1 more in the file, by reduce_zero_label\)"):
        dataset[1]
    spoilt(5).save(tmp_path / "data/masks/train/1.png")
    assert "data_samples" in dataset[1], "5 becomes 4"
    some = type("Some", (BaseSegDataset,), {"METAINFO": {"classes": tuple("abcdef")}})
    mapped = some(
        img_suffix=".png", data_prefix=dataset.data_prefix, pipeline=PLAIN, metainfo={"classes": tuple("abcdf")}
    )
    masks = Masks(mapped, model_of())
    assert "data_samples" in mapped[1] and int(masks.values[4]) == 1


@pytest.mark.parametrize(("size", "said"), [((64, 48), "64 x 48"), ((32, 32), "32 x 32"), ((128, 128), "128 x 128")])
def test_a_mask_has_its_images_size(size: tuple[int, int], said: str, tmp_path: Path) -> None:
    data(tmp_path, label=but(1, mask(1).resize(size, Image.Resampling.NEAREST)))
    dataset = dataset_of(tmp_path)
    Masks(dataset, model_of())
    assert "data_samples" in dataset[0]
    with pytest.raises(MaskError, match=rf"1.png: the mask has {said} pixels, its image 64 x 64"):
        dataset[1]


def test_a_mask_has_one_channel(tmp_path: Path) -> None:
    data(tmp_path, label=but(1, Image.new("RGB", (64, 64), "red")))
    dataset = dataset_of(tmp_path)
    Masks(dataset, model_of())
    with pytest.raises(MaskError, match=r"1.png: the mask has shape \(64, 64, 3\), .*Convert colours to indices"):
        dataset[1]


def test_what_a_transform_puts_in_is_found_at_the_first_showing(tmp_path: Path) -> None:
    data(tmp_path)
    dataset = dataset_of(tmp_path, [*LOAD, {"type": "Fill", "value": 200}, PACK])
    masks = Masks(dataset, model_of())
    samples = [dataset[i]["data_samples"] for i in (3, 1)]
    with pytest.raises(MaskError, match=r"3.png: the mask holds 200 after the training pipeline"):
        masks.check_packed([3, 1], samples)
    flat = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(64, 64, dtype=torch.int64)[None].repeat(3, 1, 1)))
    with pytest.raises(MaskError, match=r"shape \(3, 64, 64\)"):
        masks.check_packed([0], [flat])


def test_padding_that_a_loss_would_fail_on_is_said(tmp_path: Path, messages: io.StringIO) -> None:
    data(tmp_path)
    heads = {"decode_head": {"ignore_index": 0}, "auxiliary_head": {"ignore_index": 0}}
    Masks(dataset_of(tmp_path), model_of(**heads))
    [line] = messages.getvalue().splitlines()
    assert "seg_pad_val=255" in line and line.endswith("Set seg_pad_val=0.")
    Masks(dataset_of(tmp_path), model_of(data_preprocessor={"seg_pad_val": 0}, **heads))
    assert len(messages.getvalue().splitlines()) == 1


# Runs ---------------------------------------------------------------------------------------------------------------


def options(root: Path) -> dict[str, Any]:
    """Return options for a run that shows a centre crop; the last picture's mask is spoilt in a corner."""
    given = data(root, label=but(5, spoilt()))
    return {**given, f"{DATA}.pipeline.3.crop_size": "(16,16)", f"{DATA}.pipeline.2.ratio_range": "(1.0,1.0)"}


@pytest.mark.parametrize(("strategy", "workers"), [("agent", 2), ("full", 0)])
def test_a_run_ends_in_one_line(scenes: Path, tmp_path: Path, capsys: Any, workers: int, strategy: str) -> None:
    """All six images are in the first batch: nothing was trained, and nothing is left."""
    given = {**options(tmp_path), "agent.strategy": strategy, "train_dataloader.num_workers": workers}
    given["train_dataloader.persistent_workers"] = workers > 0
    assert run(scenes, {"work_dir": tmp_path / "run", **given}) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith(f"error: {tmp_path}/data/masks/train/5.png: the mask holds 9, ")
    assert lines[-1].endswith(" Correct the mask, num_classes, ignore_index or reduce_zero_label.")
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "run").exists()


def test_what_was_trained_stays(scenes: Path, tmp_path: Path, capsys: Any) -> None:
    given = {**options(tmp_path), "train_dataloader.batch_size": 2, "default_hooks.checkpoint.interval": 1}
    given |= {"train_dataloader.num_workers": 2, "train_dataloader.persistent_workers": True}
    # The bad one is shown in the last batch of the first pass.
    seed = next(seed for seed in range(99) if 5 in list(SelectionSampler(6, seed=seed, batch=2))[-2:])
    folder = tmp_path / "run"
    assert run(scenes, {"work_dir": folder, "agent.seed": seed, **given}) == 2
    assert list(folder.glob("iter_*.pth")) and "5.png: the mask holds 9" in capsys.readouterr().err
    mask(5).save(tmp_path / "data/masks/train/5.png")
    assert run(scenes, {"work_dir": folder, "agent.seed": seed, **given, "--resume": ""}) == 0


def test_zero_that_is_no_class_trains(scenes: Path, tmp_path: Path) -> None:
    """`reduce_zero_label` as ADE20K has it: 0 is ignored, 1 to 5 become 0 to 4."""

    def label(index: int) -> Image.Image:
        return Image.fromarray(np.array(mask(index)) + (np.arange(64) > 8).astype(np.uint8))

    given = {**data(tmp_path, 8, label), f"{DATA}.reduce_zero_label": True, "train_cfg.max_iters": 3}
    assert run(scenes, {"work_dir": tmp_path / "run", **given}) == 0
    table = read(tmp_path / "run/trace")
    assert table is not None and all(value is not None for value in table["loss"].to_pylist()[:8])


def test_another_ignore_index_trains(scenes: Path, tmp_path: Path) -> None:
    """The images whose masks are 0 throughout have no signals where 0 is ignored."""
    config = config_of(scenes, tmp_path / "run", **{**EPOCHS, "train_cfg.max_epochs": 2})
    for head in ("decode_head", "auxiliary_head"):
        config.model[head].ignore_index = 0
    config.model.data_preprocessor.seg_pad_val = 0
    empty = filled(0)(0)
    config.train_dataloader.dataset.pipeline = [*LOAD, CROP, PACK]
    data(tmp_path, 8, but(3, empty))
    config.train_dataloader.dataset.update(data_root=str(tmp_path / "data"), img_suffix=".png")
    runner, _ = fit(config)
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "AgentHook")
    table = hook.selector.table
    assert table.loss.isnan().tolist() == [i == 3 for i in range(8)]


@pytest.mark.parametrize(
    ("values", "said"), [([0], "0: one class"), ([0, 255], "0, 255: one class"), ([255], "255: no class"), ([0, 1], "")]
)
def test_masks_of_one_class_are_told(scenes: Path, tmp_path: Path, values: list[int], said: str) -> None:
    """Such as objects marked by 255 on 0, which the loss ignores."""

    def label(index: int) -> Image.Image:
        return Image.fromarray(np.resize(np.array(values, np.uint8).repeat(32), (64, 64)))

    given = {**data(tmp_path, 4, label), "train_cfg.max_iters": 3}
    assert run(scenes, {"work_dir": tmp_path / "run", **given}) == 0
    text = next((tmp_path / "run").glob("*/*.log")).read_text()
    assert text.count("masks so far hold no value but") == bool(said)
    assert f"the 4 masks so far hold no value but {said}" in text or not said


# Lists of images ----------------------------------------------------------------------------------------------------


def test_doubles_of_two_lists_name_the_lists(tmp_path: Path) -> None:
    data(tmp_path)
    for name, listed in (("train", "0 1 2 3"), ("aug", "3 4 2 5"), ("rest", "4 5"), ("twice", "0 4 4")):
        (tmp_path / f"{name}.txt").write_text("\n".join(listed.split()))
    lists = {name: dataset_of(tmp_path, ann_file=str(tmp_path / f"{name}.txt")) for name in ("train", "aug", "rest")}

    def both(*parts: Any) -> Any:
        return DATASETS.build({"type": "ConcatDataset", "datasets": list(parts)})

    assert len(image_paths(both(lists["train"], lists["rest"]))) == 6, "the remedy works"
    with pytest.raises(ConfigError) as error:
        image_paths(both(lists["train"], lists["aug"]))
    text = str(error.value)
    assert "train/3.png more than once (2 entries too many)" in text and "Repeat" not in text
    assert f"{tmp_path.name}/train.txt and {tmp_path.name}/aug.txt both have it. Take the doubles out of one" in text
    with pytest.raises(ConfigError, match=r"4.png more than once .*twice.txt has it again. List every image once"):
        image_paths(dataset_of(tmp_path, ann_file=str(tmp_path / "twice.txt")))
    with pytest.raises(ConfigError, match=r"RepeatDataset repeats it. Take RepeatDataset off"):
        image_paths(both(lists["train"], {"type": "RepeatDataset", "times": 2, "dataset": lists["rest"]}))


class Counted(str):
    """A path that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)  # type: ignore[return-value]


def test_doubles_are_found_in_one_walk() -> None:
    paths = [Counted(f"images/{i}.jpg") for i in range(20_000)]
    assert first_double(paths) is None
    again = [*paths, *(Counted(path) for path in paths[19_998:])]
    Counted.compared = 0
    assert first_double(again) == (19_998, 20_000)
    assert Counted.compared < 100, "not every path against every other"


# Files of masks -----------------------------------------------------------------------------------------------------

REMOTE = [
    {"backend_args": {"backend": "petrel", "path_mapping": {"data/": "s3://data/"}}},
    {"backend_args": {"path_mapping": {"data/": "s3://data/"}}},
    {"backend_args": {"backend": "http"}},
    {"backend_args": {"backend": "lmdb", "db_path": "x.lmdb"}},
    {"file_client_args": {"backend": "memcached"}},
]


def with_loader(root: Path, given: dict[str, Any], where: str) -> Any:
    """Return a data set one of whose masks is not there, with a backend set at the loader or the data set."""
    data(root, label=but(3, None))
    dataset = dataset_of(root)
    for key, value in given.items():
        setattr(dataset.pipeline.transforms[1] if where == "loader" else dataset, key, value)
    return dataset


@pytest.mark.parametrize("where", ["loader", "data set"])
@pytest.mark.parametrize("given", REMOTE, ids=str)
def test_masks_behind_a_backend_are_not_looked_for(given: dict[str, Any], where: str, tmp_path: Path) -> None:
    assert len(image_paths(with_loader(tmp_path, given, where))) == 6


@pytest.mark.parametrize(
    "given", [{}, {"backend_args": {"backend": "local"}}, {"file_client_args": {"backend": "disk"}}]
)
def test_masks_that_are_plain_files_are_looked_for(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"1 of 6 images have no mask, .*3.png first, whose mask would be .*3.png"):
        image_paths(with_loader(tmp_path, given, "loader"))


def test_a_loader_of_ones_own_may_read_what_it_likes(tmp_path: Path) -> None:
    data(tmp_path, label=but(3, None))
    own = type("Own", (TRANSFORMS.get("LoadAnnotations"),), {"_load_seg_map": lambda self, results: None})
    TRANSFORMS.register_module(name="OwnMasks", module=own, force=True)
    assert len(image_paths(dataset_of(tmp_path, [LOAD[0], {"type": "OwnMasks"}, PACK]))) == 6
    assert len(image_paths(dataset_of(tmp_path, [LOAD[0], {"type": "OwnLoader"}, PACK]))) == 6


def test_a_folder_of_masks_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data(tmp_path, 40)
    folder = tmp_path / "data/masks/train"
    (folder / "away").symlink_to(tmp_path / "nothing")
    (folder / "down").mkdir()
    paths = [str(folder / f"{i}.png") for i in range(40)]
    calls: list[str] = []
    real, looked = os.scandir, os.path.isfile
    monkeypatch.setattr(os, "scandir", lambda path: (calls.append("list"), real(path))[1])
    monkeypatch.setattr(os.path, "isfile", lambda path: (calls.append("look"), looked(path))[1])
    assert missing(paths) == [] and calls == ["list"]
    lost = [*paths, str(folder / "away"), str(folder / "down"), str(tmp_path / "no/x.png"), None, "s3://masks/y.png"]
    assert missing(lost) == [40, 41, 42]


def test_only_what_is_lost_is_refused(tmp_path: Path) -> None:
    data(tmp_path)
    dataset = dataset_of(tmp_path)
    refuse_lost(dataset, ["a.jpg"], [None])
    with pytest.raises(ConfigError, match=r"1 of 1 images have no mask, a.jpg first, whose mask would be none/a.png"):
        refuse_lost(dataset, ["a.jpg"], ["none/a.png"])
