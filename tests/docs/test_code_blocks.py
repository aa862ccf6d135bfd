"""Every fenced block of the documents runs, or is compared with what is printed, or says why not.

A block that is not run has a comment on the line above it: `<!-- not run: REASON -->`. The code is run as it is
written; the files that a document takes as the user's own are tiny ones of the embedded scenes. Commands are checked by
the parsers of their programs. A training is shortened by a callback of the host, or by its options.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import commands_of_docs
import pytest
import test_input
import torch
import ultralytics.cfg
import yaml
from det_runs import write_model
from head_runs import write_data, write_head
from seg_runs import TINY
from test_docs import ROOT, TEXTS
from torch.utils.data import DataLoader, TensorDataset
from ultralytics import YOLO
from ultralytics.utils import SETTINGS
from ultralytics.utils.callbacks import base

from det_seg_agent import Selector
from det_seg_agent.compare.matrix import read
from det_seg_agent.det import cli as det
from det_seg_agent.det.coco_convert import prepare_data
from det_seg_agent.seg import cli as seg
from det_seg_agent.strategies import base as strategies

FENCED = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
# An mmseg recipe of one GPU made small: what `--cfg-options` gets, beside the widths of the tiny UperNet.
SMALL: dict[str, Any] = {
    **TINY, "model.pretrained": None, "model.backbone.depth": 18, "model.backbone.norm_cfg.type": "BN",
    "model.decode_head.norm_cfg.type": "BN", "model.auxiliary_head.norm_cfg.type": "BN",
    "model.data_preprocessor.size": "(64,64)", "train_dataloader.dataset.pipeline.2.scale": "(64,64)",
    "train_dataloader.dataset.pipeline.3.crop_size": "(64,64)", "val_dataloader.dataset.pipeline.1.scale": "(64,64)",
    "train_cfg.max_iters": 24, "train_cfg.val_interval": 24, "log_level": "ERROR",
    **{f"{part}_dataloader.{key}": value for part in ("train", "val", "test")
       for key, value in (("num_workers", 0), ("persistent_workers", False))},
    "train_dataloader.batch_size": 16,
}  # fmt: skip


class Block(NamedTuple):
    """A fenced block; `name` is its document, language and number among those."""

    name: str
    language: str
    code: str
    reason: str | None
    heading: str


def blocks_of(path: Path) -> Iterator[Block]:
    """Yield the blocks of a document."""
    text, seen = path.read_text(encoding="utf-8"), dict[str, int]()
    for found in FENCED.finditer(text):
        language = found["language"]
        seen[language] = seen.get(language, 0) + 1
        heading = re.findall(r"^#+ (.*)$", text[: found.start()], re.M)[-1]
        yield Block(f"{path.name} {language} {seen[language]}", language, found["code"], found["reason"], heading)


BLOCKS = {block.name: block for path in TEXTS for block in blocks_of(path)}
CONFIGS = [name for name, block in BLOCKS.items() if block.language == "python" and "_base_ =" in block.code]
SLOW = [*CONFIGS, "getting-started.md python 1", "heads.md python 1", "getting-started.md python 3", "README.md text 1"]


def of_language(language: str) -> Any:
    """Parametrize a test by the blocks of a language that are not marked."""
    found = [block for block in BLOCKS.values() if block.language == language and block.reason is None]
    once = {block.code: block for block in reversed(found)}  # two documents may have the same block
    return pytest.mark.parametrize(
        "block",
        [
            pytest.param(b, id=b.name, marks=[pytest.mark.slow, pytest.mark.draws] * (b.name in SLOW))
            for b in once.values()
        ],
    )


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_all_blocks_are_found(path: Path) -> None:
    """Each is of a language that is tested here, or says why it is not run."""
    text, blocks = path.read_text(encoding="utf-8"), list(blocks_of(path))
    assert len(re.findall(r"```|~~~", text)) == 2 * len(blocks), "a fence is indented or not closed"
    assert text.count("<!-- not run") == sum(block.reason is not None for block in blocks)
    assert all(block.reason or block.language in ("bash", "python", "yaml", "text") for block in blocks)


@of_language("bash")
def test_commands_are_accepted(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands_of_docs.commands(block.code):
        commands_of_docs.check(words)


@of_language("yaml")
def test_comparisons_are_read(block: Block, tmp_path: Path) -> None:
    (tmp_path / "compare").mkdir()
    (tmp_path / "seg").symlink_to(ROOT / "configs/seg")
    path = tmp_path / "compare/mine.yaml"
    path.write_text(block.code, encoding="utf-8")
    assert {cell.task for cell in read(path, "data/ade")[1]} == set(yaml.safe_load(block.code)) - {"title"}


# A user's folder -----------------------------------------------------------------------------------------------------


def shorten(trainer: Any) -> None:
    """Have a run of Ultralytics make four epochs of small images."""
    trainer.epochs = trainer.args.epochs = 4
    trainer.args.imgsz, trainer.args.workers, trainer.args.plots = 64, 0, False


@pytest.fixture(scope="module")
def home(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the models and data sets that the documents take as the user's own; runs are left in it."""
    folder = tmp_path_factory.mktemp("home")
    for name, source in (("my.yaml", prepare_data(scenes)), ("coco8-pose.yaml", write_data(scenes, "pose", folder))):
        content = {"path": str(Path(source).parent), **yaml.safe_load(Path(source).read_text(encoding="utf-8"))}
        (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    YOLO(write_model(folder)).save(folder / "yolov8n.pt")
    YOLO(write_head(folder, "yolo11n-pose")).save(folder / "yolo11n-pose.pt")
    ade = folder / "data/ade/ADEChallengeData2016"
    for kind, root in (("images", scenes), ("annotations", scenes / "masks")):
        (ade / kind).mkdir(parents=True)
        (ade / kind / "training").symlink_to(root / "train")
        (ade / kind / "validation").symlink_to(root / "val")
    before, event = SETTINGS["runs_dir"], "on_pretrain_routine_start"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(ultralytics.cfg, "TESTS_RUNNING", False)  # else runs are left beside the package
        dict.__setitem__(SETTINGS, "runs_dir", str(folder / "runs"))
        patch.setitem(base.default_callbacks, event, [*base.default_callbacks[event], shorten])
        yield folder
    dict.__setitem__(SETTINGS, "runs_dir", before)


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """What the README's command of detection leaves."""
    codes = (block.code for block in BLOCKS.values() if block.name.startswith("README.md bash"))
    [words] = [words for code in codes for words in commands_of_docs.commands(code) if "tools/train_det.py" in words]
    assert det.main(words[2:]) == 0
    return home / "runs/detect/train"


# Python --------------------------------------------------------------------------------------------------------------


def names_of(block: Block) -> dict[str, Any]:
    """Return the names that a block takes from the program around it."""
    if not block.name.startswith("README.md"):
        return {}
    index, data = torch.arange(20), TensorDataset(torch.rand(200, 2))
    signals = {"loss": torch.rand(20), "entropy": torch.rand(20), "features": torch.rand(20, 8)}
    return {"Selector": Selector, "DataLoader": DataLoader, "data": data, "epochs": 8, "epoch": 0, "index": index} | (
        signals
    )


@of_language("python")
def test_python_runs(
    block: Block, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = request.getfixturevalue("home")
    monkeypatch.chdir(home)
    monkeypatch.setattr(strategies, "_REGISTRY", dict(strategies._REGISTRY))
    if block.name in CONFIGS:
        train_config(block, home)
        return
    if "runs/detect/train" in block.code:
        request.getfixturevalue("run")
        capsys.readouterr()
    names = {"__name__": "__main__", **names_of(block)}
    exec(compile(block.code, block.name, "exec"), names)
    said = capsys.readouterr().out.splitlines()
    if block.name == "pytorch.md python 1":
        assert len(said) == 8 and "selected 100/200" in said[1] and "selected 200/200" in said[7]
    if block.name == "adapter.md python 1":
        assert (home / "runs/loop/agent.png").is_file()
        assert shape(BLOCKS["getting-started.md text 1"].code) in map(shape, said), said
    if block.name == "settings.md python 1":
        foretold = re.findall(r"^print.*# (.*)$", block.code, re.M)
        assert len(said) == len(foretold) and all(map(str.startswith, foretold, said)), said
    if "@register" in block.code:
        selector = Selector(20, 8, strategy=re.findall(r'@register\("(.*)"\)', block.code)[0], ratio=0.5)
        assert [len(selector.begin_pass(number).indices) for number in (0, 1)] == [20, 10]


def train_config(block: Block, home: Path) -> None:
    """Train a config of MMSegmentation by our command, with all that it says and a small model."""
    name = block.name.replace(" ", "_").replace(".", "_")
    (home / f"{name}.py").write_text(block.code, encoding="utf-8")
    small = {**SMALL, "experiment_name": name, "visualizer.name": name}
    words = [f"{name}.py", "--work-dir", f"runs/{name}", "--cfg-options"]
    words += [f"{key}={str(value).replace(' ', '')}" for key, value in small.items()]
    if "load_from" in block.code:
        from mmengine.registry import MODELS

        config = seg.load_config(seg.arguments_parser().parse_args(words))
        torch.save({"state_dict": MODELS.build(config.model).state_dict()}, home / config.load_from)
    assert seg.main(words) == 0
    for left in ("metrics.json", "trace", "agent.png", "most_selected.jpg", "least_selected.jpg"):
        assert (home / f"runs/{name}/{left}").exists(), left


# Texts ---------------------------------------------------------------------------------------------------------------


def shape(line: str) -> str:
    """Return a line without its numbers."""
    return re.sub(r"-?\d+(\.\d+)?", "#", line.strip())


@of_language("text")
def test_texts_are_what_is_printed_or_left(block: Block, request: pytest.FixtureRequest) -> None:
    if block.name.startswith("input.md"):
        assert block.heading in test_input.SECTIONS, "the cases are compared by documented.py"
    elif block.name == "README.md text 1":
        run = request.getfixturevalue("run")
        top, *lines = block.code.splitlines()
        assert run.as_posix().endswith(top.rstrip("/"))
        for name in (name for line in lines for name in re.split(r"\s{2,}", line.strip())[0].split(", ")):
            assert (run / name).is_dir() if name.endswith("/") else (run / name).is_file(), name
        assert list((run / "weights").glob("agent_*.pt"))
        with open(run / "results.csv", encoding="utf-8") as file:
            assert any(column.strip().startswith("agent/") for column in next(csv.reader(file)))
    else:  # compared by test_python_runs, with what adapter.md's loop prints
        assert block.name == "getting-started.md text 1", "say what prints it, or mark it"
