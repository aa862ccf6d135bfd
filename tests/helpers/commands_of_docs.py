"""The commands of the documents, each checked by the parser of its own program, without running it."""

import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser
from ultralytics.cfg import MODES, get_cfg, parse_key_value_pair
from ultralytics.utils.checks import check_yaml
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

from det_seg_agent.compare.cli import arguments_parser as compare_parser
from det_seg_agent.compare.matrix import read
from det_seg_agent.det.arguments import parse_arguments
from det_seg_agent.det.settings import DetSettings
from det_seg_agent.hf.cli import values_of
from det_seg_agent.hf.recipe import arguments_of, recipe_of
from det_seg_agent.hf.settings import HfSettings
from det_seg_agent.hosts.commands import COMMANDS
from det_seg_agent.hosts.export import arguments_parser as export_parser
from det_seg_agent.hosts.export import chosen
from det_seg_agent.hosts.recipes import found, recipe_text
from det_seg_agent.inspecting.asked import asked_of
from det_seg_agent.reporting.samples import sample_rows
from det_seg_agent.seg.cli import arguments_parser as seg_parser
from det_seg_agent.seg.scoring import OWN_WORDS
from det_seg_agent.seg.scoring_config import check_options
from det_seg_agent.seg.words import read_words
from det_seg_agent.settings import Settings, parse
from det_seg_agent.strategies import resolve
from det_seg_agent.table import ScoreTable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
# What the documents take as the user's own: a data YAML, a config, and what a run of theirs left.
OWN = ("my.yaml", "photos.yaml", "my_config.py", "CONFIG")
RUN = re.compile(r"runs/|/data/|data/|best\.pt$|last\.pt$")


def commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each command of a block."""
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words[: words.index(">")] if ">" in words else words


def check(words: list[str]) -> None:
    """Check that a command's program exists, and takes its arguments. The current folder is the repository."""
    program, rest = words[0], words[1:]
    if program == "python":
        program, rest = rest[0], rest[1:]
    assert program in PROGRAMS, f"{' '.join(words)}: no check is known of {program}"
    PROGRAMS[program](rest)


def pip(words: list[str]) -> None:
    """An install names extras of pyproject.toml, or none."""
    assert words[0] == "install" and len(words) == 2
    if words[1] == ".":
        return
    extras = re.fullmatch(r"\.\[(.*)\]", words[1])
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras is not None and set(extras[1].split(",")) <= set(known)


def make(words: list[str]) -> None:
    """Targets are in the Makefile."""
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(words) <= set(targets)


def train_det(words: list[str]) -> None:
    """Words are those of the host and ours, with values that they take; models and data sets are known ones."""
    assert Path("tools/train_det.py").is_file()
    host, agent = parse_arguments(words)
    host_settings(host, "train")
    resolve(parse(DetSettings, agent, "agent."))


def host_settings(host: dict, mode: str) -> None:
    """Settings of Ultralytics have values that it takes."""
    assert mode in MODES
    get_cfg(overrides={"task": "detect", **host, "mode": mode})
    model, data = str(host.get("model", "")), str(host.get("data", ""))
    if model.endswith(".pt") and not RUN.search(model):
        assert model in GITHUB_ASSETS_NAMES, model
    for file in (model, data):
        if file.endswith(".yaml") and file not in OWN:
            check_yaml(re.sub(r"^(yolov?\d+)[nsmlx]", r"\1", file) if file == model else file)


def yolo(words: list[str]) -> None:
    """A mode, and the host's settings."""
    host_settings(dict(parse_key_value_pair(word) for word in words[1:]), words[0])


def train_seg(words: list[str]) -> None:
    """Options are those of the parser, and settings under agent. are ours."""
    assert Path("tools/train_seg.py").is_file()
    options = seg_parser().parse_args(words)
    assert options.config in OWN or found(options.config).is_file()
    agent: dict = {}
    for key, value in (options.cfg_options or {}).items():
        assert key.startswith("agent."), key
        *parents, name = key.split(".")[1:]
        node = agent
        for parent in parents:  # as the host merges them
            node = node.setdefault(parent, {})
        node[name] = value
    resolve(parse(Settings, agent, "agent."))


def train_hf(words: list[str]) -> None:
    """Words change a recipe of ours, and its values are ones that it takes."""
    assert Path("tools/train_hf.py").is_file()
    values = values_of(words)
    recipe = recipe_of({**values, "train": {**values["train"], "use_cpu": True, "bf16": False}})
    arguments_of(recipe)
    resolve(parse(HfSettings, recipe.agent, "agent."))


def compare(words: list[str]) -> None:
    """Options are those of the parser, and the YAML makes cells with this data."""
    assert Path("tools/compare.py").is_file()
    options = compare_parser().parse_args(words)
    assert read(found(options.config), options.data)[1]


def det_seg_agent(words: list[str]) -> None:
    """Its command takes the arguments."""
    assert words[0] in COMMANDS, words[0]
    others = {"train-det": train_det, "train-seg": train_seg, "train-hf": train_hf, "compare": compare, "demo": compare}
    if words[0] in others:
        others[words[0]](words[1:])
    elif words[0] == "score":
        assert RUN.search(words[1].partition("=")[2])
        if any(word.startswith("data=") and word.endswith(".py") for word in words):
            own, options = read_words(words[1:], OWN_WORDS)
            check_options(options)
            assert own["weights"].endswith(".pth") and own["data"] in OWN
        else:
            assert parse_arguments(words[2:])
    elif words[0] == "inspect":
        assert any(name in asked_of(words[1:]).data for name in (*OWN, "/data/"))
    elif words[0] == "export":
        given = export_parser().parse_args(words[1:])
        assert RUN.search(given.run)
        chosen(sample_rows(ScoreTable(1), ["a"]), given.where)
    elif words[0] == "recipe":
        assert all(map(recipe_text, words[1:]))
    else:
        assert RUN.search(words[1]) and parse_arguments(words[2:])


def torchrun(words: list[str]) -> None:
    """Its own options, then a command of ours."""
    options = get_args_parser().parse_args(words)
    check([options.training_script, *options.training_script_args])


def mmseg_test(words: list[str]) -> None:
    """The script of the installed mmseg takes the arguments."""
    spec = importlib.util.find_spec("mmseg")
    assert spec is not None and spec.origin is not None
    script = Path(spec.origin).parent / ".mim/tools/test.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["test.py", *words])
        patch.setenv("LOCAL_RANK", "0")
        runpy.run_path(str(script))["parse_args"]()


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "pip": pip,
    "make": make,
    "det-seg-agent": det_seg_agent,
    "yolo": yolo,
    "torchrun": torchrun,
    "tools/train_det.py": train_det,
    "tools/train_seg.py": train_seg,
    "tools/train_hf.py": train_hf,
    "tools/bench_hf.py": lambda words: None,
    "tools/compare.py": compare,
    "mmsegmentation/tools/test.py": mmseg_test,
}
