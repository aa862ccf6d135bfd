"""Bad input of the core: a table of cases and the message that each gets."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from documented import check_case

from det_seg_agent import AgentError, Selection, SelectionSampler, Selector, Settings, Strategy, register
from det_seg_agent.settings import parse
from det_seg_agent.strategies import strategy_class


class Nothing(Strategy):
    """A user's own strategy that selects what its options cannot mean."""

    chosen: Any = []

    def select(self, request: Any) -> Selection:
        """Return `chosen`."""
        return Selection(torch.tensor(self.chosen, dtype=torch.int64))


class Twice(Nothing):
    chosen = [1, 1, 2]


class Outside(Nothing):
    chosen = [1, 99]


def settings(**fields: Any) -> Callable[[], Any]:
    """Return what reads settings as both command lines do."""

    def read() -> None:
        given = parse(Settings, fields, "agent.")
        parse(strategy_class(given.strategy).Options, given.options, "agent.options.")

    return read


def second_pass(strategy: type[Strategy]) -> Callable[[], Any]:
    """Return what selects for a pass with a ratio below 1."""
    return lambda: Selector(10, 4, strategy=f"{__name__}:{strategy.__name__}").begin_pass(1)


def wider_features() -> None:
    selector = Selector(10, 4)
    for width in (4, 5):
        selector.observe(torch.arange(2), torch.ones(2), torch.ones(2), torch.ones(2, width))


# name -> (what is done, what the message says)
CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown setting": (settings(ratios=0.5), "agent.ratios is not a setting. Did you mean agent.ratio"),
    "ratio 0": (settings(ratio=0), "agent.ratio=0: .*greater than 0"),
    "ratio 1.5": (settings(ratio=1.5), "agent.ratio=1.5: .*less than or equal to 1"),
    "ratio -0.5": (settings(ratio=-0.5), "agent.ratio=-0.5: .*greater than 0"),
    "ratio NaN": (settings(ratio=math.nan), "agent.ratio=nan: .*finite"),
    "ratio infinite": (settings(ratio=math.inf), "agent.ratio=inf: .*finite"),
    "ratio 'half'": (settings(ratio="half"), "agent.ratio='half': .*0 < ratio <= 1"),
    "ratio missing": (settings(ratio=None), "agent.ratio=None: .*0 < ratio <= 1"),
    "unknown schedule": (settings(schedule="wavy"), "agent.schedule='wavy': .*constant or oscillating"),
    "low too low for the mean": (
        settings(schedule="oscillating", ratio=0.6, low=0.1),
        "low=0.1 and high=1.1 .*ratio=0.6 .*mean; give one of the two",
    ),
    "low and high off the mean": (
        settings(schedule="oscillating", ratio=0.5, low=0.3, high=0.8),
        "low=0.3 and high=0.8 .*ratio=0.5 .*mean",
    ),
    "high below the ratio": (settings(schedule="oscillating", ratio=0.6, high=0.5), "low=0.7 and high=0.5 .*ratio=0.6"),
    "odd period": (settings(schedule="oscillating", period=3), "period=3 cannot hold .*use an even one"),
    "period 0": (settings(schedule="oscillating", period=0), "agent.period=0: .*even number >= 2"),
    "low without oscillating": (settings(low=0.2), "low and high belong to schedule=oscillating; remove them"),
    "warmup -1": (settings(warmup=-1), "agent.warmup=-1: .*an integer >= 0"),
    "final_full 2": (settings(final_full=2), r"agent.final_full=2: .*0\.\.1"),
    "seed -1": (settings(seed=-1), "agent.seed=-1: .*greater than or equal to 0"),
    "trace 'perhaps'": (settings(trace="perhaps"), "agent.trace='perhaps': .*true or false"),
    "options not by name": (settings(options=5), "agent.options=5: .*by name"),
    "unknown strategy": (
        settings(strategy="magic"),
        "agent.strategy='magic' is not known. Valid: afss, agent, .*infobatch",
    ),
    "strategy not importable": (settings(strategy="nowhere:X"), "agent.strategy='nowhere:X': .*importable"),
    "strategy of another kind": (settings(strategy="math:pi"), "agent.strategy='math:pi' is not a subclass"),
    "unknown option": (
        settings(options={"lrr": 1}),
        "agent.options.lrr is not a setting. Did you mean agent.options.lr",
    ),
    "option out of range": (settings(options={"lr": 0}), "agent.options.lr=0: .*> 0"),
    "option of another strategy": (
        settings(strategy="random", options={"lr": 0.1}),
        "agent.options.lr is not a setting. Valid: none",
    ),
    "no images": (lambda: Selector(0, 4), "num_samples=0: there is nothing to sample from"),
    "no passes": (lambda: Selector(10, 0), "total_passes=0: a run has at least one pass"),
    "rank past the processes": (lambda: SelectionSampler(9, 0, 2, 2), r"rank=2 does not lie in 0\.\.1"),
    "settings given twice": (lambda: Selector(9, 4, Settings(), ratio=0.5), "either settings or single fields"),
    "own strategy selects nothing": (second_pass(Nothing), "Nothing: pass 2 selects no sample; a strategy returns"),
    "own strategy selects twice": (
        second_pass(Twice),
        "Twice: pass 2 selects sample 1 after itself .*sort and list each once",
    ),
    "own strategy selects past the data": (
        second_pass(Outside),
        "Outside: pass 2 selects sample 99, and there are samples 0 to 9",
    ),
    "strategy name taken": (lambda: register("agent")(Twice), "named 'agent' is registered already; choose another"),
    "features change their width": (wider_features, "features have 5 values a sample, earlier ones 4"),
    "state of another data set": (
        lambda: Selector(21, 4).load_state_dict(Selector(20, 4).state_dict()),
        "20 images, this one has 21. Resume on the data set",
    ),
    "state of another strategy": (
        lambda: Selector(20, 4, strategy="random").load_state_dict(Selector(20, 4).state_dict()),
        "agent.strategy=agent, or start a new run",
    ),
    "state of other options": (
        lambda: Selector(20, 4, options={"floor": 0.9}).load_state_dict(Selector(20, 4).state_dict()),
        "the saved state was made with agent.options.floor=0.4, and this run has agent.options.floor=0.9",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_named_with_its_remedy(case: str) -> None:
    work, message = CASES[case]
    with pytest.raises(AgentError) as error:
        work()
    assert re.search(message, str(error.value), re.S), str(error.value)
    check_case("Settings and selections", case, str(error.value))
