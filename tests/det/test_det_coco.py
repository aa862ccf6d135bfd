"""COCO folders through the host's converter, and pycocotools' figures."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from det_seg_agent.det.coco_convert import prepare_data
from det_seg_agent.det.coco_metrics import (
    NAMES,
    coco_metrics,
    find_val_json,
    format_table,
    match_categories,
    match_images,
)
from det_seg_agent.det.judge import evaluate
from det_seg_agent.errors import ConfigError

CATEGORIES = [{"id": 1, "name": "disc"}, {"id": 3, "name": "bar"}]
BOX = [8.0, 8.0, 24.0, 16.0]


def write_folder(root: Path, categories: list[dict] = CATEGORIES, splits: tuple[str, str] = ("train2017", "val2017")):
    (root / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, first in zip(splits, (1, 101)):
        (root / split).mkdir()
        images, annotations = [], []
        for image_id in range(first, first + 3):
            name = f"{image_id:012d}.jpg"
            Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(root / split / name)
            images.append({"id": image_id, "file_name": name, "width": 64, "height": 48})
            if image_id != first:  # the first image of each split is background
                category = categories[image_id % len(categories)]["id"]
                annotations.append(
                    {"id": image_id, "image_id": image_id, "category_id": category, "bbox": BOX, "area": 384.0}
                    | {"iscrowd": 0}
                )
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
        (root / f"annotations/captions_{split}.json").write_text("{}")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "coco")


def checked(data: str | Path) -> dict:
    from ultralytics.data.utils import check_det_dataset

    return check_det_dataset(str(data))


def test_a_yaml_is_returned_as_it_is() -> None:
    assert str(prepare_data("coco8.yaml")) == "coco8.yaml"


def test_the_folder_is_converted_once_and_again_when_the_json_changes(folder: Path) -> None:
    ready = Path(prepare_data(folder))
    root = folder / "ultralytics"
    assert ready == root / "data.yaml"
    assert os.readlink(root / "images/train2017") == "../../train2017"
    assert {p.name for p in root.iterdir() if p.is_dir()} == {"images", "labels"}
    assert {p.name for p in (root / "labels").iterdir()} == {"train2017", "val2017"}
    assert not list(folder.glob(".ultralytics-*"))
    stamp = ready.stat().st_mtime_ns
    assert Path(prepare_data(folder)) == ready and ready.stat().st_mtime_ns == stamp
    later = ready.stat().st_mtime + 5
    os.utime(folder / "annotations/instances_val2017.json", (later, later))
    prepare_data(folder)
    assert ready.stat().st_mtime_ns != stamp


def test_ids_with_gaps_keep_their_place(folder: Path) -> None:
    data = checked(prepare_data(folder))
    assert data["names"] == {0: "disc", 1: "unused_2", 2: "bar"}
    first = (folder / "ultralytics/labels/train2017/000000000003.txt").read_text().split()
    assert first[0] == "2" and [float(x) for x in first[1:]] == pytest.approx(
        [20 / 64, 16 / 48, 24 / 64, 16 / 48], 1e-4
    )
    assert find_val_json(data) == folder / "annotations/instances_val2017.json"


def test_official_ids_become_80_classes(tmp_path: Path) -> None:
    from ultralytics.data.converter import coco80_to_coco91_class

    official = [{"id": i, "name": f"c{i}"} for i in coco80_to_coco91_class()]
    names = yaml.safe_load(Path(prepare_data(write_folder(tmp_path / "coco", official))).read_text())["names"]
    assert len(names) == 80 and names[79] == "c90"


def test_a_folder_that_is_not_coco_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="instances_train2017"):
        prepare_data(tmp_path)


def test_unreadable_json_is_refused_and_leaves_nothing(folder: Path) -> None:
    path = folder / "annotations/instances_val2017.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=path.name):
        prepare_data(folder)
    assert not (folder / "ultralytics").exists() and not list(folder.glob(".ultralytics-*"))


def test_a_folder_that_cannot_be_written_to_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="not writable"):
        prepare_data(folder)


def test_perfect_boxes_score_one_and_none_score_zero(folder: Path) -> None:
    truth = json.loads((folder / "annotations/instances_val2017.json").read_text())
    ids = [image["id"] for image in truth["images"]]
    perfect = [{k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in truth["annotations"]]
    metrics = coco_metrics(truth, perfect, ids)
    assert tuple(metrics) == NAMES and len(NAMES) == 12
    assert metrics["AP"] == pytest.approx(1.0) and metrics["AP_large"] == -1.0
    assert coco_metrics(truth, [], ids)["AP"] == 0.0
    assert all(name in format_table(metrics) or "Average" in format_table(metrics) for name in NAMES)


def test_evaluate_runs_with_and_without_a_json(folder: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    weights = tmp_path / "w.pt"
    model = YOLO("yolov8n.yaml")
    model.model = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    model.model.names = {0: "disc", 1: "unused_2", 2: "bar"}
    model.save(weights)
    data = str(prepare_data(folder))
    for val_json in (find_val_json(checked(data)), None):
        more = {"device": "cpu", "imgsz": 64, "batch": 2, "workers": 0, "conf": 1e-6, "max_det": 5}
        metrics = evaluate(weights, data, val_json, **more)["bbox"]
        assert tuple(metrics) == NAMES and all(-1 <= value <= 1 for value in metrics.values())


def test_a_moved_folder_still_works(folder: Path) -> None:
    prepare_data(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert Path(checked(prepare_data(moved))["val"][0]).is_relative_to(moved)


def test_a_folder_of_another_making_is_not_removed(folder: Path) -> None:
    (folder / "ultralytics").mkdir()
    (folder / "ultralytics/mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="in the way"):
        prepare_data(folder)
    assert (folder / "ultralytics/mine.txt").exists()


@pytest.mark.parametrize("change", [{"image_id": 999}, {"bbox": None}])
def test_a_broken_annotation_is_refused(folder: Path, change: dict) -> None:
    path = folder / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="converter"):
        prepare_data(folder)
    assert not (folder / "ultralytics").exists()


@pytest.mark.parametrize("name", ["/tmp/x.jpg", "../x.jpg", "a\\..\\..\\x.jpg", "C:\\data\\x.jpg"])
def test_a_file_name_that_leads_out_is_refused(folder: Path, name: str) -> None:
    path = folder / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="file_name"):
        prepare_data(folder)


def test_more_than_80_classes_in_a_coco_folder(tmp_path: Path) -> None:
    from ultralytics import YOLO

    root = write_folder(tmp_path / "coco", [{"id": i, "name": f"c{i}"} for i in range(1, 101)])
    data = str(prepare_data(root))
    model = YOLO("yolov8n.yaml")
    from ultralytics.nn.tasks import DetectionModel

    model.model = DetectionModel("yolov8n.yaml", nc=100, verbose=False)
    model.model.names = {i: f"c{i + 1}" for i in range(100)}
    model.save(tmp_path / "w.pt")
    val_json = find_val_json(checked(data))
    metrics = evaluate(tmp_path / "w.pt", data, val_json, device="cpu", imgsz=64, batch=2, conf=1e-6, plots=True)
    assert len(metrics["bbox"]) == 12


def test_categories_match_by_name_and_never_by_order() -> None:
    assert match_categories(CATEGORIES, {0: "bar", 1: "unused_2", 2: "disc"}, "x") == {0: 3, 2: 1}
    assert match_categories(CATEGORIES, {0: "bar"}, "x") == {0: 3}
    assert match_categories(CATEGORIES, {0: "bar", 1: "unused_parts", 2: "disc"}, "x") == {0: 3, 2: 1}
    for names in ({0: "disc", 1: "other"}, {0: "disc", 1: "other", 2: "more"}, {0: "disque", 1: "barre"}):
        with pytest.raises(ConfigError, match="make the names agree"):
            match_categories(CATEGORIES, names, "x")
    with pytest.raises(ConfigError, match="'Bar ' is not 'bar'"):
        match_categories(CATEGORIES, {0: "disc", 1: "Bar "}, "x")
    with pytest.raises(ConfigError, match="two of its categories have one name"):
        match_categories([*CATEGORIES, {"id": 4, "name": "bar"}], {0: "disc", 1: "bar"}, "x")
    with pytest.raises(ConfigError, match="two classes of the data have one name"):
        match_categories(CATEGORIES, {0: "disc", 1: "disc"}, "x")


def test_images_match_by_the_end_of_their_path() -> None:
    images = [{"id": 1, "file_name": "a/1.jpg"}, {"id": 2, "file_name": "b/1.jpg"}, {"id": 3, "file_name": "c/3.jpg"}]
    assert match_images(images, ["/x/a/1.jpg", "/x/b/1.jpg", "/x/3.jpg"], "x") == {
        "/x/a/1.jpg": 1,
        "/x/b/1.jpg": 2,
        "/x/3.jpg": 3,
    }
    with pytest.raises(ConfigError, match=r"\(x/1\.jpg\)"):
        match_images(images, ["/data/x/1.jpg"], "x")
