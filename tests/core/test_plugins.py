"""Strategies of other distributions, installed as pip does: a module, and a dist-info folder beside it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from det_seg_agent import ConfigError, Selector
from det_seg_agent.strategies import base, strategy_class, strategy_names

SOUND = """
import torch
from pydantic import BaseModel
from det_seg_agent import Selection, Strategy

class Options(BaseModel, extra="forbid"):
    first: int = 0

class Mine(Strategy):
    Options = Options
    def select(self, request):
        return Selection(torch.arange(self.options.first, self.options.first + request.count))

nothing = 3
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a distribution with one module of the same name."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, points: str, code: str = SOUND) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[det_seg_agent.strategies]\n{points}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


def test_an_installed_strategy_goes_by_its_name(install: Install) -> None:
    install("their_rules", "theirs = their_rules:Mine")
    assert {"theirs", "agent"} <= set(strategy_names())
    assert "their_rules" not in sys.modules, "listing imports nothing"
    selector = Selector(20, 4, strategy="theirs", ratio=0.25, warmup=0, final_full=0, options={"first": 3})
    assert selector.begin_pass(0).indices.tolist() == [3, 4, 5, 6, 7]
    assert selector.strategy.name == "theirs" and strategy_class("theirs") is type(selector.strategy)
    with pytest.raises(ConfigError, match=r"agent.options.frist is not a setting. Did you mean agent.options.first"):
        Selector(20, 4, strategy="theirs", options={"frist": 3})
    again = Selector(20, 4, strategy="theirs", ratio=0.25, warmup=0, final_full=0, options={"first": 3})
    again.load_state_dict(selector.state_dict())


def test_a_new_process_finds_it_too(install: Install, tmp_path: Path) -> None:
    install("their_rules", "theirs = their_rules:Mine")
    code = "from det_seg_agent.strategies import strategy_class; print(strategy_class('theirs').name)"
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.stdout == "theirs\n", done.stderr


@pytest.mark.parametrize(
    ("value", "code", "reason"),
    [
        ("broken:Mine", "import no_such_module_here", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("broken:Mine", "raise RuntimeError('needs a licence')", "RuntimeError: needs a licence"),
        ("broken:Mine", "def", "SyntaxError"),
        ("broken:Other", SOUND, "AttributeError"),
        ("gone.rules:Mine", SOUND, "No module named 'gone'"),
        ("broken Mine", SOUND, "cannot be imported"),
        ("broken:nothing", SOUND, "is not a subclass of det_seg_agent.Strategy"),
        ("broken:torch.Tensor", SOUND, "is not a subclass of det_seg_agent.Strategy"),
    ],
)
def test_a_broken_one_is_named_with_its_distribution(install: Install, value: str, code: str, reason: str) -> None:
    install("broken", f"bad = {value}", code)
    with pytest.raises(ConfigError) as error:
        Selector(20, 4, strategy="bad")
    assert "agent.strategy='bad'" in str(error.value) and f"{value} of the package broken 1.2" in str(error.value)
    assert reason in str(error.value)
    assert Selector(20, 4, strategy="quality").begin_pass(0), "it is in nobody else's way"


def test_two_that_have_one_name_are_both_named(install: Install) -> None:
    install("one", "both = one:Mine")
    install("two", "both = two:Mine")
    with pytest.raises(ConfigError, match=r"one 1.2 and two 1.2 have a strategy of that name"):
        strategy_class("both")


def test_none_takes_a_name_of_ours(install: Install) -> None:
    install("greedy", "agent = greedy:Mine")
    assert strategy_class("agent").__module__ == "det_seg_agent.strategies.data_agent.agent"
    assert strategy_names().count("agent") == 1


def test_an_unknown_name_lists_those_of_packages(install: Install) -> None:
    install("their_rules", "aaa_theirs = their_rules:Mine")
    with pytest.raises(ConfigError, match=r"is not known. Valid: aaa_theirs, "):
        strategy_class("aa_theirs")


def test_one_that_registers_itself_as_well_is_one(install: Install) -> None:
    code = SOUND.replace("class Mine", "from det_seg_agent import register\n@register('twice')\nclass Mine")
    install("twice_said", "twice = twice_said:Mine", code)
    assert strategy_class("twice") is strategy_class("twice") and torch.equal(
        Selector(4, 2, strategy="twice", ratio=0.5, warmup=0, final_full=0).begin_pass(0).indices, torch.arange(2)
    )
