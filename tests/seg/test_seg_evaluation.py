"""A trained segmenter is evaluated with its own config, as any other: by the Runner and by mmseg's own script."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from seg_runs import CONFIG, EPOCHS, ITERS, config_of, fit, same_weights

from det_seg_agent.seg import cli

pytestmark = pytest.mark.slow  # it trains

SHORT = {**ITERS, "train_cfg.max_iters": 24, "agent__ratio": 0.5}


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Runner]:
    """A run that the command line has finished, in its work dir."""
    folder = tmp_path_factory.mktemp("finished")
    settings = {f"{name}_dataloader.dataset.data_root": scenes for name in ("train", "val", "test")}
    settings |= {"train_cfg.max_iters": 24, "train_cfg.val_interval": 12, "param_scheduler.0.end": 24}
    settings |= {"agent.ratio": 0.5, "experiment_name": "finished", "visualizer.name": "finished"}
    words = [f"{key}={value}" for key, value in settings.items()]
    parser = cli.arguments_parser()
    return folder, cli.train(parser.parse_args([str(CONFIG), "--work-dir", str(folder), "--cfg-options", *words]))


def figures_of(runner: Runner) -> float:
    """Return the mIoU that a Runner's test gives, without training data."""
    return float(runner.test()["mIoU"])


@pytest.mark.parametrize("how", ["test", "val"])
def test_a_runner_evaluates_with_the_training_config(how: str, scenes: Path, tmp_path: Path) -> None:
    """Before anything is trained, in an empty work dir, and where the training data are not there."""
    config = config_of(scenes, tmp_path, **SHORT)
    config.train_dataloader.dataset.data_root = str(tmp_path / "nothing")
    runner = Runner.from_cfg(config)
    metrics = getattr(runner, how)()
    assert 0 <= metrics["mIoU"] <= 100
    assert not (tmp_path / "trace").exists() and not (tmp_path / "metrics.json").exists()


def test_a_finished_run_is_tested_in_its_own_work_dir(finished: tuple[Path, Runner]) -> None:
    folder, trained = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".pth", ".parquet")}
    written = (folder / "metrics.json").read_text()
    config = Config.fromfile(next(folder.glob("*.py")))
    config.load_from = (folder / "last_checkpoint").read_text()
    config.experiment_name = config.visualizer.name = "tested_again"
    runner = Runner.from_cfg(config)
    assert figures_of(runner) == pytest.approx(json.loads(written)["iou"]["mIoU"], abs=0.01)
    assert same_weights(runner, trained)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (folder / "metrics.json").read_text() == written


def test_the_runner_that_trained_tests_too(scenes: Path, tmp_path: Path) -> None:
    runner, _ = fit(config_of(scenes, tmp_path, **SHORT))
    written = (tmp_path / "metrics.json").read_text()
    assert 0 <= figures_of(runner) <= 100
    assert (tmp_path / "metrics.json").read_text() == written


def test_mmsegs_own_script_tests_the_dumped_config(finished: tuple[Path, Runner]) -> None:
    """`tools/test.py CONFIG CHECKPOINT`, with the config that the run left, in the same work dir."""
    folder, _ = finished
    spec = importlib.util.find_spec("mmseg")
    assert spec is not None and spec.origin is not None
    script = Path(spec.origin).parent / ".mim/tools/test.py"
    config = next(folder.glob("*.py"))
    checkpoint = (folder / "last_checkpoint").read_text()
    words = [sys.executable, str(script), str(config), checkpoint, "--work-dir", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(path.read_text()) for path in folder.glob("*/*.json") if "mIoU" in path.read_text()]
    assert any("mIoU" in result for result in results)


# Hooks of the host beside ours ----------------------------------------------------------------------------------------


def averaged(scenes: Path, folder: Path, **more: Any) -> Config:
    """Return a config with a moving average of the weights and a best checkpoint."""
    config = config_of(scenes, folder, **{**ITERS, "agent__ratio": 0.5, **more})
    config.custom_hooks = [*config.custom_hooks, {"type": "EMAHook", "begin_iter": 4, "momentum": 0.05}]
    config.default_hooks.checkpoint.update(save_best="mIoU", rule="greater")
    return config


def test_a_moving_average_and_the_best_checkpoint_go_on_exactly(scenes: Path, tmp_path: Path) -> None:
    whole, _ = fit(averaged(scenes, tmp_path / "whole"))
    fit(averaged(scenes, tmp_path / "cut"), stop=17)
    again, _ = fit(averaged(scenes, tmp_path / "cut", resume=True))
    assert same_weights(whole, again)
    averages = [next(hook for hook in r.hooks if type(hook).__name__ == "EMAHook").ema_model for r in (whole, again)]
    one, other = (average.state_dict() for average in averages)
    assert all(torch.equal(one[key], other[key]) for key in one) and int(one["steps"]) > 0
    assert list((tmp_path / "whole").glob("best_mIoU_*.pth"))
    result = json.loads((tmp_path / "whole/metrics.json").read_text())
    assert set(result["iou"]) >= {"mIoU", "mAcc", "aAcc"}


def test_accumulated_gradients_see_the_same_passes(scenes: Path, tmp_path: Path) -> None:
    more = {"optim_wrapper.accumulative_counts": 3}
    runner, notes = fit(config_of(scenes, tmp_path, **{**SHORT, **more}))
    plain, plain_notes = fit(config_of(scenes, tmp_path / "plain", **SHORT))
    assert len(notes.stream) == len(plain_notes.stream) and notes.stream[0] == plain_notes.stream[0]
    assert not same_weights(runner, plain)
    steps = [len(r.optim_wrapper.optimizer.state) for r in (runner, plain)]
    assert steps[0] == steps[1] > 0


def test_deterministic_runs_are_alike(scenes: Path, tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        config = config_of(scenes, tmp_path / name, **SHORT)
        config.randomness = {"seed": 3, "deterministic": True}
        try:
            runs.append(fit(config)[0])
        finally:
            torch.use_deterministic_algorithms(False)
    assert same_weights(*runs)


def test_dynamic_intervals_follow_the_budget(scenes: Path, tmp_path: Path) -> None:
    config = config_of(scenes, tmp_path, **{**ITERS, "agent__ratio": 0.5})
    config.train_cfg.update(val_interval=40, dynamic_intervals=[(24, 8)])
    runner, notes = fit(config)
    total = runner.train_loop.max_iters
    share = total / 48
    later = [at for at in notes.validated if at > 24 * share]
    assert total < 48 and later, "validations become more frequent in the second half of the shorter run"
    assert all(b - a <= 8 for a, b in itertools.pairwise(later))


@pytest.mark.parametrize("loop", [ITERS, EPOCHS], ids=["iterations", "epochs"])
def test_figures_of_every_pass_reach_the_loggers(scenes: Path, tmp_path: Path, loop: dict[str, Any]) -> None:
    """Once a pass, the last one too, and no column that the strategy has not."""
    runner, _ = fit(config_of(scenes, tmp_path, **{**loop, "agent__ratio": 0.5, "agent__strategy": "random"}))
    rows = [json.loads(line) for path in tmp_path.glob("*/vis_data/*.json") for line in path.read_text().splitlines()]
    rows = [row for row in rows if "agent/images" in row]
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "AgentHook")
    history = hook.selector.history
    seen = list(dict.fromkeys(row["agent/images"] for row in rows))
    assert seen == [row["images"] for row in history]
    assert all("agent/balance" not in row and "agent/reward" not in row for row in rows)
