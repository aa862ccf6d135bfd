"""Segmentation under faults: kills, broken files, other data and models, NaN, Ctrl-C, many passes."""

import gc
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kill_seg
import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from same import equal
from seg_runs import CONFIG, EPOCHS, config_of, fit

from det_seg_agent import ConfigError, SelectionSampler, StateError
from det_seg_agent.reporting.trace import read
from det_seg_agent.seg.checkpoints import WholeFiles
from det_seg_agent.seg.cli import main

pytestmark = pytest.mark.slow  # it trains

RUN = {
    **kill_seg.OPTIONS, "train_cfg.max_iters": 30, "default_hooks.checkpoint.max_keep_ckpts": 3,
    "param_scheduler": [{"type": "PolyLR", "power": 0.9, "by_epoch": False, "begin": 0, "end": 30}],
}  # fmt: skip
# Moments of kill_seg, and how often each comes at most before the run is killed there.
MOMENTS = {"step": 6, "checkpoint": 2, "replace": 2, "replaced": 2, "trace": 2, "note": 2, "remove": 2}


def hook_of(runner: Any) -> Any:
    """Return our hook."""
    return next(hook for hook in runner.hooks if type(hook).__name__ == "AgentHook")


def log_of(folder: Path) -> str:
    """Return what the host logged in the last run."""
    return max(folder.glob("*/*.log"), key=lambda path: path.stat().st_mtime_ns).read_text()


# Kills --------------------------------------------------------------------------------------------------------------


def test_ten_kills_leave_the_run_as_it_would_have_been(scenes: Path, tmp_path: Path) -> None:
    """Ten moments drawn at random, one after another in one run that is resumed each time.

    Weights, policy, table, selections and trace are at the end those of the run that was not killed.
    """
    draw = random.Random(0)
    kinds = [*MOMENTS, *draw.sample(list(MOMENTS), 3)]
    draw.shuffle(kinds)
    moments = [f"{kind}:{draw.randint(1, MOMENTS[kind])}" for kind in kinds]
    done = subprocess.run(
        [sys.executable, kill_seg.__file__, str(scenes), str(tmp_path), *moments],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, *ends, last = json.loads((tmp_path / "ends.json").read_text())
    assert first == last == 0 and len(ends) == 10, done.stderr[-3000:]
    assert [os.WIFSIGNALED(end) and os.WTERMSIG(end) for end in ends] == [signal.SIGKILL] * 10, (moments, ends)
    name = Path((tmp_path / "whole/last_checkpoint").read_text()).name
    whole, again = (torch.load(tmp_path / run / name, weights_only=True) for run in ("whole", "killed"))
    assert equal(whole["state_dict"], again["state_dict"])
    assert equal(whole["det_seg_agent"], again["det_seg_agent"])
    one, other = read(tmp_path / "whole/trace"), read(tmp_path / "killed/trace")
    assert one is not None and len(one) == 10 * 48 and one.equals(other)
    assert not list((tmp_path / "killed").rglob("*.part"))
    assert [path.name for path in (tmp_path / "killed").glob("iter_*.pth")] == [name]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """A write that fails leaves no half file, and what was to be removed stays until a write succeeds."""
    files = WholeFiles()
    files.put(b"old", tmp_path / "iter_1.pth")
    files.remove(tmp_path / "iter_1.pth")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    stock = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            files.put(b"x" * 5000, tmp_path / "iter_2.pth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, stock)
    assert [path.name for path in tmp_path.iterdir()] == ["iter_1.pth"]
    files.put(b"new", tmp_path / "iter_2.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["iter_2.pth"]


# Resuming -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped at its 14th iteration of 21, in its fourth pass, with checkpoints at 4, 8 and 12."""
    folder = tmp_path_factory.mktemp("stopped")
    fit(config_of(scenes, folder, **RUN), 14)
    assert {path.name for path in folder.glob("*.pth")} == {"iter_4.pth", "iter_8.pth", "iter_12.pth"}
    return folder


@pytest.fixture
def cut(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it; `last_checkpoint` names the copy's."""
    folder = tmp_path / "cut"
    shutil.copytree(stopped, folder)
    (folder / "last_checkpoint").write_text(str(folder / "iter_12.pth"))
    return folder


def truncate(path: Path) -> None:
    """Cut a file in half."""
    os.truncate(path, path.stat().st_size // 2)


def empty_note(folder: Path) -> None:
    """Leave `last_checkpoint` empty."""
    (folder / "last_checkpoint").write_text("")


@pytest.mark.parametrize(
    ("damage", "goes_on"),
    [
        (lambda folder: truncate(folder / "iter_12.pth"), 8),
        (lambda folder: (folder / "iter_12.pth").unlink(), 8),
        (empty_note, 12),
        (lambda folder: (folder / "last_checkpoint").unlink(), 12),
    ],
    ids=["cut short", "gone", "empty note", "no note"],
)
def test_a_run_goes_on_from_the_newest_checkpoint_that_is_whole(
    scenes: Path, cut: Path, damage: Callable[[Path], Any], goes_on: int
) -> None:
    damage(cut)
    config = config_of(scenes, cut, **RUN, resume=True)
    config.log_level = "WARNING"
    _, notes = fit(config, goes_on + 1)
    assert len(notes.stream) == 1, "one iteration up to the stop"
    assert f"goes on from {cut / f'iter_{goes_on}.pth'}" in log_of(cut)
    assert (cut / "last_checkpoint").read_text() == str(cut / f"iter_{goes_on}.pth")


def test_without_a_whole_checkpoint_the_file_is_named(scenes: Path, cut: Path) -> None:
    for path in cut.glob("*.pth"):
        truncate(path)
    with pytest.raises(StateError, match=r"iter_12.pth, which is cut short, and no other checkpoint"):
        fit(config_of(scenes, cut, **RUN, resume=True))
    with pytest.raises(StateError, match=r"load_from=.*iter_8.pth: the checkpoint is cut short"):
        fit(config_of(scenes, cut, **RUN, resume=True, load_from=str(cut / "iter_8.pth")))


def names_of(scenes: Path, folder: Path, change: Callable[[list[str]], list[str]]) -> dict[str, Any]:
    """Return options for a training set of the scenes' images, listed in a file and changed."""
    names = change(sorted(path.stem for path in (scenes / "train").glob("*.jpg")))
    path = folder / "names.txt"
    path.write_text("\n".join(names))
    return {"train_dataloader__dataset__ann_file": str(path)}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda names: names[1:], "1 removed"),
        (lambda names: [*names[:-1], "000000000001"], "holds .* more than once"),
        (lambda names: names[::-1], "in another order"),
    ],
    ids=["removed", "twice", "reordered"],
)
def test_another_data_set_does_not_resume(
    scenes: Path, cut: Path, change: Callable[[list[str]], list[str]], what: str
) -> None:
    with pytest.raises((ConfigError, StateError), match=what):
        fit(config_of(scenes, cut, **RUN, resume=True, **names_of(scenes, cut, change)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"agent__strategy": "random"}, "agent.strategy='agent'"),
        ({"agent__options": {"hidden": 32}}, "agent.options"),
        ({"model.backbone.base_channels": 16}, "another model"),
        ({"model.decode_head.channels": 16}, r"decode_head\S* \(8, .*\) -> \(16, "),
        ({"train_dataloader.batch_size": 4}, "batch=8, this one has batch=4"),
    ],
)
def test_another_run_does_not_resume(scenes: Path, cut: Path, more: dict[str, Any], message: str) -> None:
    options = {**RUN, **more}
    if "model.backbone.base_channels" in more:
        options |= {"model.backbone.stem_channels": 16, "model.decode_head.in_channels": [16, 32, 64, 128]}
        options |= {"model.auxiliary_head.in_channels": 64}
    before = {path.name: path.read_bytes() for path in (cut / "trace").iterdir()}
    with pytest.raises((ConfigError, StateError), match=message):
        fit(config_of(scenes, cut, **options, resume=True))
    assert {path.name for path in cut.glob("*.pth")} == {"iter_4.pth", "iter_8.pth", "iter_12.pth"}
    assert {path.name: path.read_bytes() for path in (cut / "trace").iterdir()} == before


def test_another_length_of_the_run_is_told(scenes: Path, cut: Path) -> None:
    config = config_of(scenes, cut, **{**RUN, "train_cfg.max_iters": 60}, resume=True)
    config.log_level = "WARNING"
    fit(config, 13)
    assert "started with 5 passes and has 10 now" in log_of(cut)


# While training -----------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_told_and_dropped(scenes: Path, tmp_path: Path) -> None:
    """The host trains on with NaN; passes without any signal leave the table as it was."""
    config = config_of(scenes, tmp_path, **RUN, **{"optim_wrapper.optimizer.lr": 1e30})
    config.log_level = "WARNING"
    runner, notes = fit(config)
    assert len(notes.stream) == 21
    history = hook_of(runner).selector.history
    assert [row["dropped"] for row in history[1:]] == [24, 24, 24, 48] and history[0]["dropped"] >= 32
    assert [row["selected"] for row in history] == [48, 19, 19, 19, 48]
    table = hook_of(runner).selector.table
    assert int((table.seen > 0).sum()) == 48 - history[0]["dropped"]
    assert log_of(tmp_path).count("no image gave a finite loss") == 4


@pytest.mark.parametrize(
    ("loop", "workers", "part"),
    [("iterations", 2, "train"), ("epochs", 0, "masks/train")],
)
def test_a_file_that_cannot_be_decoded_is_named(
    scenes: Path, tmp_path: Path, loop: str, workers: int, part: str
) -> None:
    """In the last batch of the first pass; once the file is whole again the run goes on."""
    data, work = tmp_path / "data", tmp_path / "work"
    shutil.copytree(scenes, data)
    options = {**(RUN if loop == "iterations" else {**EPOCHS, "train_cfg.max_epochs": 2}), "agent__ratio": 0.4}
    options["train_dataloader.num_workers"] = workers
    options["train_dataloader.persistent_workers"] = workers > 0
    broken = sorted((data / part).iterdir())[list(SelectionSampler(48, seed=0, batch=8))[-1]]
    whole = broken.read_bytes()
    broken.write_bytes(b"not an image")
    with pytest.raises(ConfigError, match=rf"{broken.name}.* cannot be loaded"):
        fit(config_of(data, work, **options))
    broken.write_bytes(whole)
    _, notes = fit(config_of(data, work, **options, resume=True), 8)
    assert len(notes.stream) == (4 if loop == "iterations" else 8), "from the checkpoint of iteration 4, or anew"


def test_where_the_host_shows_another_image_that_one_is_credited(scenes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    missing = sorted((data / "train").iterdir())[7]
    missing.unlink()
    config = config_of(data, tmp_path / "work", **RUN, **names_of(scenes, tmp_path, list))
    config.train_dataloader.dataset.pipeline[0].ignore_empty = True
    runner, notes = fit(config)
    table = hook_of(runner).selector.table
    assert int(table.seen[7]) == 0 and bool(table.loss[7].isnan())
    assert int((table.seen > 0).sum()) == 47 and len(notes.stream) == 21


@HOOKS.register_module(force=True)
class Interrupt(Hook):
    """Ctrl-C before an iteration."""

    def __init__(self, at: int):
        self.at = at

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_says_how_to_go_on(scenes: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "config.py"
    path.write_text(
        f"_base_ = {str(CONFIG)!r}\n"
        "custom_hooks = [dict(type='AgentHook'), dict(type='Interrupt', at=4)]\n"
        "default_hooks = dict(checkpoint=dict(interval=4))\n"
    )
    settings = {f"{name}_dataloader.dataset.data_root": scenes for name in ("train", "val", "test")}
    settings |= {"train_cfg.max_iters": 12, "train_cfg.val_interval": 12, "experiment_name": "stop"}
    settings |= {"visualizer.name": "stop", "log_level": "ERROR", "agent.final_full": 0}
    words = ["--work-dir", str(tmp_path / "work"), "--cfg-options", *(f"{key}={v}" for key, v in settings.items())]
    assert main([str(path), *words]) == 130
    assert "--resume goes on from the latest checkpoint" in capsys.readouterr().err
    assert main([str(CONFIG), "--resume", *words]) == 0
    trace = read(tmp_path / "work/trace")
    assert trace is not None and len(trace) == 2 * 48


@HOOKS.register_module(force=True)
class Gauge(Hook):
    """Notes open files and live tensors at each pass's end."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []

    def after_train_epoch(self, runner: Any) -> None:
        gc.collect()
        tensors = sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())
        self.rows.append((len(os.listdir("/proc/self/fd")), tensors))


def test_files_and_memory_stay_flat_over_many_passes(scenes: Path, tmp_path: Path) -> None:
    """Fourteen passes with a checkpoint each: no open file or tensor more at the end than early on."""
    passes = 14
    options = {
        **EPOCHS, "train_cfg.max_epochs": passes, "train_cfg.val_interval": 100, "agent__ratio": 0.2,
        "default_hooks.checkpoint.max_keep_ckpts": 1, "agent__final_full": 0.08,
    }  # fmt: skip
    config = config_of(scenes, tmp_path, **options)
    config.custom_hooks = [*config.custom_hooks, {"type": "Gauge"}]
    runner, _ = fit(config)
    rows = next(hook for hook in runner.hooks if isinstance(hook, Gauge)).rows
    files, tensors = zip(*rows[4:-1], strict=True)  # the first passes fill what is kept, the last is full
    assert len(rows) == passes and len(set(files)) == 1
    assert max(tensors) - min(tensors[:3]) <= 4, tensors


def test_one_checkpoint_hook_of_the_users_own_backend_is_left_alone(scenes: Path, tmp_path: Path) -> None:
    config = config_of(scenes, tmp_path, **RUN, **{"default_hooks.checkpoint.backend_args": {"backend": "local"}})
    runner, _ = fit(config, 2)
    [hook] = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    assert hook.backend_args == {"backend": "local"}
