"""What a run is judged by, and that the figures are those of what was trained."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from det_runs import TINY, write_yolov8
from head_runs import write_data, write_head
from shapes import change_json, change_labels, write_shapes
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset

from det_seg_agent.det.cli import main, train
from det_seg_agent.det.coco_metrics import coco_metrics
from det_seg_agent.det.judge import difference, evaluate, figures, tolerance
from det_seg_agent.det.truth import Truth, choose_json, load_truth
from det_seg_agent.errors import ConfigError

pytestmark = pytest.mark.slow  # it trains

LABELS = "the labels of the validation set"
STILL = {"mosaic": 0, "scale": 0, "translate": 0, "fliplr": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "erasing": 0}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light YOLOv8 that finds the shapes, AP about 0.4."""
    root = tmp_path_factory.mktemp("learned")
    data = write_shapes(root / "data")
    files = sorted((root / "data/images/train").glob("*.png"))
    (root / "data/many.txt").write_text("\n".join(map(str, files * 50)))
    data.write_text(data.read_text().replace("train: images/train", "train: many.txt"))
    more = {"batch": 12, "nbs": 12, "optimizer": "AdamW", "lr0": 0.01, "lrf": 0.1, "warmup_epochs": 0.1, "val": False}
    model = YOLO(write_yolov8(root))
    model.train(**{**TINY, **STILL, **more}, data=str(data), epochs=2, workers=0, project=str(root), name="run")
    assert model.trainer.metrics["metrics/mAP50-95(B)"] > 0.2
    return Path(model.trainer.best)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of shapes of its own."""
    return write_shapes(tmp_path / "data").parent


def val_json(root: Path) -> Path:
    return root / "annotations/instances_val.json"


def tune(model: Path | str, data: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """Run the command line for an epoch that changes next to nothing; return `metrics.json`."""
    fixed = {**TINY, **STILL, "optimizer": "SGD", "lr0": 1e-6, "warmup_epochs": 0, "epochs": 1, "workers": 0}
    words = {**fixed, "model": model, "data": data, "project": folder, "name": "run", **more}
    assert main([f"{key}={value}" for key, value in words.items()]) == 0
    return json.loads((folder / "run/metrics.json").read_text())


def dataset(data: Path, **more: Any) -> tuple[Any, dict[int, str], Any, dict[str, Any]]:
    """Return what `choose_json` takes: the host's validation data set, class names, its arguments, and its data."""
    args, layout = get_cfg(overrides={"task": "detect", "imgsz": 64, **more}), check_det_dataset(str(data))
    return build_yolo_dataset(args, layout["val"], 8, layout, mode="val"), dict(layout["names"]), args, layout


# The figures ----------------------------------------------------------------------------------------------------------


def near(values: dict[str, float], host: float, objects: int) -> bool:
    """Return whether AP is that of the host up to the evaluators' difference."""
    return abs(values["AP"] - host) < 0.02 + 0.5 * 3 / objects and values["AP"] > 0.02


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"classes": [0]},
        {"classes": [2, 0]},
        {"single_cls": True},
        {"single_cls": True, "classes": [0]},
        {"max_det": 1},
        {"conf": 0.3},
        {"iou": 0.2, "agnostic_nms": True},
        {"imgsz": 96, "rect": False},
        {"augment": True, "batch": 3},
    ],
    ids=str,
)
def test_ap_is_that_of_the_hosts_own_validation(learned: Path, root: Path, more: dict[str, Any]) -> None:
    """By the JSON and by the labels."""
    arguments = {"device": "cpu", "imgsz": 64, "workers": 0, **more}
    host = YOLO(learned).val(data=str(root / "data.yaml"), plots=False, project=str(root), **arguments)
    for truth in (val_json(root), None):
        assert near(evaluate(learned, str(root / "data.yaml"), truth, **arguments)["bbox"], host.box.map, 16), truth


def subset(root: Path, names: list[str]) -> Path:
    """Leave only some classes in YAML and labels, in their order."""
    index = {str(["square", "bar", "dot"].index(name)): str(i) for i, name in enumerate(names)}
    change_labels(root, lambda rows: [[index[row[0]], *row[1:]] for row in rows if row[0] in index])
    layout = yaml.safe_load((root / "data.yaml").read_text())
    (root / "data.yaml").write_text(yaml.safe_dump({**layout, "names": names}))
    return root / "data.yaml"


@pytest.mark.parametrize(
    ("names", "more"),
    [(["square"], {}), (["dot", "square"], {}), (["dot", "square"], {"single_cls": True})],
    ids=str,
)
def test_classes_of_the_yaml_alone_are_judged(
    learned: Path, root: Path, tmp_path: Path, names: list[str], more: dict[str, Any], log: io.StringIO
) -> None:
    """The JSON beside the data has all three; one validation, one table, and no folder named that is gone."""
    result = tune(learned, subset(root, names), tmp_path, **more)
    assert result["judged_on"] == str(val_json(root))
    assert near(result["coco"], result["host"]["metrics/mAP50-95(B)"], 10) and "differs" not in result
    text = log.getvalue()
    assert text.count("YOLOv8n summary (fused)") == 1 and "Results saved" not in text
    assert not list(tmp_path.rglob("predictions.json"))


def test_another_split_is_judged_by_its_own_json(learned: Path, root: Path, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        shutil.copytree(root / folder / "train", root / folder / "test")
    shutil.copy(root / "annotations/instances_train.json", root / "annotations/instances_test.json")
    (root / "data.yaml").write_text((root / "data.yaml").read_text() + "test: images/test\n")
    result = tune(learned, root / "data.yaml", tmp_path, split="test")
    assert result["judged_on"].endswith("instances_test.json")
    assert near(result["coco"], result["host"]["metrics/mAP50-95(B)"], 24)


def perfect(count: int = 1, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return ground truth of one image and class, and the predictions that find all of it."""
    boxes = [[10 * (i % 20), 10 * (i // 20), 8, 8] for i in range(count)]
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}]}
    rows = [{"id": i, "image_id": 1, "category_id": 1, "bbox": b, "iscrowd": 0} for i, b in enumerate(boxes)]
    truth["annotations"] = rows
    return truth, [{"image_id": 1, "category_id": 1, "bbox": b, "score": 0.9} for b in boxes]


def test_more_than_100_objects_of_a_class_count_as_far_as_max_det() -> None:
    truth, predictions = perfect(150)
    assert coco_metrics(truth, predictions, [1])["AP"] < 0.7
    full = coco_metrics(truth, predictions, [1], max_det=300)
    assert full["AP"] == full["AP50"] == full["AR_small"] == pytest.approx(1.0) and full["AR_100"] < 0.7
    assert coco_metrics(*perfect(90), [1], max_det=300)["AP"] == pytest.approx(1.0)


def test_an_object_with_id_0_can_be_found_and_nothing_to_find_is_not_0() -> None:
    truth, predictions = perfect()
    assert coco_metrics(truth, predictions, [1])["AP"] == pytest.approx(1.0)
    assert coco_metrics({**truth, "annotations": []}, predictions, [1])["AP"] == -1


def test_a_large_difference_is_said_with_its_reasons() -> None:
    truth, _ = perfect(20)
    of = Truth(truth, {"a.png": 1}, {0: 1}, "x.json", ["3 crowd regions, which the labels lack, are ignored"])
    values, key = {"bbox": {"AP": 0.3}}, "metrics/mAP50-95(B)"
    assert tolerance("bbox", of) == pytest.approx(0.045)
    assert difference(values, {key: 0.34}, of, 300) is None
    text = difference(values, {key: 0.9}, of, 300)
    assert text is not None and "0.300" in text and "0.900" in text and "3 crowd regions" in text and "\n" not in text
    assert difference({"bbox": {"AP": -1.0}}, {key: 0.9}, of, 300) is None, "nothing to find"


# The ground truth -----------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], Any]


def rename(*names: str) -> Change:
    return lambda c: [row.update(name=name) for row, name in zip(c["categories"], names)]


def no_image(c: dict[str, Any]) -> None:
    c["images"] = c["images"][1:]
    c["annotations"] = [row for row in c["annotations"] if row["image_id"] != 1]


# What does not fit -> what is said.
UNFIT: dict[str, tuple[Change, str]] = {
    "names in another language": (rename("carre", "barre", "point"), "make the names agree"),
    "names in another case": (rename("Square", "bar", "dot"), "'square' is not 'Square'"),
    "names with a space": (rename("square ", "bar", "dot"), "'square' is not 'square '"),
    "names in part": (rename("square", "bar", "ring"), "make the names agree"),
    "one name twice": (rename("square", "bar", "bar"), "two of its categories have one name"),
    "classes merged": (lambda c: c["categories"].pop(), "categories|category that is not listed"),
    "no names": (lambda c: c["categories"][0].pop("name"), "no id or no name"),
    "no categories": (lambda c: c.update(categories=[]), "no categories"),
    "an image is not in it": (no_image, r"1 of 8 validation images are not in it \(.*000.png"),
    "a file twice": (lambda c: c["images"].append({**c["images"][0], "id": 99}), "1 images listed twice"),
    "an id twice": (lambda c: c["images"][1].update(id=1), "image id 1 is 000.png and 001.png"),
    "an image without a name": (lambda c: c["images"][0].pop("file_name"), "no id or no file_name"),
    "an object without a box": (lambda c: c["annotations"][0].pop("bbox"), "1 of 16 annotations lack"),
    "a box of three numbers": (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "not four numbers"),
    "a box of text": (lambda c: c["annotations"][0].update(bbox=["1", "2", "3", "4"]), "not four numbers"),
    "an unknown image": (lambda c: c["annotations"][0].update(image_id=99), "name an image that is not listed"),
    "an unknown category": (lambda c: c["annotations"][0].update(category_id=9), "category that is not listed"),
    "not of that form": (lambda c: c.pop("images"), "images missing"),
    "images by id": (lambda c: c.update(images={"1": {}}), "images is not a list"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_json_that_does_not_fit_is_set_aside_or_refused(root: Path, case: str, log: io.StringIO) -> None:
    change, message = UNFIT[case]
    path, given = change_json(val_json(root), change), dataset(root / "data.yaml")
    assert choose_json(*given, None) is None
    (line,) = [line for line in log.getvalue().splitlines() if "set aside" in line]
    with pytest.raises(ConfigError, match=message) as error:
        choose_json(*given, path)
    reason = (
        str(error.value)
        .removeprefix("agent.val_json: ")
        .removesuffix(" Or drop agent.val_json to be judged by the labels.")
    )
    assert reason in line and str(path) in line and "\n" not in str(error.value)
    assert load_truth(None, *given[:3]).source == LABELS


@pytest.mark.parametrize("text", ["", "{", "[]", '{"images": [], "annotations": []}', "\x00\x01", "[" * 100_000])
def test_a_broken_json_is_set_aside_or_refused(root: Path, text: str, log: io.StringIO) -> None:
    val_json(root).write_text(text)
    given = dataset(root / "data.yaml")
    assert choose_json(*given, None) is None and log.getvalue().count("set aside") == 1
    with pytest.raises(ConfigError, match="instances_val.json"):
        choose_json(*given, val_json(root))


def test_a_json_of_other_objects_is_set_aside_unless_it_is_named(root: Path, log: io.StringIO) -> None:
    path, given = change_json(val_json(root), lambda c: c["annotations"].pop()), dataset(root / "data.yaml")
    assert choose_json(*given, None) is None and "15 objects" in log.getvalue() and "labels have 16" in log.getvalue()
    assert choose_json(*given, path) == path and "it has 15 objects, the labels have 16" in log.getvalue()


def text_ids(c: dict[str, Any]) -> None:
    for row in c["images"]:
        row["id"] = f"{row['id']:03d}_a"
    for row in c["annotations"]:
        row["image_id"] = f"{row['image_id']:03d}_a"
        row["category_id"] = f"cat_{row['category_id']}"
        row["id"] = None
    for row in c["categories"]:
        row["id"] = f"cat_{row['id']}"


def other_order(c: dict[str, Any]) -> None:
    for row in c["categories"]:
        row["id"] = 100 - 10 * row["id"]
    for row in c["annotations"]:
        row["category_id"] = 100 - 10 * row["category_id"]
    c["categories"].reverse()


def lvis(c: dict[str, Any]) -> None:
    for row in c["images"]:
        row["coco_url"] = f"http://images.cocodataset.org/val/{row.pop('file_name')}"
        row.update(neg_category_ids=[1], not_exhaustive_category_ids=[2])
    for row in c["annotations"]:
        del row["iscrowd"]


def plain(c: dict[str, Any]) -> None:
    c["images"] = [{"id": row["id"], "file_name": row["file_name"]} for row in c["images"]]
    keys = ("image_id", "category_id", "bbox")
    c["annotations"] = [{key: row[key] for key in keys} for row in c["annotations"]]


FIT: dict[str, Change] = {
    "as it is": lambda c: None,
    "ids of text": text_ids,
    "image ids as numbers in text": lambda c: [row.update(image_id=str(row["image_id"])) for row in c["annotations"]],
    "image ids as floats": lambda c: [row.update(id=float(row["id"])) for row in c["images"]],
    "category ids with gaps, in another order": other_order,
    "category ids from 0": lambda c: [
        row.update({key: row[key] - 1})
        for key, name in (("id", "categories"), ("category_id", "annotations"))
        for row in c[name]
    ],
    "more images": lambda c: c["images"].extend({"id": i, "file_name": f"{i}.jpg"} for i in range(100, 120)),
    "more categories": lambda c: c["categories"].append({"id": 9, "name": "ring"}),
    "names with the folder": lambda c: [r.update(file_name=f"val/{r['file_name']}") for r in c["images"]],
    "names with backslashes": lambda c: [r.update(file_name=f"images\\val\\{r['file_name']}") for r in c["images"]],
    "LVIS": lvis,
    "nothing but what is needed": plain,
    "ids from 0, one twice": lambda c: [r.update(id=max(0, i - 1)) for i, r in enumerate(c["annotations"])],
    "an object twice": lambda c: c["annotations"].append(dict(c["annotations"][0])),
    "an object without a size": lambda c: c["annotations"].append({**c["annotations"][0], "bbox": [1, 1, 0, 4]}),
    "an object outside": lambda c: c["annotations"].append({**c["annotations"][0], "bbox": [99, 1, 4, 4]}),
    "a crowd region": lambda c: c["annotations"].append({**c["annotations"][0], "bbox": [0, 0, 9, 9], "iscrowd": 1}),
    "an image without objects": lambda c: c["images"].append({"id": 50, "file_name": "none.png"}),
}  # fmt: skip


@pytest.mark.parametrize("case", FIT)
def test_a_json_that_fits_is_taken(root: Path, case: str, log: io.StringIO) -> None:
    """What the labels say, predicted, scores 1."""
    path, given = change_json(val_json(root), FIT[case]), dataset(root / "data.yaml")
    assert choose_json(*given, None) == path, log.getvalue()
    truth, kept = load_truth(path, *given[:3]), {}
    for label in given[0].labels:
        rows = zip(label["cls"].reshape(-1).tolist(), (64 * label["bboxes"]).tolist())
        kept[str(label["im_file"])] = [
            {"class": int(c), "score": 0.9, "bbox": [x - w / 2, y - h / 2, w, h]} for c, (x, y, w, h) in rows
        ]
    assert figures(kept, truth, 300)["bbox"]["AP"] == pytest.approx(1.0)


def in_folders(root: Path) -> None:
    """Put the images into two folders, where they have the same names."""
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        for i in range(8):
            target = root / kind / f"val/{'ab'[i % 2]}/{i // 2}.{suffix}"
            target.parent.mkdir(exist_ok=True)
            (root / kind / f"val/{i:03d}.{suffix}").rename(target)


@pytest.mark.parametrize("by", ["json", "labels"])
def test_images_of_one_name_in_two_folders_are_two(learned: Path, root: Path, by: str) -> None:
    """The host's own ids of predictions are bare names."""
    arguments = {"device": "cpu", "imgsz": 64, "workers": 0}
    data, before = str(root / "data.yaml"), evaluate(learned, str(root / "data.yaml"), None, device="cpu", imgsz=64)
    in_folders(root)
    change_json(
        val_json(root), lambda c: [r.update(file_name=f"{'ab'[i % 2]}/{i // 2}.png") for i, r in enumerate(c["images"])]
    )
    after = evaluate(learned, data, val_json(root) if by == "json" else None, **arguments)
    assert after["bbox"] == pytest.approx(before["bbox"], abs=1e-6)
    change_json(val_json(root), lambda c: [r.update(file_name=Path(r["file_name"]).name) for r in c["images"]])
    assert choose_json(*dataset(root / "data.yaml"), None) is None, "bare names do not tell them apart"


@pytest.mark.parametrize(
    "val", [["images/val/a", "images/val/b"], "val.txt", ["val.txt"], ["val.txt", "val.txt"]], ids=str
)
def test_val_as_folders_or_lists(learned: Path, root: Path, val: Any) -> None:
    """A file that is listed twice is judged once."""
    arguments = {"device": "cpu", "imgsz": 64, "workers": 0}
    before = evaluate(learned, str(root / "data.yaml"), None, **arguments)
    in_folders(root)
    files = sorted(map(str, (root / "images/val").rglob("*.png")))
    (root / "val.txt").write_text("\n".join(files))
    layout = yaml.safe_load((root / "data.yaml").read_text())
    (root / "data.yaml").write_text(yaml.safe_dump({**layout, "val": val}))
    after = evaluate(learned, str(root / "data.yaml"), None, **arguments)
    assert after["bbox"] == pytest.approx(before["bbox"], abs=1e-6)


# Runs -----------------------------------------------------------------------------------------------------------------


def test_a_json_nobody_named_never_stops_a_run(learned: Path, root: Path, tmp_path: Path, log: io.StringIO) -> None:
    change_json(val_json(root), UNFIT["names in another language"][0])
    result = tune(learned, root / "data.yaml", tmp_path)
    assert result["judged_on"] == LABELS and result["images_trained"] == 12
    assert near(result["coco"], result["host"]["metrics/mAP50-95(B)"], 16)
    text = log.getvalue()
    assert text.count("set aside") == 1 and text.index("set aside") < text.index("Starting training")


def test_a_json_that_is_named_and_unfit_is_refused_before_training(
    learned: Path, root: Path, tmp_path: Path, log: io.StringIO, capsys: Any
) -> None:
    path = change_json(val_json(root), UNFIT["an image is not in it"][0])
    words = {**TINY, "model": learned, "data": root / "data.yaml", "project": tmp_path / "runs", "exist_ok": False}
    assert main([*(f"{key}={value}" for key, value in words.items()), f"agent.val_json={path}"]) == 2
    error = capsys.readouterr().err
    assert "1 of 8 validation images are not in it" in error and "drop agent.val_json" in error
    assert "Starting training" not in log.getvalue() and not list(tmp_path.glob("runs/*"))


def test_judging_that_fails_costs_no_figures(learned: Path, root: Path, tmp_path: Path, log: io.StringIO) -> None:
    """The JSON goes while the run trains; what was written before judging is there in case it is stopped."""
    stages: list[dict[str, Any]] = []
    host = {**TINY, "model": str(learned), "data": str(root / "data.yaml"), "epochs": 1, "project": str(tmp_path)}
    note = {"on_train_end": lambda trainer: val_json(root).unlink()}
    result = train({**host, "name": "run"}, {"val_json": str(val_json(root))}, note)
    stages.append(json.loads((tmp_path / "run/metrics.json").read_text()))
    assert stages[0] == result and "instances_val.json" in result["judging_failed"] and "coco" not in result
    assert "metrics/mAP50-95(B)" in result["host"] and result["budget"] == 1 and result["images_trained"] == 12
    assert "judging failed" in log.getvalue() and (tmp_path / "run/agent.yaml").is_file()


def test_the_last_weights_are_judged_where_they_are_asked_for(learned: Path, root: Path, tmp_path: Path) -> None:
    def spoil(trainer: Any) -> None:
        checkpoint = torch.load(trainer.last, weights_only=False)
        for values in checkpoint["model"].parameters():
            values.data.zero_()
        torch.save(checkpoint, trainer.last)

    host = {**TINY, **STILL, "model": str(learned), "data": str(root / "data.yaml"), "epochs": 1, "lr0": 1e-6}
    best, last = (
        train({**host, "project": str(tmp_path), "name": which}, {}, {"on_train_end": spoil}, judged=which)  # type: ignore[arg-type]
        for which in ("best", "last")
    )
    for found, ap in ((best["coco"]["AP"], best["host"]["metrics/mAP50-95(B)"]), (0, last["coco"]["AP"])):
        assert found == pytest.approx(ap, abs=0.05)
    assert best["coco"]["AP"] > 0.2 and last["host"]["metrics/mAP50-95(B)"] == 0


def test_a_stop_while_judging_costs_no_figures(learned: Path, root: Path, tmp_path: Path) -> None:
    """Ctrl-C comes when the ground truth is read."""
    import os
    import signal
    import threading

    host = {**TINY, "model": str(learned), "data": str(root / "data.yaml"), "epochs": 1, "project": str(tmp_path)}
    pipe, ends, over = val_json(root), [], threading.Event()

    def stop() -> None:
        ends.append(os.open(pipe, os.O_WRONLY))  # waits for the reader, who then waits for what is never written
        while not over.wait(1):  # a signal that comes before the reader waits does not wake it
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def block(trainer: Any) -> None:
        pipe.unlink()
        os.mkfifo(pipe)
        threading.Thread(target=stop).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the host's libraries may have their own
    try:
        with pytest.raises(KeyboardInterrupt):
            train({**host, "name": "run"}, {"val_json": str(pipe)}, {"on_train_end": block})
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)
        os.close(ends[0])
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    assert "metrics/mAP50-95(B)" in result["host"] and result["images_trained"] == 12


@pytest.mark.parametrize(
    "more", [{"save": False, "epochs": 2}, {"val": False}, {"fraction": 0.5}, {"plots": True}], ids=str
)
def test_every_run_leaves_figures(learned: Path, root: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    result = tune(learned, root / "data.yaml", tmp_path, **more)
    assert near(result["coco"], result["host"]["metrics/mAP50-95(B)"], 16) and "budget" in result


@pytest.mark.parametrize("task", ["pose", "obb", "classify", "semantic"])
def test_other_tasks_leave_the_hosts_figures(task: str, scenes: Path, tmp_path: Path, capsys: Any) -> None:
    suffix = {"classify": "cls", "semantic": "sem"}.get(task, task)
    name = f"yolo26n-{suffix}" if task == "semantic" else f"yolov8n-{suffix}"
    data = write_data(scenes, task, tmp_path)
    result = tune(write_head(tmp_path, name), Path(data), tmp_path)
    assert result["host"] and result["budget"] == 1 and "coco" not in result and "judging_failed" not in result
    words = [f"model={tmp_path / f'{name}.yaml'}", f"data={data}", f"project={tmp_path}", "epochs=1", "device=cpu"]
    assert main([*words, f"agent.val_json={scenes / 'annotations/instances_val.json'}"]) == 2
    assert f"task={task} is judged by the host alone" in capsys.readouterr().err


def test_labels_without_objects_are_said_and_classes_without_any_refused(
    learned: Path, root: Path, tmp_path: Path, log: io.StringIO, capsys: Any
) -> None:
    words = {**TINY, "model": learned, "data": root / "data.yaml", "project": tmp_path, "epochs": 1, "name": "none"}
    change_labels(root, lambda rows: [row for row in rows if row[0] != "2"])
    assert main([*(f"{key}={value}" for key, value in words.items()), "classes=[2]"]) == 2
    error = capsys.readouterr().err
    assert "none of the 12 training images has an object of classes=[2]" in error and "'dot'" in error
    change_labels(root, lambda rows: [])
    result = tune(learned, root / "data.yaml", tmp_path)
    assert "none of the 12 training images has an object; nothing can be learned" in log.getvalue()
    assert "none of the 8 validation images has an object" in log.getvalue() and result["images_trained"] == 12


def test_masks_lie_where_their_boxes_do(tmp_path: Path) -> None:
    """Also where the padded image is as large as the original, which the host takes for unpadded."""
    from pycocotools import mask
    from ultralytics.models.yolo.segment import SegmentationValidator

    from det_seg_agent.det.keeping import keeping

    data = write_shapes(tmp_path / "data")
    for path in (tmp_path / "data/images").rglob("*.png"):
        from PIL import Image

        Image.open(path).resize((96, 96)).save(path)
    boxes = [line.split() for line in ("0 .1 .1 .4 .1 .4 .4", "1 .6 .6 .9 .6 .9 .9")]
    change_labels(tmp_path / "data", lambda rows: boxes)
    model, done = YOLO(write_head(tmp_path, "yolov8n-seg")), []
    model.add_callback("on_val_end", done.append)
    for imgsz in (64, 96):
        arguments = {"data": str(data), "imgsz": imgsz, "conf": 1e-6, "max_det": 20, "device": "cpu", "plots": False}
        model.val(validator=keeping(SegmentationValidator), project=str(tmp_path), **arguments)
        rows = [row for rows in done[-1].kept.values() for row in rows if mask.area(row["segmentation"])]
        assert rows
        for row in rows:
            (x, y, w, h), (a, b, c, d) = row["bbox"], mask.toBbox(row["segmentation"])
            assert a >= x - 3 and b >= y - 3 and a + c <= x + w + 3 and b + d <= y + h + 3
