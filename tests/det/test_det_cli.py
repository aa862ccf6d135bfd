"""The detection command line means what `yolo` means: both parse, and their trainers' arguments are compared."""

import contextlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ultralytics import YOLO, cfg
from ultralytics.utils import YAML
from ultralytics.utils.callbacks import base

from det_seg_agent.det.arguments import parse_arguments
from det_seg_agent.det.cli import main, train
from det_seg_agent.det.settings import DetSettings, from_environment, in_environment
from det_seg_agent.errors import LIMIT
from det_seg_agent.settings import parse

NAMES = (
    "2024-11-25", "2024-11-25 10:30", "010", "0123", "5.10", "12:30", "1:2:3", "on", "no", "true", "None", "null", "~",
    "exp #2", "#2", "a: b", "1e-3", ".5", "1_000", "0x10", "0o7", "-5", "inf", "nan", "[1]", "{a: 1}", "'quoted'",
    "a,b", "a,", "*x", "&x", "!x", "%x", "|", "- a", "<<", "a=b", "--x", "ünï", " padded ", "model", "a/b",
)  # fmt: skip

TAKEN = (
    "classes=0", "classes=0,1", "classes=0,", "classes=[0,1]", "classes=(0,1)", "classes=None", "classes=null",
    "classes=0,1,", "classes='0'", "epochs=2", "epochs=2,", "epochs=1e1", "epochs=2.0", "epochs=1_0", "epochs=0x10",
    "epochs=True", "--epochs=2", "--epochs=2,", "lr0=1e-3", "lr0=.001", "lr0=1", "lr0=0.01#x", "time=0.5", "time=none",
    "imgsz=[64,32]", "imgsz=64,64", "batch=0.5", "batch=-1", "batch=8.0", "cos_lr=TRUE", "cos_lr=false",
    "optimizer=SGD", "optimizer=null", "freeze=3", "freeze=0,1", "freeze=0-3", "cache=ram", "cache=True", "cache=none",
    "fraction=5", "fraction=[4,2]", "scale=0.5,1.5", "scale=(0.5, 1.5)", "seed=1.0", "compile=max-autotune", "amp=bf16",
    "auto_augment=none", "auto_augment=null", "split=val", "workers=0x1", "pretrained=False", "pretrained=no",
    "quantize=8", "nbs=64.0", "resume=False", "mode=train", "task=detect", "task=None", "cfg=None", "save_json",
    "exist_ok", "half", "nms", "end2end", "boxes=False", "hide_labels=True", "label_smoothing=0.1", "epochs =2",
    " epochs= 2 ", "augmentations=None", "device='cpu'", "=", "=5", "seed=cv2.COLOR_BGR2GRAY",
)  # fmt: skip

REFUSED = (
    "epochs=2.5", "epochs=010", "epochs='2'", "epochs=two", "epochs=", "lr0=5", "lr0=nan", "time=1:30", "time=null",
    "cos_lr=on", "cos_lr=1", "rect=off", "optimizer=0", "seed=007", "seed=-1", "amp=off", "end2end=0", "epochs",
    "nothing", "epoch=3", "detect=5", "", "[", "epochs=[1", "epochs=1]", "CLASSES=0", "solutions", "settings", "track",
    "val", "task=foo", "task=track", "mode=foo", "cfg=none.yaml", "cfg=5", "cfg=setup.py",
)  # fmt: skip

LINES: dict[str, list[str]] = {
    "spaces around =": ["epochs", "=", "2", "lr0=", "0.1", "nbs", "=8"],
    "list in pieces": ["classes=[0,", "1]", "imgsz", "=", "[64,", "32]"],
    "later words win": ["epochs=2", "cos_lr", "epochs=3", "cos_lr=False"],
    "task and mode": ["detect", "train", "epochs=2"],
    "flags": ["exist_ok", "cos_lr", "single_cls"],
    "no key before =": ["=", "epochs=2"],
    "bracket before =": ["a[", "=", "b]"],
    "nothing after =": ["epochs=2", "="],
    "no = at all": ["lr0", "0.1"],
}


class Parsed(BaseException):
    """Ends a run once its trainer has its arguments."""


@pytest.fixture
def both(
    model_yaml: str, data_yaml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, Any]]:
    """Return what gives the arguments of the host's and of our trainer for words; None where they are refused."""

    def stop(trainer: Any) -> None:
        raise Parsed(dict(vars(trainer.args)))

    event = "on_pretrain_routine_start"  # runs once the trainer has its arguments; every model starts with these lists
    monkeypatch.setitem(base.default_callbacks, event, [*base.default_callbacks[event], stop])

    def arguments(run: Callable[[list[str]], Any], words: list[str]) -> dict[str, Any] | None:
        try:
            run(words)
        except Parsed as parsed:
            return dict(parsed.args[0])
        finally:
            for path in tmp_path.glob("runs*"):
                shutil.rmtree(path)
        return None

    def stock(words: list[str]) -> None:
        monkeypatch.setattr(cfg, "ARGV", ["yolo", *words])
        with contextlib.suppress(Exception):  # whatever it is, the host refuses
            cfg.entrypoint()

    def compare(*words: str, base: bool = True) -> tuple[Any, Any]:
        fixed = [f"model={model_yaml}", f"data={data_yaml}", "device=cpu", f"project={tmp_path / 'runs'}"]
        line = [*fixed, *words] if base else list(words)
        return arguments(stock, line), arguments(main, line)

    return compare


@pytest.mark.parametrize("value", NAMES)
def test_names_are_those_of_yolo(both: Any, value: str) -> None:
    theirs, ours = both(f"name={value}")
    assert ours == theirs is not None


@pytest.mark.parametrize("value", NAMES[:6])
def test_projects_are_those_of_yolo(both: Any, value: str, tmp_path: Path) -> None:
    theirs, ours = both(f"project={value}", f"save_dir={tmp_path / 'runs'}")
    assert ours == theirs is not None


@pytest.mark.parametrize("word", TAKEN)
def test_words_mean_what_they_mean_to_yolo(both: Any, word: str) -> None:
    theirs, ours = both(word)
    assert ours == theirs is not None


@pytest.mark.parametrize("word", REFUSED)
def test_words_that_yolo_does_not_train_with_are_refused(both: Any, word: str, capfd: Any) -> None:
    assert both(word) == (None, None)
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and len(error[0]) <= 300 and error[0].endswith((".", "?", ")"))


@pytest.mark.parametrize("case", LINES)
def test_lines_mean_what_they_mean_to_yolo(both: Any, case: str) -> None:
    theirs, ours = both(*LINES[case])
    assert ours == theirs


def write(path: Path, text: str) -> Path:
    """Write a file and return its path."""
    path.write_text(text, encoding="utf-8")
    return path


RECIPES = (
    "epochs: 3\ncos_lr: true\n",
    "name: 010\nlr0: 1.0e-3\n",
    "name: 5.10\n",
    "name: 12:30\n",
    "name: 'exp #2' # a comment\n",
    "name: 'None'\nclasses: None\n",
    "name: null\nclasses: [0, 1]\n",
    "cfg: other.yaml\nboxes: false\nhalf: true\n",
    "mode: train\ntask: detect\nresume: null\n",
    "",
    "name: caf\u00e9\x0e\n",
)
BROKEN = (
    "- 1\n",
    "5\n",
    "a: [\n",
    "epoch: 3\n",
    "1: 2\n",
    "on: 1\n",
    "lr0: 1e-3\n",
    "mode: val\n",
    "name: 2024-11-25\n",
)


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_alone_is_read_as_yolo_reads_it(
    both: Any, text: str, model_yaml: str, tmp_path: Path, data_yaml: str
) -> None:
    base = f"model: {model_yaml}\ndata: {data_yaml}\ndevice: cpu\nproject: {tmp_path / 'runs'}\n"
    path = write(tmp_path / "all.yaml", base + text)
    theirs, ours = both(f"cfg={path}", base=False)
    assert ours == theirs is not None
    assert both(f"cfg={path}", "epochs=7", "--config", str(path))[1] == both("epochs=7", f"cfg={path}")[0]


@pytest.mark.parametrize("text", BROKEN)
def test_a_recipe_that_yolo_refuses_is_refused(both: Any, text: str, tmp_path: Path, capfd: Any) -> None:
    path = write(tmp_path / "all.yaml", text)
    assert both(f"cfg={path}") == (None, None) and both("--config", str(path))[1] is None
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and max(map(len, errors)) <= 300


def test_words_win_over_recipes_wherever_they_stand(both: Any, tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "epochs: 3\nlr0: 0.1\n")
    two = write(tmp_path / "two.yaml", "epochs: 4\nlrf: 0.2\n")
    for words in (["epochs=7", f"cfg={one}"], [f"cfg={one}", "epochs=7"], [f"cfg={one}", f"cfg={two}"]):
        theirs, ours = both(*words)
        assert ours == theirs is not None
    host, agent = parse_arguments(["epochs=7", "--config", str(one), f"--config={two}", "agent.ratio=0.3"])
    assert host == {"epochs": 7, "lr0": 0.1, "lrf": 0.2} and agent == {"ratio": 0.3}


def test_a_task_that_the_checkpoint_is_not_for_is_left_to_the_model(both: Any, model_yaml: str, tmp_path: Path) -> None:
    YOLO(model_yaml).save(tmp_path / "weights.pt")
    theirs, ours = both(f"model={tmp_path / 'weights.pt'}", "segment")
    assert ours == theirs is not None and ours["task"] == "detect"


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify", "semantic", "depth"])
def test_a_task_that_the_model_yaml_is_not_for_is_refused(task: str, both: Any, capsys: Any) -> None:
    assert both(task)[1] is None
    assert re.search(rf"task={task}.* or drop task", capsys.readouterr().err)


@pytest.mark.parametrize("words", [[], ["task=segment"], ["obb"]])
def test_the_default_models_are_those_of_yolo(both: Any, words: list[str], data_yaml: str, capfd: Any) -> None:
    """Offline they are not there, and both name the same file."""
    assert both("train", f"data={data_yaml}", "device=cpu", *words, base=False) == (None, None)
    task = words[0].removeprefix("task=") if words else "detect"
    assert f"model={cfg.TASK2MODEL[task]}: " in capfd.readouterr().err


def test_a_run_is_not_written_over_by_its_own_args_yaml(both: Any, tmp_path: Path, capsys: Any) -> None:
    old = tmp_path / "old"
    old.mkdir()
    write(old / "args.yaml", f"save_dir: {old}\n")
    words = [f"cfg={old / 'args.yaml'}"]
    assert both(*words)[1] is None and "old holds a run; give another" in capsys.readouterr().err
    for word in ("exist_ok", f"save_dir={tmp_path / 'runs'}"):
        theirs, ours = both(*words, word)
        assert ours == theirs is not None


# Words of ours -> what they give: values by the host's rules, and null.
OURS: dict[str, dict[str, Any]] = {
    "agent.ratio=0.5": {"ratio": 0.5},
    "agent.ratio=5e-1": {"ratio": 0.5},
    "--agent.ratio=0.5,": {"ratio": 0.5},
    "agent.schedule=constant": {"schedule": "constant"},
    "agent.strategy=math:pi": {"strategy": "math:pi"},
    "agent.val_json=2024-11-25": {"val_json": "2024-11-25"},
    "agent.trace": {"trace": True},
    "agent.trace=off": {"trace": "off"},
    "agent.seed=None": {"seed": None},
    "agent.options.feature_dim=null": {"options": {"feature_dim": None}},
    "agent.options.feature_dim=Null": {"options": {"feature_dim": None}},
    "agent.options.feature_dim=None": {"options": {"feature_dim": None}},
    "agent.options.lr=1e-3": {"options": {"lr": 0.001}},
    "agent.options={'lr': 0.001, 'hidden': 8}": {"options": {"lr": 0.001, "hidden": 8}},
    "agent={'ratio': 0.5, 'options': {'lr': 0.1}}": {"ratio": 0.5, "options": {"lr": 0.1}},
    "agent.options.sizes=1,2": {"options": {"sizes": [1, 2]}},
}


@pytest.mark.parametrize("word", OURS)
def test_our_keys_share_the_grammar(word: str) -> None:
    assert parse_arguments([word]) == ({}, OURS[word])
    key, sign, value = word.partition("=")
    assert parse_arguments([key, sign, value] if sign else [key])[1] == OURS[word]


@pytest.mark.parametrize("word", OURS)
def test_our_values_reach_other_processes(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment, which the host's launcher leaves to the processes that it starts."""
    if "strategy" in OURS[word]:
        monkeypatch.setitem(OURS, word, {"strategy": "math:pi"})
    settings = parse(DetSettings, parse_arguments([word])[1], "agent.")
    with in_environment(settings):
        assert from_environment() == settings


@pytest.mark.parametrize(
    "words",
    [
        ["agent.options=5", "agent.options.lr=0.1"],
        ["agent.options.lr=x", "agent.options.memory=[1]"],
        ["agent=5"],
        ["agent.options.lrr=1"],
        ["agent.ratio"],
        ["agent.options.draw"],
        ["agent.seed=1.5"],
        ["agent."],
        ["agent.=1"],
        ["agent.options.=1"],
        ["agent.x.y=1"],
        ["ratio=0.5"],
        ["agent.ratio=" + "9" * 1000],
        ["agent.strategy=" + "x" * 1000],
        ["x" * 1000],
        ["x" * 1000 + "=1"],
        ["--config"],
        ["--config", "="],
        ["data=['a.yaml','b.yaml']"],
        ["model=5"],
        ["model=" + "x" * 200 + ".pt"],
        ["resume=5", "model=none.pt"],
        ["resume=[1]"],
        ["name=" + "x" * 300],
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_wrong_words_of_ours_get_short_lines(words: list[str], both: Any, capfd: Any) -> None:
    assert both(*words)[1] is None
    lines = capfd.readouterr().err.partition("error: ")[2].splitlines()
    given = sum(word.startswith("agent.options.") for word in words)
    assert 1 <= len(lines) <= max(1, given) and max(map(len, lines)) <= LIMIT, lines


def test_a_resumed_run_has_the_values_of_the_first_line(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise Stop

    words = ["name=2024-11-25", "classes=0,1", "epochs", "=", "3", "exist_ok", "plots=False", "val=False", "imgsz=64"]
    ours = ["agent.ratio=5e-1", "agent.options.feature_dim=null", "agent.options.lr=1e-3"]
    fixed = [f"model={model_yaml}", f"data={data_yaml}", "device=cpu", f"project={tmp_path}"]
    fixed += ["optimizer=SGD", "workers=0"]  # not what the host sets itself
    host, agent = parse_arguments([*fixed, *words, *ours])
    with pytest.raises(Stop):
        train(host, agent, {"on_train_epoch_start": stop})
    run = tmp_path / "2024-11-25"
    before = YAML.load(run / "args.yaml")
    assert before["classes"] == [0, 1] and before["epochs"] == 3
    assert main([f"resume={run / 'weights/last.pt'}", *ours]) == 0
    after = YAML.load(run / "args.yaml")
    assert {key for key in before if before[key] != after[key]} <= {"model", "resume"}
    settings = YAML.load(run / "agent.yaml")
    assert settings["ratio"] == 0.5 and settings["options"] == {"feature_dim": None, "lr": 0.001}
