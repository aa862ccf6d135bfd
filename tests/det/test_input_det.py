"""Bad and odd input of detection, through the command line and the real toolbox."""

import io
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from det_runs import TINY
from documented import check_case
from PIL import Image

from det_seg_agent.det.cli import main
from det_seg_agent.reporting.trace import read

pytestmark = pytest.mark.slow  # it trains

Words = dict[str, Any]


def box(index: int) -> str:
    """Return a label of class 0 or 1."""
    return f"{index % 2} 0.5 0.5 0.4 0.3\n"


def picture(index: int, mode: str = "RGB") -> Image.Image:
    """Return noise of 64 px: 'RGB', 'RGBA', 'L', or 'I;16' for 16 bits."""
    rng = np.random.default_rng(index)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (64, 64), dtype=np.uint16))
    channels = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
    return Image.fromarray(rng.integers(0, 256, (64, 64, *channels), dtype=np.uint8))


def yolo(
    root: Path,
    count: int = 6,
    label: Callable[[int], str | None] = box,
    mode: str = "RGB",
    names: tuple[str, ...] = ("disc", "bar"),
    place: Callable[[int], str] = str,
    **more: Any,
) -> Words:
    """Write a data set in the host's form and return data=; None for a label leaves its file out."""
    for split, images in (("train", count), ("val", 2)):
        for i in range(images):
            file = root / "images" / split / f"{place(i)}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(i, mode).save(file)
            text = label(i) if split == "train" else box(i)
            path = root / "labels" / split / f"{place(i)}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text)
    layout = {"path": str(root), "train": "images/train", "val": "images/val", "names": list(names), **more}
    (root / "data.yaml").write_text(yaml.safe_dump(layout))
    return {"data": root / "data.yaml"}


def file(root: Path, name: str, text: str) -> Path:
    """Write a file and return its path."""
    (root / name).write_text(text)
    return root / name


def coco(root: Path, scenes: Path, change: Callable[[dict[str, Any]], Any] | None = None, text: str = "") -> Words:
    """Return data= of a copy of the scenes with another training JSON."""
    for name in ("train", "val", "annotations"):
        shutil.copytree(scenes / name, root / "coco" / name)
    path = root / "coco/annotations/instances_train.json"
    content = json.loads(path.read_text())
    if change is not None:
        change(content)
    path.write_text(text or json.dumps(content))
    return {"data": root / "coco"}


def first(rows: list[dict[str, Any]], **fields: Any) -> None:
    """Change the first row."""
    rows[0].update(fields)


def gaps(content: dict[str, Any]) -> None:
    """Give the categories the ids 3, 6, 9, ..."""
    for row in content["categories"]:
        row["id"] *= 3
    for row in content["annotations"]:
        row["category_id"] *= 3


def gaps_in_both(root: Path, scenes: Path) -> Words:
    words = coco(root, scenes, gaps)
    path = root / "coco/annotations/instances_val.json"
    content = json.loads(path.read_text())
    gaps(content)
    path.write_text(json.dumps(content))
    return words


def spoiled(words: Words, name: str) -> Words:
    """Write rubbish over images."""
    for path in words["data"].parent.glob(name):
        path.write_bytes(b"rubbish")
    return words


def layout(root: Path, text: str) -> Words:
    return {"data": file(root, "own.yaml", text)}


# name -> (command line, made from a folder and the scenes; what the message says)
BAD: dict[str, tuple[Callable[[Path, Path], Words], str]] = {
    "not key=value": (lambda r, s: {"epochs": ""}, "'epochs=' is not key=value"),
    "unknown key": (lambda r, s: {"epoch": 3}, "epoch is not a setting. Did you mean epochs"),
    "another command": (lambda r, s: {"mode": "val"}, "mode=val: this command trains; use `yolo val`"),
    "unknown task": (lambda r, s: {"task": "paint"}, "task=paint is not known. Valid: detect, "),
    "task of another model": (lambda r, s: {"task": "segment"}, "task=segment: the model is for detect"),
    "unknown agent key": (lambda r, s: {"agent.ratios": 0.5}, "agent.ratios is not .* Did you mean agent.ratio"),
    "unknown option": (lambda r, s: {"agent.options.lrr": 1}, "Did you mean agent.options.lr"),
    "ratio 1.5": (lambda r, s: {"agent.ratio": 1.5}, "agent.ratio=1.5: .*less than or equal to 1"),
    "ratio NaN": (lambda r, s: {"agent.ratio": "nan"}, "agent.ratio='nan': .*finite"),
    "ratio 'half'": (lambda r, s: {"agent.ratio": "half"}, "agent.ratio='half': .*0 < ratio <= 1"),
    "no data": (lambda r, s: {"data": None}, "data= is missing; give an Ultralytics YAML or the folder"),
    "data that is a number": (lambda r, s: {"data": 2024}, "'2024' does not exist"),
    "several data sets": (lambda r, s: {"data": "['a.yaml','b.yaml']"}, "a run has one data set; start one for each"),
    "data YAML not there": (lambda r, s: {"data": r / "none.yaml"}, r"none.yaml' does not exist\. Give an Ultralytics"),
    "data YAML unreadable": (lambda r, s: layout(r, "a: ["), "data=.*YAML syntax error in .*own.yaml"),
    "data YAML without train": (lambda r, s: layout(r, "val: x\nnames: [a]\n"), "'train:' key missing"),
    "data YAML without names": (lambda r, s: layout(r, "train: x\nval: x\n"), "'names' or 'nc' are required"),
    "image folder not there": (
        lambda r, s: layout(r, "train: nowhere\nval: nowhere\nnames: [a]\n"), "data=.*images not found, missing path",
    ),
    "image folder empty": (
        lambda r, s: ((r / "images").mkdir(), layout(r, "train: images\nval: images\nnames: [a]\n"))[1],
        "Error loading data from .*images",
    ),
    "only unreadable images": (lambda r, s: spoiled(yolo(r, 1), "images/train/0.png"), "No valid images found in"),
    "hundreds of unreadable images": (
        lambda r, s: spoiled(yolo(r, 300), "images/train/*.png"), r"No valid images found in .*\(and 298 more\)",
    ),
    "no label files at all": (lambda r, s: yolo(r, label=lambda i: None), "No labels found in .*labels/train"),
    "folder that is not COCO": (lambda r, s: {"data": r}, "not the folder of an MS-COCO download: .*are missing"),
    "unreadable JSON": (lambda r, s: coco(r, s, text="{"), "instances_train.json: Expecting property name"),
    "JSON of another form": (lambda r, s: coco(r, s, text="[]"), "annotations, categories, images missing"),
    "annotation without an image": (
        lambda r, s: coco(r, s, lambda c: first(c["annotations"], image_id=999)), "name an image that is not listed",
    ),
    "annotation without a box": (
        lambda r, s: coco(r, s, lambda c: first(c["annotations"], bbox=None)), "lack image_id, bbox or category_id",
    ),
    "category id 0": (
        lambda r, s: coco(r, s, lambda c: first(c["categories"], id=0)), "category id 0 is not in .*renumber",
    ),
    "file name that leads out": (
        lambda r, s: coco(r, s, lambda c: first(c["images"], file_name="../x.jpg")), "'../x.jpg' must lie inside",
    ),
    "val_json not there": (lambda r, s: {"agent.val_json": r / "none.json"}, "none.json: .*No such file"),
    "recipe not there": (lambda r, s: {"cfg": r / "none.yaml"}, "cfg=.*none.yaml.* does not exist"),
    "recipe with a date": (lambda r, s: {"cfg": file(r, "c.yaml", "name: 2024-11-25")}, "a date in YAML; put it in"),
    "config not there": (lambda r, s: {"--config": r / "none.yaml"}, "--config .*none.yaml: .*No such file"),
    "config that is a list": (lambda r, s: {"--config": file(r, "c.yaml", "[1]")}, "--config .*a mapping of keys"),
    "config with agent: 5": (lambda r, s: {"--config": file(r, "c.yaml", "agent: 5")}, "agent=5 is not a mapping"),
    "model not there": (lambda r, s: {"model": r / "none.pt"}, "model=.*none.pt: .*No such file"),
    "model file broken": (lambda r, s: {"model": file(r, "w.pt", "x")}, "model=.*w.pt: .*truncated or corrupted"),
    "model that gives no signals": (
        lambda r, s: {"model": "yolov8s-world.yaml"},
        "head WorldDetect is not supported: .*text prompts",
    ),
    "imgsz 'big'": (lambda r, s: {"imgsz": "big"}, "'imgsz=big' is not a valid image size"),
    "epochs 0": (lambda r, s: {"epochs": 0}, "'epochs=0' is an invalid value"),
    "batch 'big'": (lambda r, s: {"batch": "big"}, "'batch=big' is of invalid type"),
    "unknown optimizer": (lambda r, s: {"optimizer": "Foo"}, "Optimizer 'Foo' not found in list"),
    "device not there": (lambda r, s: {"device": 99}, "Invalid CUDA 'device=99' requested"),
    "file in the way of the run": (lambda r, s: {"project": file(r, "way", "")}, "project=.*way is a file"),
    "run folder read-only": (lambda r, s: {"project": "/sys/det_seg_agent"}, "/sys/det_seg_agent"),
    "resume without a path": (lambda r, s: {"resume": "true", "model": None}, "resume=true needs model=PATH"),
    "resume of nothing": (lambda r, s: {"resume": r / "last.pt"}, "last.pt: there is no such file; give PATH"),
}  # fmt: skip


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path, so that messages are not cut."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


def run(words: Words) -> int:
    """Run the command line."""
    flat = [[key, str(value)] if key == "--config" else [f"{key}={value}"] for key, value in words.items()]
    return main([word for pair, value in zip(flat, words.values()) if value is not None for word in pair])


@pytest.mark.parametrize("case", BAD)
def test_bad_input_stops_before_training(
    case: str, model_yaml: str, data_yaml: str, scenes: Path, tmp_path: Path, capsys: Any
) -> None:
    make, message = BAD[case]
    given = {"model": model_yaml, "data": data_yaml, "project": tmp_path / "runs", "epochs": 1}
    words = {**TINY, "exist_ok": None, **given, **make(tmp_path, scenes)}
    before = {path for path in tmp_path.rglob("*") if path.suffix != ".cache"}
    assert run(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and re.search(message, text, re.S), text
    assert text.count("\n") == 1 and len(text) <= 301
    check_case("Detection: refused", case, text.removeprefix("error: "), FOLDER=tmp_path, SCENES=scenes)
    after = {path for path in tmp_path.rglob("*") if path.suffix != ".cache"}
    assert after - before <= {tmp_path / "runs"}, "nothing is left behind"


# name -> (command line; what the run says)
ODD: dict[str, tuple[Callable[[Path, Path], Words], str]] = {
    "one image": (lambda r, s: yolo(r, 1), "selected 1/1"),
    "data set smaller than a batch": (lambda r, s: yolo(r, 3), "selected 2/3"),
    "selection smaller than a batch": (lambda r, s: {**yolo(r, 9), "batch": 4, "agent.ratio": 0.2}, "selected 2/9"),
    "images without objects only": (lambda r, s: yolo(r, label=lambda i: ""), "6 backgrounds"),
    "some images without label files": (lambda r, s: yolo(r, label=lambda i: box(i) if i else None), "selected 4/6"),
    "class never seen": (lambda r, s: yolo(r, names=("disc", "bar", "star")), "selected 4/6"),
    "one name in two folders": (lambda r, s: yolo(r, place=lambda i: f"{i % 2}/{i // 2}"), "selected 4/6"),
    "grayscale images": (lambda r, s: yolo(r, mode="L"), "selected 4/6"),
    "grayscale model": (lambda r, s: yolo(r, mode="L", channels=1), "selected 4/6"),
    "16-bit images": (lambda r, s: yolo(r, mode="I;16"), "selected 4/6"),
    "images with transparency": (lambda r, s: yolo(r, mode="RGBA"), "selected 4/6"),
    "label past the classes": (
        lambda r, s: yolo(r, label=lambda i: box(i if i else 8).replace("0 0.5", f"{0 if i else 8} 0.5", 1)),
        "Label class 8 exceeds dataset class count 2.*selected 3/5",
    ),
    "one unreadable image": (lambda r, s: spoiled(yolo(r), "images/train/0.png"), "ignoring corrupt.*selected 3/5"),
    "image that is listed and not there": (
        lambda r, s: coco(r, s, lambda c: first(c["images"], file_name="none.jpg")), "ignoring corrupt.*selected 28/47",
    ),
    "category ids with gaps": (lambda r, s: gaps_in_both(r, s), "nc=80 with nc=12.*selected 29/48"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_input_trains(case: str, model_yaml: str, scenes: Path, tmp_path: Path, capsys: Any) -> None:
    make, message = ODD[case]
    log = logging.StreamHandler(io.StringIO())
    logging.getLogger("ultralytics").addHandler(log)
    words = {**TINY, "model": model_yaml, "project": tmp_path / "runs", "name": "run", "epochs": 2, "close_mosaic": 0}
    try:
        assert run({**words, "agent.final_full": 0, **make(tmp_path, scenes)}) == 0
    finally:
        logging.getLogger("ultralytics").removeHandler(log)
    text = log.stream.getvalue() + capsys.readouterr().out
    assert re.search(message, text, re.S), text[-2000:]
    folder = tmp_path / "runs/run"
    table = read(folder / "trace")
    assert table is not None and set(table["pass"].to_pylist()) == {0, 1}
    assert any(value is not None for value in table["loss"].to_pylist()), "signals were taken"
    result = json.loads((folder / "metrics.json").read_text())
    assert result["images_trained"] == sum(table["selected"].to_pylist()) and len(result["coco"]) == 12


def test_an_existing_run_is_left_alone(model_yaml: str, tmp_path: Path, capsys: Any) -> None:
    """The next one gets a folder of its own, and a finished one cannot be resumed."""
    words = {**TINY, **yolo(tmp_path), "model": model_yaml, "project": tmp_path / "runs", "epochs": 1, "name": "run"}
    assert run({**words, "exist_ok": False}) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/run").rglob("*")}
    assert run({**words, "exist_ok": False}) == 0
    assert (tmp_path / "runs/run2/metrics.json").is_file() or (tmp_path / "runs/run-2/metrics.json").is_file()
    capsys.readouterr()
    assert run({"resume": tmp_path / "runs/run/weights/last.pt"}) == 2
    assert "its run is finished, nothing is left to resume" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/run").rglob("*")}
    assert {path for path in before if before[path] != after.get(path)} <= {tmp_path / "runs/run/args.yaml"}
