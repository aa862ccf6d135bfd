"""Data sets of the user's own: they act as with the stock trainer, or are refused by name before training."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import ultralytics.data.build
import ultralytics.models.yolo.classify.train
from det_runs import TINY, fit
from head_runs import host_of, write_data, write_head
from torch.utils.data import ConcatDataset, Subset
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import Compose, MixUp, Mosaic, v8_transforms
from ultralytics.data.dataset import ClassificationDataset, YOLOConcatDataset, YOLODataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionTrainer

from det_seg_agent import ConfigError, StateError
from det_seg_agent.det.dataset import IndexedDataset, seed_process
from det_seg_agent.det.shared_pass import SharedPass
from det_seg_agent.det.trainer import AgentDetectionTrainer
from det_seg_agent.det.trainers import AgentClassificationTrainer

pytestmark = pytest.mark.slow  # it trains

RUN = {"epochs": 3, "workers": 0, "val": False, "nbs": 8}
FOUR = [3, 11, 20, 41]
FULL = AgentDetectionTrainer.configured(strategy="full")


# Memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weighs", "batches", "expected"), [(False, 0, 4), (True, 0, 8), (False, 6251, 9), (True, 6251, 13)]
)
def test_the_shared_pass_takes_what_its_docstring_says(weighs: bool, batches: int, expected: int) -> None:
    """4 bytes a sample, 4 with weights, 4 and 16 a batch (of 16) with rectangular batches."""
    shared = SharedPass(100_000, weighs, batches)
    taken = sum(value.untyped_storage().nbytes() for value in vars(shared).values() if value is not None)
    assert taken / 100_000 == pytest.approx(expected, abs=0.01)


def test_a_data_set_shares_what_its_run_needs_and_nothing_for_full(data_yaml: str) -> None:
    def kept(fresh: bool, **more: Any) -> set[str]:
        rect = more.pop("rect", False)
        current = vars(IndexedDataset(own(YOLODataset, data_yaml, rect=rect), 0, 0, fresh, **more))["_agent_current"]
        return set() if current is None else {name for name, value in vars(current).items() if value is not None}

    assert kept(False) == set()
    assert kept(True) == {"members", "meta"}
    assert kept(True, weighs=True) == {"members", "meta", "weight"}
    assert kept(True, rect=True) == {"members", "meta", "batch", "shapes"}


# Own data sets --------------------------------------------------------------------------------------------------------


def own(cls: type, data_yaml: str, rect: bool = False, **hyp: Any) -> Any:
    """Return a data set of a class, as the host builds it for training."""
    data = check_det_dataset(data_yaml)
    cfg = get_cfg(overrides={"imgsz": 64, "task": "detect", "close_mosaic": 0, **hyp})
    return cls(
        img_path=data["train"], imgsz=64, batch_size=8, augment=True, hyp=cfg, rect=rect, stride=32, prefix="train: ",
        task="detect", data=data,
    )  # fmt: skip


class Draws(YOLODataset):
    """The class-balancing recipe: `__getitem__` draws the index itself."""

    def __getitem__(self, index: int) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        index = FOUR[np.random.randint(4)] if "train" in self.prefix else index
        return self.transforms(self.get_image_and_label(index))


class Shifted(YOLODataset):
    """Shows the next image."""

    def get_image_and_label(self, index: int) -> Any:
        return super().get_image_and_label((index + 1) % len(self))


class Marked(YOLODataset):
    """Loads, and labels, in its own way."""

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        image, *sizes = super().load_image(i, *args, **kwargs)
        return (255 - image, *sizes)

    def update_labels_info(self, label: Any) -> Any:
        label["note"] = label["cls"].sum()
        return super().update_labels_info(label)


class Kept(YOLODataset):
    """Keeps its items, and gives them out again."""

    def __getitem__(self, index: int) -> Any:
        kept = vars(self).setdefault("kept", {})
        if index not in kept:
            kept[index] = super().__getitem__(index)
        return kept[index]


class Plain(YOLODataset):
    """Makes its items by itself, with the file and without transforms."""

    def __getitem__(self, index: int) -> Any:
        label = self.get_image_and_label(index)
        image = np.zeros((64, 64, 3), np.uint8)
        image[: label["img"].shape[0], : label["img"].shape[1]] = label["img"]
        cls = torch.from_numpy(label["cls"])
        label["instances"].convert_bbox("xywh")
        return {
            "img": torch.from_numpy(image.transpose(2, 0, 1).copy()), "cls": cls, "batch_idx": torch.zeros(len(cls)),
            "bboxes": torch.from_numpy(label["instances"].bboxes), "im_file": label["im_file"],
        }  # fmt: skip


class OwnMosaic(Mosaic):
    """Takes its partners by their labels."""

    def get_indexes(self) -> list[int]:
        return [i for i, label in enumerate(self.dataset.labels) if len(label["cls"])][:3]


class Mixes(YOLODataset):
    """Builds its transforms with a mosaic of its own, which it keeps at hand."""

    def build_transforms(self, hyp: Any) -> Any:
        self.mosaic_of_mine = OwnMosaic(self, imgsz=64, p=1.0)
        return Compose([self.mosaic_of_mine, *super().build_transforms(hyp).transforms])


OWN = [Draws, Shifted, Marked, Kept, Plain, Mixes]


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("fresh", [False, True])
def test_items_are_those_of_the_users_class(cls: type, fresh: bool, data_yaml: str) -> None:
    """With all images selected and the same draws, items are the same to the bit; the credit goes to what they show."""
    items = []
    for wrap in (False, True):
        data = own(cls, data_yaml, mosaic=0.0 if fresh else 1.0)  # a pass begins with no image at hand for a mosaic
        dataset = IndexedDataset(data, 0, 0, fresh) if wrap else data
        seed_process(1, 0, 0, 0)
        items.append([dataset[i] for i in (5, 6, 5)])
    for stock, ours in zip(*items, strict=True):
        assert stock.keys() - {"shown"} == ours.keys() - {"credits", "object_samples"}
        assert torch.equal(stock["img"], ours["img"]) and torch.equal(stock["bboxes"], ours["bboxes"])
        assert torch.equal(stock["cls"], ours["cls"])
        credits = dict(ours["credits"])
        assert sum(credits.values()) == pytest.approx(1)
        if fresh:  # a crop of a mosaic may leave out the image that its file names
            assert data.im_files.index(stock["im_file"]) in credits


@pytest.mark.parametrize("strategy", ["full", "agent"])
def test_an_index_that_getitem_draws_is_shown_and_credited(
    strategy: str, model_yaml: str, data_yaml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ultralytics.data.build, "YOLODataset", Draws)
    runs, shown = {}, {}
    for name, base in (("stock", DetectionTrainer), ("ours", AgentDetectionTrainer.configured(strategy=strategy))):
        files: list[str] = []

        class Watching(base):  # type: ignore[misc,valid-type]
            def preprocess_batch(self, batch: Any, files: list[str] = files) -> Any:
                files.extend(batch["im_file"])
                return super().preprocess_batch(batch)

        runs[name] = fit(model_yaml, data_yaml, tmp_path, name, Watching, **RUN, mosaic=0.0)
        shown[name] = files
    ours = runs["ours"].train_loader.dataset
    four = {ours.im_files[i] for i in FOUR}
    assert set(shown["ours"]) <= four and ours.calls >= len(shown["ours"])
    known = runs["ours"].selector.table.loss.isfinite()
    assert known.nonzero().flatten().tolist() == FOUR, "only they have a loss"
    if strategy == "full":
        assert shown["stock"] == shown["ours"]
        a, b = (run.ema.ema.state_dict() for run in runs.values())
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_workers_show_what_the_users_getitem_draws(data_yaml: str) -> None:
    dataset = IndexedDataset(own(Draws, data_yaml), 0, 0, fresh=True)
    dataset.set_pass(0, torch.arange(0, 48, 2), None, [], 8)
    loader = torch.utils.data.DataLoader(
        dataset, 8, num_workers=2, collate_fn=dataset.collate, multiprocessing_context="spawn"
    )
    for batch in loader:
        primary = [dataset.im_files.index(file) for file in batch["im_file"]]
        assert set(primary) <= set(FOUR)
        credited = set(batch["credit_index"].tolist())
        assert credited <= set(FOUR) | set(range(0, 48, 2)), "mosaic takes the rest from the selection"


def test_own_mixing_transforms_draw_as_they_say_and_are_credited_in_equal_parts(data_yaml: str) -> None:
    data = own(Mixes, data_yaml, mosaic=0.0)
    dataset = IndexedDataset(data, 0, 0, fresh=True)
    dataset.set_pass(0, torch.tensor([40, 41]), None, [], 8)
    partners = [i for i, label in enumerate(data.labels) if len(label["cls"])][:3]
    credits = dict(dataset[40]["credits"])
    assert set(credits) == {40, *partners} and set(credits.values()) == {1 / len(credits)}
    dataset.mosaic_of_mine.p = 0.0
    assert dict(dataset[40]["credits"]) == {40: 1.0}


class Stacks(YOLODataset):
    """Collates by itself, and is strict about keys."""

    @staticmethod
    def collate_fn(batch: Any) -> Any:
        assert all(set(item) == set(batch[0]) and "credits" not in item and "shown" not in item for item in batch)
        return {**YOLODataset.collate_fn(batch), "mine": len(batch)}


def test_the_users_collate_function_is_the_loaders(
    model_yaml: str, data_yaml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ultralytics.data.build, "YOLODataset", Stacks)
    for strategy in ("full", "random"):
        seen: list[int] = []

        class Watching(AgentDetectionTrainer.configured(strategy=strategy)):  # type: ignore[misc]
            def preprocess_batch(self, batch: Any, seen: list[int] = seen) -> Any:
                seen.append(batch.pop("mine"))
                return super().preprocess_batch(batch)

        fit(model_yaml, data_yaml, tmp_path, strategy, Watching, **{**RUN, "epochs": 1})
        assert seen == [8] * 6


@pytest.mark.parametrize("how", ["fewer", "turned"])
def test_a_collate_function_that_moves_images_is_refused_and_stock_under_full(how: str, data_yaml: str) -> None:
    def collate(items: Any) -> Any:
        return YOLODataset.collate_fn(items[1:] if how == "fewer" else items[::-1])

    with pytest.raises(ConfigError, match="YOLODataset: its collate function returns other images"):
        IndexedDataset(own(YOLODataset, data_yaml), 0, 0, fresh=True, collate=collate)
    dataset = IndexedDataset(own(YOLODataset, data_yaml), 0, 0, fresh=False, collate=collate)
    batch = dataset.collate([dataset[0], dataset[1]])
    assert batch["im_file"][-1] == dataset.im_files[how == "fewer"] and "credit_index" not in batch


class Skips(YOLODataset):
    """Gives nothing for every third image, and leaves that out of the batch."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index) if index % 3 else None

    @staticmethod
    def collate_fn(batch: Any) -> Any:
        return YOLODataset.collate_fn([item for item in batch if item is not None])


def test_items_that_are_left_out_are_not_credited(data_yaml: str) -> None:
    dataset = IndexedDataset(own(Skips, data_yaml, mosaic=0.0), 0, 0, fresh=True)
    batch = dataset.collate([dataset[i] for i in (4, 6, 7)])
    assert batch["credit_index"].tolist() == [4, 7] and batch["credit_image"].tolist() == [0, 1]
    assert [dataset.im_files.index(file) for file in batch["im_file"]] == [4, 7]


# What callbacks do ----------------------------------------------------------------------------------------------------


def test_the_indexed_data_set_is_the_users_object_in_everything_else(data_yaml: str) -> None:
    data = own(Draws, data_yaml)
    dataset = IndexedDataset(data, 0, 0, fresh=True)
    assert isinstance(dataset, Draws) and len(dataset) == 48
    dataset.phase = 3
    assert data.phase == 3 and dataset.phase == 3
    del dataset.phase
    assert not hasattr(data, "phase") and not hasattr(dataset, "phase")
    labels = [dict(label) for label in data.labels]
    dataset.labels = labels
    assert data.labels is labels
    dataset.labels[3]["cls"] = dataset.labels[3]["cls"] * 0 + 2
    assert set(data.get_image_and_label(3)["cls"].flatten().tolist()) <= {2.0}
    again = pickle.loads(pickle.dumps(dataset))
    assert isinstance(again, Draws) and again.im_files == data.im_files
    seed_process(0, 0, 0, 0)
    one = dataset[0]["img"]
    seed_process(0, 0, 0, 0)
    assert torch.equal(again[0]["img"], one)


def replaced(dataset: Any) -> None:
    dataset.transforms = v8_transforms(dataset, 64, get_cfg(overrides={"mosaic": 1.0, "mixup": 1.0}))
    dataset.transforms.append(dataset.format_class(bbox_format="xywh", normalize=True, batch_idx=True))


def rebuilt(dataset: Any) -> None:
    dataset.transforms = dataset.build_transforms(get_cfg(overrides={"mosaic": 1.0, "mixup": 1.0}))


def extended(dataset: Any) -> None:
    pre = v8_transforms(dataset, 64, get_cfg(overrides={"mosaic": 1.0})).transforms[0]
    dataset.transforms.transforms.insert(1, MixUp(dataset, pre_transform=pre, p=1.0))


@pytest.mark.parametrize("change", [replaced, rebuilt, extended], ids=lambda f: f.__name__)
def test_transforms_that_a_callback_puts_in_draw_from_the_selection(change: Any, data_yaml: str) -> None:
    dataset = IndexedDataset(own(YOLODataset, data_yaml), 0, 0, fresh=True)
    chosen = torch.arange(0, 48, 3)
    dataset.set_pass(0, chosen, None, [], 8)
    dataset[0]
    change(dataset)
    mixed = 0
    for index in chosen.tolist():
        credits = dict(dataset[index]["credits"])
        assert set(credits) <= set(chosen.tolist()) and sum(credits.values()) == pytest.approx(1)
        mixed = max(mixed, len(credits))
    assert mixed > 4
    dataset.close_mosaic(get_cfg())
    assert dict(dataset[3]["credits"]) == {3: 1.0}


def test_a_transform_that_was_kept_at_hand_still_acts(data_yaml: str) -> None:
    data = own(YOLODataset, data_yaml)
    mosaic = data.transforms[0][0]
    dataset = IndexedDataset(data, 0, 0, fresh=True)
    assert isinstance(mosaic, Mosaic) and len(dataset[7]["credits"]) > 1
    mosaic.p = 0.0
    assert dict(dataset[7]["credits"]) == {7: 1.0}


def test_labels_in_another_order_are_credited_by_their_files(data_yaml: str) -> None:
    data = own(YOLODataset, data_yaml, mosaic=0.0)
    dataset = IndexedDataset(data, 0, 0, fresh=True)
    order = random.Random(0).sample(range(48), 48)
    for name in ("labels", "im_files", "npy_files"):
        setattr(dataset, name, [getattr(data, name)[i] for i in order])
    assert [next(iter(dict(dataset[i]["credits"]))) for i in (0, 9, 30)] == [order[i] for i in (0, 9, 30)]


# Refused, or stock ----------------------------------------------------------------------------------------------------


class Silent(YOLODataset):
    """Gives items that do not say what they show."""

    def __getitem__(self, index: int) -> Any:
        return {key: value for key, value in Plain.__getitem__(self, index).items() if key != "im_file"}


class Renamed(YOLODataset):
    """Gives its files other names."""

    def get_image_and_label(self, index: int) -> Any:
        return {**super().get_image_and_label(index), "im_file": f"image {index}"}


class Twice(YOLODataset):
    """Shows every image twice a pass."""

    def __len__(self) -> int:
        return 2 * len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index % len(self.labels))


def whole(data_yaml: str, **hyp: Any) -> YOLODataset:
    return own(YOLODataset, data_yaml, **hyp)


def half(data_yaml: str, **hyp: Any) -> Subset:
    data = own(YOLODataset, data_yaml, **hyp)
    found = Subset(data, range(0, 48, 2))
    found.labels, found.collate_fn = data.labels[::2], data.collate_fn
    return found


def joined(data_yaml: str, **hyp: Any) -> ConcatDataset:
    return YOLOConcatDataset([own(YOLODataset, data_yaml, **hyp) for _ in range(2)])


REFUSED = {
    "Silent": (lambda *a, **k: own(Silent, *a, **k), "Silent: its items do not say which image they show"),
    "Renamed": (lambda *a, **k: own(Renamed, *a, **k), "Renamed: its items do not say which image they show"),
    "Twice": (lambda *a, **k: own(Twice, *a, **k), "Twice has a length of 96 and 48 image files"),
    "Subset": (half, "Subset is not the host's"),
    "ConcatDataset": (joined, "YOLOConcatDataset is not the host's"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_selected_is_refused_by_name_and_is_stock_under_full(
    name: str, model_yaml: str, data_yaml: str, tmp_path: Path
) -> None:
    build, message = REFUSED[name]

    def trainer(base: Any, shown: list[torch.Tensor]) -> Any:
        class Own(base):  # type: ignore[misc]
            def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
                return build(data_yaml) if mode == "train" else super().build_dataset(img_path, mode, batch)

            def preprocess_batch(self, batch: Any) -> Any:
                shown.append(batch["img"].clone())
                return super().preprocess_batch(batch)

        return Own

    more = {**RUN, "epochs": 1}
    shown: list[torch.Tensor] = []
    with pytest.raises(ConfigError, match=message) as error:
        fit(model_yaml, data_yaml, tmp_path, "refused", trainer(AgentDetectionTrainer, shown), **more)
    assert "agent.strategy=full" in str(error.value) and not shown
    full: list[torch.Tensor] = []
    runs = [
        fit(model_yaml, data_yaml, tmp_path, "stock", trainer(DetectionTrainer, shown), **more),
        fit(
            model_yaml,
            data_yaml,
            tmp_path,
            "full",
            trainer(AgentDetectionTrainer.configured(strategy="full"), full),
            **more,
        ),
    ]
    assert len(shown) == len(full) > 0 and all(torch.equal(a, b) for a, b in zip(shown, full, strict=True))
    a, b = (run.ema.ema.state_dict() for run in runs)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_data_set_whose_length_changes_is_stopped_by_name(data_yaml: str) -> None:
    class Grows(YOLODataset):
        def __len__(self) -> int:
            return len(self.labels) + getattr(self, "more", 0)

    dataset = IndexedDataset(own(Grows, data_yaml), 0, 0, fresh=True)
    dataset.set_pass(0, torch.arange(48), None, [], 8)
    dataset.more = -1
    with pytest.raises(StateError, match="Grows has 47 images now, and had 48"):
        dataset.set_pass(1, torch.arange(20), None, [], 8)


# Classification -------------------------------------------------------------------------------------------------------


class DrawsClass(ClassificationDataset):
    """Draws the index itself."""

    def __getitem__(self, i: int) -> Any:
        return super().__getitem__(FOUR[np.random.randint(4)] if "train" in self.prefix else i)


class Says(DrawsClass):
    """Draws the index itself, and says which."""

    def __getitem__(self, i: int) -> Any:
        i = FOUR[np.random.randint(4)] if "train" in self.prefix else i
        return {**ClassificationDataset.__getitem__(self, i), "im_file": self.samples[i][0]}


def classify(scenes: Path, folder: Path, name: str, trainer: Any) -> Any:
    """Train a classifier; return its trainer."""
    model = host_of(write_head(folder, "yolov8n-cls"))
    data = write_data(scenes, "classify", folder / name)
    model.train(trainer=trainer, **{**TINY, **RUN, "data": data, "project": str(folder), "name": name})
    return model.trainer


def test_a_classifiers_own_index_is_credited_where_it_says_so_and_refused_where_not(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, full = (
        AgentClassificationTrainer.configured(ratio=0.5),
        AgentClassificationTrainer.configured(strategy="full"),
    )
    where = ultralytics.models.yolo.classify.train
    monkeypatch.setattr(where, "ClassificationDataset", DrawsClass)
    with pytest.raises(ConfigError, match="DrawsClass: its items do not say which image they show"):
        classify(scenes, tmp_path, "refused", agent)
    stock = classify(
        scenes, tmp_path, "stock", host_of(write_head(tmp_path, "yolov8n-cls")).task_map["classify"]["trainer"]
    )
    same = classify(scenes, tmp_path, "full", full)
    a, b = (run.ema.ema.state_dict() for run in (stock, same))
    assert all(torch.equal(a[key], b[key]) for key in a)
    monkeypatch.setattr(where, "ClassificationDataset", Says)
    credited = classify(scenes, tmp_path, "says", agent)
    assert credited.selector.table.loss.isfinite().nonzero().flatten().tolist() == FOUR
