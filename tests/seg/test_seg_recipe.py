"""The rule of iterations: what a recipe becomes, and how all that counts iterations follows, without a training."""

import itertools
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import CheckpointHook, EMAHook, Hook, LoggerHook
from mmengine.model import BaseAveragedModel, ExponentialMovingAverage
from mmengine.registry import HOOKS, MODELS, PARAM_SCHEDULERS
from torch import nn

from det_seg_agent import ConfigError
from det_seg_agent.schedule import Schedule
from det_seg_agent.seg.recipe import Recipe, iterations_of, passes_of, plan, shorten
from det_seg_agent.seg.scaling import scaled, scaled_interval, whole
from det_seg_agent.seg.schedulers import Schedulers

FULL = 200


# Passes -------------------------------------------------------------------------------------------------------------


def test_counts_by_hand() -> None:
    assert passes_of(80000, 20210, 16) == 63 and passes_of(10, 20210, 16) == 1
    assert scaled(80000, 0.65) == 52000 and scaled(1, 0.1) == 1
    assert scaled_interval(8000, 0.601) == 4808 and scaled_interval(-1, 0.5) == -1


@pytest.mark.parametrize("max_iters", [50, 63, 80, 126, 80000, 80001])
@pytest.mark.parametrize(("samples", "batch"), [(20210, 16), (2975, 8), (48, 8), (47, 8), (10, 8), (7, 8)])
@pytest.mark.parametrize("settings", [{"ratio": 0.6}, {"ratio": 0.9, "final_full": 0}, {"ratio": 0.1, "warmup": 3}])
def test_a_run_is_whole_passes_and_never_longer(
    max_iters: int, samples: int, batch: int, settings: dict[str, Any]
) -> None:
    schedule = Schedule(**settings)
    got = plan(schedule, max_iters, samples, batch)
    assert 1 <= got.iterations <= max_iters and got.full == max_iters and 0 < got.budget <= 1
    lengths = [iterations_of(schedule, p, got.passes, samples, batch) for p in range(got.passes)]
    if got.iterations < max_iters:
        assert sum(lengths) == got.iterations, "the run ends with its last pass"
    if samples > 1000 and max_iters > 60000:
        assert got.passes == passes_of(max_iters, samples, batch)
        assert got.budget == pytest.approx(schedule.budget(got.passes, samples), rel=0.01)


def test_a_run_without_selections_keeps_its_length() -> None:
    for max_iters in (6, 11, 12, 14):
        assert plan(Schedule(ratio=0.4), max_iters, 48, 8).iterations == max_iters


@pytest.mark.parametrize(("value", "number"), [(8e4, 80000), (40.0, 40), (7, 7)])
def test_floats_that_are_whole_are_integers(value: float, number: int) -> None:
    got = whole("max_iters", value)
    assert got == number and isinstance(got, int)


@pytest.mark.parametrize("value", [0, -3, 40.5, "80k", None, True, float("inf"), float("nan")])
def test_what_is_no_count_is_refused_as_it_was_written(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"train_cfg.max_iters=.*whole number"):
        whole("train_cfg.max_iters", value)


# Schedulers ---------------------------------------------------------------------------------------------------------

BY_ITERATION = {"by_epoch": False}
WARM = {"type": "LinearLR", "start_factor": 1e-3, **BY_ITERATION, "begin": 0}
SCHEDULES: dict[str, list[dict[str, Any]]] = {
    "poly": [{"type": "PolyLR", "power": 0.9, "eta_min": 1e-4, **BY_ITERATION, "begin": 0, "end": FULL}],
    "poly, floats": [{"type": "PolyLR", "power": 0.9, **BY_ITERATION, "begin": 0.0, "end": 2e2}],
    "poly, no end": [{"type": "PolyLR", "power": 0.9, **BY_ITERATION}],
    "warm-up": [{**WARM, "end": 15}, {"type": "PolyLR", **BY_ITERATION, "begin": 15, "end": FULL}],
    "short warm-up": [{**WARM, "end": 2}, {"type": "PolyLR", **BY_ITERATION, "begin": 2, "end": FULL}],
    "constant": [{"type": "ConstantLR", "factor": 0.1, **BY_ITERATION, "begin": 3, "end": 31}],
    "short constant": [{"type": "ConstantLR", "factor": 0.1, **BY_ITERATION, "begin": 3, "end": 5}],
    "exponential": [{"type": "ExponentialLR", "gamma": 0.98, **BY_ITERATION}],
    "exponential phase": [{"type": "ExponentialLR", "gamma": 0.97, **BY_ITERATION, "begin": 50, "end": 151}],
    "step": [{"type": "StepLR", "step_size": 45, **BY_ITERATION}],
    "small steps": [{"type": "StepLR", "step_size": 3, "gamma": 0.9, **BY_ITERATION, "begin": 10}],
    "milestones": [{"type": "MultiStepLR", "milestones": [61, 150, 187], **BY_ITERATION}],
    "milestones of a phase": [{"type": "MultiStepLR", "milestones": [11, 12, 99], "begin": 37, **BY_ITERATION}],
    "cosine": [{"type": "CosineAnnealingLR", "T_max": FULL, "eta_min": 1e-3, **BY_ITERATION, "end": FULL}],
    "cosine phase": [{**WARM, "end": 17}, {"type": "CosineAnnealingLR", "T_max": 183, **BY_ITERATION, "begin": 17}],
    "cosine ratio": [{"type": "CosineAnnealingLR", "eta_min_ratio": 0.1, **BY_ITERATION, "begin": 9, "end": FULL}],
    "one cycle": [{"type": "OneCycleLR", "eta_max": 0.1, "total_steps": FULL, **BY_ITERATION}],
    "one cycle, three phases": [{"type": "OneCycleLR", "eta_max": 0.1, "three_phase": True, **BY_ITERATION}],
    "restarts": [
        {
            "type": "CosineRestartLR", "periods": [51, 70, 79], "restart_weights": [1, 0.5, 0.3], "eta_min": 1e-3,
            **BY_ITERATION,
        }
    ],
    "three phases": [
        {**WARM, "end": 13},
        {"type": "CosineAnnealingLR", "eta_min": 0.02, **BY_ITERATION, "begin": 13, "end": 101},
        {"type": "PolyLR", **BY_ITERATION, "begin": 101, "end": FULL},
    ],
    "momentum": [
        {"type": "LinearMomentum", "start_factor": 0.5, **BY_ITERATION, "end": 33},
        {"type": "CosineAnnealingMomentum", "eta_min": 0.3, **BY_ITERATION, "begin": 33, "end": FULL},
    ],
    "step momentum": [{"type": "StepMomentum", "step_size": 7, "gamma": 0.9, **BY_ITERATION}],
    "epochs": [{"type": "PolyLR", "power": 0.9, "end": 8, "convert_to_iter_based": True}],
    "epochs, two phases": [
        {"type": "LinearLR", "start_factor": 0.01, "end": 1, "convert_to_iter_based": True},
        {"type": "MultiStepLR", "milestones": [3, 5], "begin": 1, "end": 8, "convert_to_iter_based": True},
    ],
    "epochs, steps": [{"type": "StepLR", "step_size": 2, "convert_to_iter_based": True}],
    "epochs, cosine": [{"type": "CosineAnnealingLR", "T_max": 8, "convert_to_iter_based": True}],
    "epochs, restarts": [
        {
            "type": "CosineRestartLR", "periods": [3, 5], "restart_weights": [1, 0.5], "eta_min": 0,
            "convert_to_iter_based": True,
        }
    ],
}  # fmt: skip


def curve(configs: list[dict[str, Any]], iterations: int) -> torch.Tensor:
    """Return (iterations, 2): learning rate and momentum in each iteration, by the host's own schedulers."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    end = {True: 8, False: iterations}  # what the Runner sets where none is given
    configs = [{"end": end[config.get("by_epoch", True)], **config} for config in configs]
    more = {"optimizer": optimizer, "epoch_length": FULL // 8}
    schedulers = [PARAM_SCHEDULERS.build(config, default_args=more) for config in configs]
    assert not any(scheduler.by_epoch for scheduler in schedulers)
    rows = []
    for _ in range(iterations):
        rows.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("iterations", [187, 131, 77, 61, 40])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_scaled_schedule_has_the_same_value_at_the_same_share_of_the_run(name: str, iterations: int) -> None:
    """Within two iterations of the shorter run, to both sides, or six where many steps are rounded."""
    configs = SCHEDULES[name]
    apart = 6 if "step_size" in configs[0] else 2
    before = [dict(config) for config in configs]
    schedulers = Schedulers(iterations / FULL, FULL // 8, 8)
    got = schedulers.scale(configs)
    assert configs == before and schedulers.left == [], "the config itself stays, and all is understood"
    whole_run, short = curve(configs, FULL), curve(got, iterations)
    for i in range(iterations):
        near = whole_run[max(0, int((i - apart) * FULL / iterations)) : int((i + apart) * FULL / iterations) + 2]
        assert (short[i] >= near.min(0).values - 0.002).all(), (i, short[i], near)
        assert (short[i] <= near.max(0).values + 0.002).all(), (i, short[i], near)


@pytest.mark.parametrize("kind", ["PolyLR", "LinearLR", "CosineAnnealingLR"])
def test_schedulers_of_epochs_stay(kind: str) -> None:
    config = {"type": kind, "begin": 1, "end": 12}
    plateau = {"type": "ReduceOnPlateauLR", "monitor": "mIoU", "rule": "greater", "patience": 3}
    assert Schedulers(0.5, 25).scale([config, plateau]) == [config, plateau]


def test_schedulers_of_several_optimizers_and_a_single_one() -> None:
    config = {"type": "LinearLR", **BY_ITERATION, "begin": 0, "end": 1500}
    schedulers = Schedulers(0.5)
    assert schedulers.scale(config)["end"] == 750
    got = schedulers.scale({"one": [config], "two": config})
    assert got["one"][0]["end"] == got["two"]["end"] == 750
    assert schedulers.scale(None) is None


def test_phases_that_meet_go_on_meeting_and_none_gets_lost() -> None:
    ends = [0, 1, 3, 6, 7, 100, 101, FULL]
    phases = [{"type": "PolyLR", **BY_ITERATION, "begin": a, "end": b} for a, b in itertools.pairwise(ends)]
    for share in (0.95, 0.5, 0.11):
        got = Schedulers(share).scale(phases)
        assert all(a["end"] == b["begin"] for a, b in itertools.pairwise(got))
        assert all(phase["end"] > phase["begin"] for phase in got)
        assert got[-1]["end"] == round(FULL * share)


def test_an_end_before_the_begin_is_refused_in_the_users_numbers() -> None:
    with pytest.raises(ConfigError, match="PolyLR begins at 150 and ends at 150"):
        Schedulers(0.5).scale([{"type": "PolyLR", **BY_ITERATION, "begin": 150, "end": 150}])


@PARAM_SCHEDULERS.register_module(force=True)
class PlateauLR:
    """A user's own scheduler; only its name and arguments matter here."""


def test_a_schedulers_unknown_counts_are_named() -> None:
    schedulers = Schedulers(0.5)
    own = {"type": "PlateauLR", **BY_ITERATION, "begin": 0, "end": 100, "hold_iters": 40, "factor": 3}
    assert schedulers.scale([own, {"type": PlateauLR, "hold_epochs": 4}])[0]["end"] == 50
    assert schedulers.left == ["param_scheduler: PlateauLR.hold_iters=40 [20]"]
    built = PARAM_SCHEDULERS.build(
        SCHEDULES["poly"][0], default_args={"optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)}
    )
    assert schedulers.scale([built]) == [built]
    assert "PolyLR, which is built already" in schedulers.left[-1]


# Hooks --------------------------------------------------------------------------------------------------------------


@HOOKS.register_module(force=True)
class Unfreeze(Hook):
    """A user's own hook that counts iterations."""

    def __init__(self, start_iter: int = 20, interval: int = 8, by_epoch: bool = False, width: int = 7):
        self.start_iter, self.interval, self.by_epoch, self.width = start_iter, interval, by_epoch, width
        self._warmup_iters = [4, 10]


@MODELS.register_module(force=True)
class ExpMomentumEMA(ExponentialMovingAverage):
    """mmdet's, as far as its arguments go."""

    def __init__(self, model: Any, momentum: float = 0.0002, gamma: int = 2000, interval: int = 1):
        super().__init__(model, momentum, interval)
        self.gamma = gamma


@MODELS.register_module(force=True)
class OwnAverage(BaseAveragedModel):
    """A user's own average."""

    def __init__(self, model: Any, gamma: int = 50):
        super().__init__(model)


HOOK_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "checkpoints": (
        {"type": "CheckpointHook", "by_epoch": False, "interval": 25, "save_begin": 50},
        {"interval": 11, "save_begin": 20},
    ),
    "checkpoints, floats": (
        {"type": CheckpointHook, "by_epoch": False, "interval": 2.5e1, "save_begin": 50.0},
        {"interval": 11, "save_begin": 20},
    ),
    "checkpoints of epochs": (
        {"type": "CheckpointHook", "by_epoch": True, "interval": 25, "save_begin": 50},
        {"interval": 25, "save_begin": 50},
    ),
    "no checkpoints": ({"type": "CheckpointHook", "by_epoch": False, "interval": -1}, {"interval": -1}),
    "logger": ({"type": "LoggerHook", "interval": 50}, {"interval": 50}),
    "average": ({"type": "EMAHook", "begin_iter": 100, "momentum": 0.01}, {"begin_iter": 41, "momentum": 0.024215}),
    "average, default": ({"type": EMAHook}, {"momentum": 0.0004877}),
    "average of epochs": (
        {"type": "EMAHook", "begin_epoch": 3, "momentum": 0.01},
        {"begin_epoch": 3, "momentum": 0.024215},
    ),
    "average, interval": (
        {"type": "EMAHook", "interval": 100, "momentum": 0.01},
        {"interval": 41, "momentum": 0.01},
    ),
    "annealed average": (
        {"type": "EMAHook", "ema_type": "MomentumAnnealingEMA", "gamma": 100, "momentum": 0.01},
        {"gamma": 100, "momentum": 0.024215},
    ),
    "average of mmdet": (
        {"type": "EMAHook", "ema_type": "ExpMomentumEMA", "gamma": 100, "momentum": 0.01},
        {"gamma": 41, "momentum": 0.024215},
    ),
    "mean of weights": (
        {"type": "EMAHook", "ema_type": "StochasticWeightAverage", "interval": 100},
        {"interval": 41},
    ),
}


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("name", HOOK_CASES)
def test_hooks_follow(name: str, built: bool) -> None:
    """As a config, for the comparison, and built, as the loop finds them."""
    given, expected = HOOK_CASES[name]
    recipe = Recipe(0.41, FULL)
    if built:
        hook = HOOKS.build(dict(given))
        recipe.hook(type(hook), vars(hook))
        values = {**vars(hook), **vars(hook).get("ema_cfg", {})}
    else:
        values = dict(given)
        recipe.hook(given["type"] if isinstance(given["type"], type) else HOOKS.get(given["type"]), values)
    assert {key: values[key] for key in expected} == pytest.approx(expected, rel=1e-3)
    assert recipe.warning() == ""


def test_an_average_looks_back_on_the_same_share_of_the_run() -> None:
    """What is left of the first weights, after the same share."""
    values: dict[str, Any] = {"momentum": 0.01}
    Recipe(0.41, FULL).hook(EMAHook, values)
    assert (1 - values["momentum"]) ** 82 == pytest.approx(0.99**FULL)


def test_an_average_that_begins_after_the_end_is_refused_in_the_users_numbers() -> None:
    with pytest.raises(ConfigError, match=r"EMAHook.begin_iter=201, and the recipe has 200"):
        Recipe(0.41, FULL).hook(EMAHook, {"begin_iter": 201})


def test_unknown_counts_of_hooks_are_named_in_one_line() -> None:
    recipe = Recipe(0.41, FULL)
    hooks = [Unfreeze(), EMAHook(ema_type="OwnAverage"), LoggerHook(interval=5), Unfreeze(0, 8, by_epoch=True)]
    for hook in hooks:
        recipe.hook(type(hook), vars(hook))
    text = recipe.warning()
    assert text.startswith(
        "custom_hooks: Unfreeze.start_iter=20 [8], custom_hooks: Unfreeze.interval=8 [3], "
        "custom_hooks: Unfreeze.warmup_iters=[4, 10] [2, 4], custom_hooks: EMAHook.gamma=50 of OwnAverage [20], "
        "custom_hooks: Unfreeze.warmup_iters=[4, 10] [2, 4]: "
    )
    assert "\n" not in text and "200 iterations of the recipe become 82" in text
    assert hooks[0].start_iter == 20


# Whole configs ------------------------------------------------------------------------------------------------------


def test_a_whole_config_is_scaled_as_the_loop_does_it() -> None:
    config = ConfigDict(
        train_cfg={
            "type": "AgentIterLoop",
            "max_iters": 2e2,
            "val_interval": 50.0,
            "val_begin": 100,
            "dynamic_intervals": [(150, 10)],
        },
        param_scheduler=SCHEDULES["warm-up"],
        default_hooks={"checkpoint": HOOK_CASES["checkpoints"][0], "logger": {"type": "LoggerHook"}, "timer": None},
        custom_hooks=[
            {"type": "AgentHook"},
            {"type": "EMAHook", "begin_iter": 100},
            {"type": "Unfreeze", "at_iter": 9},
        ],
    )
    text = shorten(config, 82)
    assert config.train_cfg == {
        "type": "AgentIterLoop", "max_iters": 82, "val_interval": 21, "val_begin": 41, "dynamic_intervals": [(62, 5)],
    }  # fmt: skip
    assert config.param_scheduler[0]["end"] == config.param_scheduler[1]["begin"] == 6
    assert config.default_hooks.checkpoint.interval == 11 and config.default_hooks.checkpoint.save_begin == 20
    assert config.custom_hooks[1].begin_iter == 41 and "Unfreeze.at_iter=9 [4]" in text
    same = config.copy()
    assert shorten(config, 82) == "" and config == same
