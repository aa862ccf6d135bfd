"""The rendered data set: layout, shares, labels that fit the pixels, and what happens to an existing folder."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from det_seg_agent.errors import ConfigError
from det_seg_agent.scenes import folder as folder_module
from det_seg_agent.scenes import kinds, truth_of, write_scenes
from det_seg_agent.scenes.draw import CATEGORIES
from det_seg_agent.scenes.labels import MIN_VISIBLE, polygons_of, spoil
from det_seg_agent.scenes.mix import Mix, apportion

coco = pytest.importorskip("pycocotools.coco")

TRAIN, VAL, SIZE = 40, 12, 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "set", TRAIN, VAL, SIZE, seed=3)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _load(folder: Path, split: str) -> Any:
    return coco.COCO(str(folder / "annotations" / f"instances_{split}.json"))


def test_shares_of_kinds(folder: Path) -> None:
    assert Counter(kinds(folder).values()) == {"easy": 12, "duplicate": 14, "hard": 10, "wrong": 4}
    images = _load(folder, "val").imgs.values()
    assert Counter(image["kind"] for image in images) == {"easy": 6, "hard": 6}


@pytest.mark.parametrize("count", [1, 2, 7, 33, 320])
def test_shares_add_up(count: int) -> None:
    counts = Counter(apportion(Mix().shares, count))
    assert sum(counts.values()) == count
    assert all(abs(counts[kind] - share * count) < 1.0 for kind, share in Mix().shares.items())


@pytest.fixture(scope="module")
def tailed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kind of set that the demo trains on: a long tail, uneven duplicates and wrong labels."""
    mix = {"hard": 0, "duplicates": 30, "wrong_labels": 10, "classes": 8, "long_tail": 10, "class_colours": 90}
    return write_scenes(tmp_path_factory.mktemp("tailed") / "set", 200, 128, 64, **mix)


def _objects(folder: Path, split: str) -> Counter[str]:
    data = _load(folder, split)
    return Counter(data.cats[mark["category_id"]]["name"] for mark in data.anns.values())


def test_a_long_tail_in_training_and_balance_in_validation(tailed: Path) -> None:
    firsts = Counter(name for row in truth_of(tailed).values() for name in row["classes"])
    assert len(firsts) == 8 and firsts["disc"] > 6 * firsts["moon"] > 0
    assert firsts["disc"] > firsts["triangle"] > firsts["bar"] > firsts["moon"]
    assert min(_objects(tailed, "val").values()) >= 18 and len(_objects(tailed, "val")) == 8
    assert max(_objects(tailed, "val").values()) < 2 * min(_objects(tailed, "val").values())


def test_the_truth_says_what_each_image_is(tailed: Path) -> None:
    truth, data = truth_of(tailed), _load(tailed, "train")
    assert list(truth) == sorted(path.name for path in (tailed / "train").iterdir())
    found = Counter(row["kind"] for row in truth.values())
    assert found["duplicate"] == 60 and found["wrong"] == 20 and found["rare"] > 10 and "hard" not in found
    rare = {CATEGORIES[category] for category in Mix(classes=8, long_tail=10).rare}
    seen = set()
    for image in data.imgs.values():
        row = truth[image["file_name"]]
        labelled = {data.cats[mark["category_id"]]["name"] for mark in data.loadAnns(data.getAnnIds(image["id"]))}
        assert (row["group"] is None) == (row["kind"] != "duplicate") and row["kind"] == image["kind"]
        assert (row["wrong"] is None) == (row["kind"] != "wrong")
        if row["kind"] in ("easy", "rare"):
            assert labelled == set(row["classes"]) and (row["kind"] == "rare") == bool(labelled & rare)
        if row["wrong"] == "classes" and len(row["classes"]) == 1:
            assert not labelled & set(row["classes"])
        seen.add(row["wrong"])
    assert seen == {None, "classes", "places"}


def test_a_few_scenes_are_copied_many_times(tailed: Path) -> None:
    copies = Counter(row["group"] for row in truth_of(tailed).values() if row["group"] is not None)
    assert sorted(copies) == list(range(6)) and copies[0] > 8 * copies[5]
    groups: dict[int, list[Any]] = {}
    for name, row in truth_of(tailed).items():
        if row["group"] is not None:
            picture = cv2.GaussianBlur(cv2.imread(str(tailed / "train" / name)), (0, 0), 2.0).astype(np.float32)
            groups.setdefault(row["group"], []).append(picture)
    within = max(float(np.abs(a - g[0]).mean()) for g in groups.values() for a in g)
    between = min(float(np.abs(groups[a][0] - groups[b][0]).mean()) for a in groups for b in groups if a < b)
    assert within < 8.0 < between
    even = write_scenes(tailed.parent / "even", 40, 1, 64, duplicates=60, hard=0, wrong_labels=0)
    assert set(Counter(row["group"] for row in truth_of(even).values() if row["group"] is not None).values()) == {4}


def test_objects_have_the_colours_of_their_classes(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "set", 24, 1, 64, hard=0, duplicates=0, wrong_labels=0, class_colours=100)
    data, seen = _load(folder, "train"), {}
    for mark in data.anns.values():
        image = cv2.imread(str(folder / "train" / data.imgs[mark["image_id"]]["file_name"]))
        colour = np.median(image[cv2.erode(data.annToMask(mark), np.ones((3, 3))) > 0], axis=0)
        seen.setdefault(data.cats[mark["category_id"]]["name"], []).append(int(colour.argmax()))
    assert set(seen["disc"]) == {2} and set(seen["square"]) == {0} and set(seen["triangle"]) == {1}


@pytest.mark.parametrize(("split", "count"), [("train", TRAIN), ("val", VAL)])
def test_labels_fit(folder: Path, split: str, count: int) -> None:
    data = _load(folder, split)
    raw = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    assert {c["id"]: c["name"] for c in raw["categories"]} == {1: "disc", 2: "square", 3: "triangle", 4: "star"}
    assert len({image["id"] for image in raw["images"]}) == len(raw["images"]) == count
    assert len({mark["id"] for mark in raw["annotations"]}) == len(raw["annotations"])
    for image in data.imgs.values():
        pixels = cv2.imread(str(folder / split / image["file_name"]))
        stored = cv2.imread(str(folder / "masks" / split / Path(image["file_name"]).with_suffix(".png").name), -1)
        assert pixels is not None and pixels.shape == (SIZE, SIZE, 3)
        assert stored is not None and stored.shape == (SIZE, SIZE) and stored.dtype == np.uint8
        marks = data.loadAnns(data.getAnnIds(imgIds=image["id"]))
        assert marks
        painted = np.zeros_like(stored)
        for mark in marks:
            x, y, width, height = mark["bbox"]
            assert x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= SIZE and y + height <= SIZE
            mask = data.annToMask(mark)
            assert mark["iscrowd"] == 0 and mark["area"] >= MIN_VISIBLE
            assert all(len(polygon) >= 6 for polygon in mark["segmentation"])
            left, top, wide, high = cv2.boundingRect(mask)
            assert [left, top, wide, high] == [x, y, width, height]
            assert int(mask.sum()) == mark["area"]
            painted[mask > 0] = mark["category_id"]
        assert np.array_equal(painted, stored)


def test_hard_is_smaller_and_busier(folder: Path) -> None:
    data = _load(folder, "train")
    found: dict[str, list[list[float]]] = {}
    for image in data.imgs.values():
        marks = data.loadAnns(data.getAnnIds(imgIds=image["id"]))
        found.setdefault(image["kind"], []).append([mark["area"] for mark in marks])
    assert all(1 <= len(areas) <= 2 for areas in found["easy"])
    assert all(3 <= len(areas) <= 6 for areas in found["hard"])
    assert np.mean(sum(found["hard"], [])) < 0.35 * np.mean(sum(found["easy"], []))


def test_duplicates_have_near_twins(folder: Path) -> None:
    pictures = {
        kind: [
            cv2.GaussianBlur(cv2.imread(str(folder / "train" / name)), (0, 0), 2.0).astype(np.float32)
            for name, own in kinds(folder).items()
            if own == kind
        ]
        for kind in ("duplicate", "easy")
    }
    nearest = {
        kind: [min(float(np.abs(a - b).mean()) for b in group if b is not a) for a in group]
        for kind, group in pictures.items()
    }
    assert max(nearest["duplicate"]) < 10.0 < np.median(nearest["easy"])


@pytest.mark.parametrize("mix", [Mix(), Mix(classes=8, long_tail=10)])
def test_spoilt_labels_are_all_wrong(mix: Mix) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 12:32] = 255
    seen = set()
    for seed in range(12):
        wrong, [(category, moved)] = spoil([(2, mask)], 64, np.random.default_rng(seed), mix)
        assert wrong == ("places" if category == 2 else "classes")
        if category == 2:
            assert cv2.boundingRect(moved) == (22, 20, 20, 20)
        else:
            assert np.array_equal(moved, mask)
        seen.add(category)
    assert 2 in seen and len(seen) > 1 and seen <= set(mix.names)


def test_polygons_of_a_ring() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[5:30, 5:30] = 255
    mask[12:20, 10:22] = 0
    polygons = polygons_of(mask)
    assert len(polygons) == 2
    from pycocotools import mask as tools

    joined = tools.decode(tools.merge(tools.frPyObjects(polygons, 40, 40)))
    assert np.array_equal(joined > 0, mask > 0)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    mix = {"classes": 8, "long_tail": 5, "class_colours": 50}
    tail = _contents(write_scenes(tmp_path / "tail", 8, 3, 64, seed=1, **mix))
    assert tail == _contents(write_scenes(tmp_path / "tail too", 8, 3, 64, seed=1, **mix)) and "truth.json" in tail
    first = _contents(write_scenes(tmp_path / "a", 8, 3, 64, seed=1))
    assert first == _contents(write_scenes(tmp_path / "b", 8, 3, 64, seed=1))
    assert (
        first["train/000000000001.jpg"]
        != _contents(write_scenes(tmp_path / "c", 8, 3, 64, seed=2))["train/000000000001.jpg"]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "tail", "tail too"]


def test_idempotent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_scenes(tmp_path / "deep" / "set", 5, 2, 64)
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_write_split", lambda *args: pytest.fail("rendered again"))
        assert write_scenes(target, 5, 2, 64) == target
    write_scenes(target, 6, 2, 64)
    assert len(kinds(target)) == 6
    assert len(list((target / "train").iterdir())) == 6
    (target / "notes.txt").write_text("mine")
    write_scenes(target, 6, 2, 64)
    with pytest.raises(ConfigError, match="notes.txt"):
        write_scenes(target, 7, 2, 64)


def test_interrupted_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_scenes(tmp_path / "set", 3, 2, 64)
    before = _contents(target)

    def broken(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_module, "polygons_of", broken)
    for path in (target, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            write_scenes(path, 4, 2, 64)
    assert _contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match="not empty.*remove"):
        write_scenes(tmp_path / "full", 2, 1, 64)
    (tmp_path / "full" / "scenes.json").write_text("{}")
    with pytest.raises(ConfigError, match="not empty"):
        write_scenes(tmp_path / "full", 2, 1, 64)
    assert (tmp_path / "full" / "photo.jpg").read_bytes() == b"x"
    with pytest.raises(ConfigError, match="is a file"):
        write_scenes(tmp_path / "full" / "photo.jpg", 2, 1, 64)
    with pytest.raises(ConfigError, match="train is 0"):
        write_scenes(tmp_path / "none", 0, 1, 64)
    for wrong, message in (
        ({"wrong_labels": 101}, "wrong_labels is 101; give a percentage"),
        ({"duplicates": 70}, "25, 70 and 10 percent, together above 100"),
        ({"classes": 9}, "classes is 9; give 2 to 8"),
        ({"long_tail": 0}, "long_tail is 0; give 1 for"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_scenes(tmp_path / "none", 2, 1, 64, **wrong)
    with pytest.raises(ConfigError, match="write_scenes"):
        kinds(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert len(kinds(write_scenes(tmp_path / "empty", 2, 1, 64))) == 2


@pytest.mark.parametrize(("config", "classes"), [("upernet_light_scenes.py", 4), ("upernet_light_scenes8.py", 8)])
def test_the_configs_name_the_classes_in_order(config: str, classes: int) -> None:
    text = (Path(__file__).parents[2] / "configs/seg" / config).read_text(encoding="utf-8")
    named = re.search(r"^classes = (\(.*\))$", text, re.M)
    assert named is not None and ast.literal_eval(named[1]) == ("background", *Mix(classes=classes).names.values())
