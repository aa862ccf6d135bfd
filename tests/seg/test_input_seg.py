"""Bad and odd input of segmentation, through the command line and the real toolbox."""

import itertools
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documented import check_case
from PIL import Image
from seg_runs import CONFIG

from det_seg_agent.reporting.trace import read
from det_seg_agent.seg.cli import main

pytestmark = pytest.mark.slow  # it trains

Words = dict[str, Any]
NUMBER = itertools.count()
DATA = "train_dataloader.dataset"
HEADS = ("model.decode_head", "model.auxiliary_head")


def mask(index: int) -> Image.Image:
    """Return a mask of 64 px with the five classes in bands."""
    return Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None] // 13, (1, 64)))


def filled(value: int) -> Callable[[int], Image.Image]:
    """Return what makes masks of one value."""
    return lambda index: Image.fromarray(np.full((64, 64), value, np.uint8))


def spoilt(value: int = 9) -> Image.Image:
    """Return a mask with one pixel of another value, in a corner."""
    values = np.array(mask(0))
    values[0, 0] = value
    return Image.fromarray(values)


def picture(index: int, mode: str = "RGB") -> Image.Image:
    """Return noise of 64 px: 'RGB', 'L', or 'I;16' for 16 bits."""
    rng = np.random.default_rng(index)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (64, 64), dtype=np.uint16))
    return Image.fromarray(rng.integers(0, 256, (64, 64, 3) if mode == "RGB" else (64, 64), dtype=np.uint8))


def data(
    root: Path,
    count: int = 6,
    label: Callable[[int], Image.Image | None] = mask,
    mode: str = "RGB",
    place: Callable[[int], str] = str,
) -> Words:
    """Write a training set and return the options that name it; None for a mask leaves its file out."""
    for i in range(count):
        image, seg = root / f"data/train/{place(i)}.png", root / f"data/masks/train/{place(i)}.png"
        for path in (image, seg):
            path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, mode).save(image)
        made = label(i)
        if made is not None:
            made.save(seg)
    return {f"{DATA}.data_root": root / "data", f"{DATA}.img_suffix": ".png"}


def but(index: int, other: Image.Image | None) -> Callable[[int], Image.Image | None]:
    """Return what makes masks, and another one for sample `index`."""
    return lambda i: other if i == index else mask(i)


def config(root: Path, text: str) -> Words:
    """Return a config of its own: the light one and more lines."""
    (root / "own.py").write_text(f"_base_ = {str(CONFIG)!r}\n{text}\n")
    return {"config": root / "own.py"}


def bare(root: Path, text: str) -> Words:
    """Return a config that inherits nothing of ours."""
    (root / "own.py").write_text(text)
    return {"config": root / "own.py", "bare": True}


def existing(root: Path) -> Words:
    """Return a work dir that holds a checkpoint."""
    (root / "old").mkdir()
    (root / "old/iter_80000.pth").write_bytes(b"weights")
    return {"work_dir": root / "old"}


def file(root: Path) -> Path:
    """Return a file that is in the way."""
    (root / "way").write_text("")
    return root / "way"


def two_lists(root: Path) -> Words:
    """Return a config that joins two lists of images, one image of which is in both."""
    for name, listed in (("a", "0 1 2 3"), ("b", "3 4 5")):
        (root / f"{name}.txt").write_text("\n".join(listed.split()))
    options = {key.removeprefix(f"{DATA}."): str(value) for key, value in data(root).items()}
    text = "part = _base_.train_dataloader.dataset\n"
    lists = [f"dict(**{{**part, **{options}, 'ann_file': {str(root / name)!r}}})" for name in ("a.txt", "b.txt")]
    joined = f"dict(_delete_=True, type='ConcatDataset', datasets=[{', '.join(lists)}])"
    return {**config(root, f"{text}train_dataloader = dict(dataset={joined})"), "joined": True}


COLOURS = Image.new("RGB", (64, 64), "red")
WIDE = Image.fromarray(np.full((64, 64), 300, np.uint16))

# name -> (options, made from a folder; what the message says)
BAD: dict[str, tuple[Callable[[Path], Words], str]] = {
    "config not there": (lambda r: {"config": r / "none.py"}, "config .*none.py: there is no such file"),
    "_base_ not there": (lambda r: bare(r, "_base_ = './none.py'"), "config .*own.py: .*No such file.*none.py"),
    "_base_ not in mmseg": (lambda r: bare(r, "_base_ = 'mmseg::upernet/none.py'"), "upernet/none.py.* does not exist"),
    "config that is not Python": (lambda r: bare(r, "a = ("), r"config .*own.py: '\(' was never closed"),
    "config with an unknown name": (lambda r: bare(r, "a = b"), "config .*own.py: name 'b' is not defined"),
    "config without AgentHook": (
        lambda r: bare(r, "_base_ = 'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'"),
        "custom_hooks has no AgentHook. Inherit",
    ),
    "two AgentHooks": (
        lambda r: config(r, "custom_hooks = [dict(type='AgentHook'), dict(type='AgentHook')]"), "has 2 AgentHooks",
    ),
    "AgentHook with settings": (
        lambda r: config(r, "custom_hooks = [dict(type='AgentHook', ratio=0.5)]"), "unexpected keyword .*'ratio'",
    ),
    "unknown agent key": (lambda r: {"agent.ratios": 0.5}, r"agent.ratios is not .* Did you mean agent.ratio"),
    "unknown option": (lambda r: {"agent.options.lrr": 1}, r"Did you mean agent.options.lr"),
    "ratio 2": (lambda r: {"agent.ratio": 2}, "agent.ratio=2: .*less than or equal to 1"),
    "ratio 'half'": (lambda r: {"agent.ratio": "half"}, "agent.ratio='half': .*0 < ratio <= 1"),
    "agent that is no dict": (lambda r: {"agent": 5}, "agent=5 is not a dict; write"),
    "host's sampler": (lambda r: {"train_dataloader.sampler.type": "InfiniteSampler"}, "type='AgentSampler'"),
    "host's loop": (lambda r: {"train_cfg.type": "IterBasedTrainLoop"}, "walks over no selections. Set train_cfg"),
    "max_iters 0": (lambda r: {"train_cfg.max_iters": 0}, "train_cfg.max_iters=0: .*at least 1"),
    "max_iters 'many'": (lambda r: {"train_cfg.max_iters": "many"}, "train_cfg.max_iters='many': .*at least 1"),
    "batch_size 0": (lambda r: {"train_dataloader.batch_size": 0}, "train_dataloader: .*batch_size=0"),
    "--amp with an own wrapper": (lambda r: {"--amp": "", "optim_wrapper.type": "Own"}, "--amp needs .*not 'Own'"),
    "unknown head": (lambda r: {"model.decode_head.type": "NoHead"}, "NoHead is not in the mmseg::model registry"),
    "segmentor that gives no signals": (
        lambda r: config(
            r, "model = dict(type='DepthEstimator')"
        ),
        "type='DepthEstimator'",
    ),
    "head that gives no signals": (
        lambda r: config(r, "model = dict(decode_head=dict(type='PointHead'))"), "type='PointHead' is not supported",
    ),
    "data_root not there": (lambda r: {f"{DATA}.data_root": r / "none"}, "train_dataloader: .*none/train"),
    "image in two lists": (two_lists, "3.png more than once .*a.txt and .*b.txt both have it"),
    "no images of that suffix": (lambda r: {f"{DATA}.img_suffix": ".bmp"}, "train_dataloader: .*Check .*img_suffix"),
    "ann_file not there": (lambda r: {f"{DATA}.ann_file": "none.txt"}, "Failed to load `ann_file` .*none.txt"),
    "image without a mask": (lambda r: data(r, label=but(3, None)), "1 of 6 images have no mask, .*3.png first"),
    "label past the classes": (
        lambda r: {**data(r, label=but(0, spoilt())), f"{DATA}.pipeline.3.crop_size": "(16,16)"},
        "0.png: the mask holds 9, .*num_classes=5 allows 0 to 4",
    ),
    "mask of another size": (
        lambda r: data(r, label=but(0, mask(0).resize((64, 48)))),
        "0.png: the mask has 64 x 48 pixels, its image 64 x 64",
    ),
    "mask of colours": (lambda r: data(r, label=but(0, COLOURS)), "0.png: the mask has shape .*Convert colours"),
    "16-bit mask past 255": (lambda r: data(r, label=but(0, WIDE)), "0.png: the mask holds 44, .*num_classes=5"),
    "too few classes": (lambda r: {f"{head}.num_classes": 3 for head in HEADS}, "num_classes=3 allows 0 to 2"),
    "load_from not there": (lambda r: {"load_from": r / "none.pth"}, "none.pth can not be found"),
    "file in the way of the run": (lambda r: {"work_dir": file(r)}, "work_dir=.*way is a file"),
    "run folder read-only": (lambda r: {"work_dir": "/sys/det_seg_agent"}, "/sys/det_seg_agent"),
    "existing run": (existing, r"holds a run already \(iter_80000.pth\).*--resume, or give another --work-dir"),
}  # fmt: skip


def run(scenes: Path, given: Words) -> int:
    """Run the command line on tiny scenes; `given` may name config, work_dir, flags, and options."""
    given = dict(given)
    words = [str(given.pop("config", CONFIG)), "--work-dir", str(given.pop("work_dir"))]
    words += [key for key in list(given) if key.startswith("--") and given.pop(key) == ""]
    if given.pop("bare", False):
        return main(words)
    options: Words = {f"{name}_dataloader.dataset.data_root": scenes for name in ("train", "val", "test")}
    options |= {"train_cfg.max_iters": 12, "train_cfg.val_interval": 12, "param_scheduler.0.end": 12}
    options |= {"model.data_preprocessor.size": "(64,64)", "agent.final_full": 0}
    options |= {"val_dataloader.dataset.indices": 2}
    if given.pop("joined", False):
        del options[f"{DATA}.data_root"]
    else:
        options |= {f"{DATA}.pipeline.2.scale": "(64,64)", f"{DATA}.pipeline.3.crop_size": "(64,64)"}
    name = f"input_{next(NUMBER)}"  # the host keeps both by name
    options |= {"experiment_name": name, "visualizer.name": name, "log_level": "INFO", **given}
    return main([*words, "--cfg-options", *(f"{key}={value}" for key, value in options.items())])


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path, so that messages are not cut."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


@pytest.mark.parametrize("case", BAD)
def test_bad_input_stops_before_training(case: str, scenes: Path, tmp_path: Path, capsys: Any) -> None:
    make, message = BAD[case]
    given = {"work_dir": tmp_path / "run", **make(tmp_path)}
    before = set(tmp_path.rglob("*"))
    assert run(scenes, given) == 2
    text = capsys.readouterr().err.split("error: ")[-1]
    assert re.search(message, text, re.S), text
    assert text.count("\n") == 1 and len(text) <= 301 - len("error: ")
    check_case("Segmentation: refused", case, text, FOLDER=tmp_path, SCENES=scenes, CONFIGS=CONFIG.parent)
    assert set(tmp_path.rglob("*")) == before, "nothing is left behind"


# name -> (options; what the run says)
ODD: dict[str, tuple[Callable[[Path], Words], str]] = {
    "one image": (lambda r: data(r, 1), "selected 1/1"),
    "data set smaller than a batch": (lambda r: data(r, 3), "selected 2/3"),
    "selection smaller than a batch": (
        lambda r: {**data(r, 12), "agent.ratio": 0.2, "train_cfg.max_iters": 4}, "selected 2/12",
    ),
    "class never seen": (lambda r: data(r, label=filled(1)), "selected 4/6"),
    "images without objects only": (lambda r: data(r, label=filled(0)), "selected 4/6"),
    "one mask of ignore alone": (lambda r: data(r, label=but(0, filled(255)(0))), "images without finite signals"),
    "masks of ignore alone": (lambda r: data(r, label=filled(255)), "selected 4/6 .*images without finite signals"),
    "one name in two folders": (lambda r: data(r, place=lambda i: f"{i % 2}/{i // 2}"), "selected 4/6"),
    "grayscale images": (lambda r: data(r, mode="L"), "selected 4/6"),
    "16-bit images": (lambda r: data(r, mode="I;16"), "selected 4/6"),
    "mask without an image": (
        lambda r: (data(r), mask(0).save(r / "data/masks/train/more.png"), data(r))[0], "selected 4/6",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_input_trains(case: str, scenes: Path, tmp_path: Path, capfd: Any) -> None:
    make, message = ODD[case]
    assert run(scenes, {"work_dir": tmp_path / "run", "train_cfg.max_iters": 2, **make(tmp_path)}) == 0
    text = capfd.readouterr().out + next((tmp_path / "run").glob("*/*.log")).read_text()
    assert re.search(message, text, re.S), text[-2000:]
    table = read(tmp_path / "run/trace")
    assert table is not None and len(set(table["pass"].to_pylist())) >= 2
    known = any(value is not None for value in table["loss"].to_pylist())
    assert known != (case == "masks of ignore alone"), "signals were taken"
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    assert result["images_trained"] % 8 == 0 and "mIoU" in result["iou"]


@pytest.mark.draws
def test_a_finished_run_is_left_alone(scenes: Path, tmp_path: Path, capsys: Any) -> None:
    given = {**data(tmp_path), "train_cfg.max_iters": 2, "work_dir": tmp_path / "run"}
    assert run(scenes, given) == 0
    kept = [*(tmp_path / "run/trace").iterdir(), *(tmp_path / "run").glob("*.[jp]*")]
    assert {path.suffix for path in kept} == {".parquet", ".json", ".png", ".jpg", ".pth", ".py"}
    before = {path: path.read_bytes() for path in kept if path.suffix != ".py"}
    for flag, message in (({}, "holds a run already"), ({"--resume": ""}, "its run is finished")):
        assert run(scenes, {**given, **flag}) == 2
        assert message in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}
