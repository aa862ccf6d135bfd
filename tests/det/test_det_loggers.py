"""What the loggers of Ultralytics and its log get of a run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from det_runs import TINY, fit

from det_seg_agent.det.trainer import AgentDetectionTrainer

pytestmark = [pytest.mark.slow, pytest.mark.draws]  # it trains

PICTURES = {"agent.png", "classes.png", "most_selected.jpg", "least_selected.jpg"}


def command(words: list[str], folder: Path, before: str = "", **env: str) -> str:
    """Train by the command line in a process that the host does not take for a test; return what it prints."""
    kept = {key: value for key, value in os.environ.items() if "PYTEST" not in key}
    kept |= {"YOLO_CONFIG_DIR": str(folder / "settings"), **env}
    code = f"import sys; {before}\nfrom det_seg_agent.det.cli import main; sys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def words_of(model_yaml: str, data: str | Path, folder: Path) -> list[str]:
    given = {**TINY, "model": model_yaml, "data": data, "epochs": 2, "project": folder, "name": "run"}
    return [f"{key}={value}" for key, value in given.items()]


@pytest.fixture(scope="module")
def logged(model_yaml: str, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a training with TensorBoard on and the host's log in `run.log`, and what it prints.

    The host reads its settings once, on import: another process.
    """
    folder = tmp_path_factory.mktemp("logged")
    before = (
        "import logging; from ultralytics import settings; from ultralytics.utils import LOGGER; "
        f"settings.update({{'tensorboard': True}}); LOGGER.addHandler(logging.FileHandler({str(folder / 'run.log')!r}))"
    )
    return folder, command(words_of(model_yaml, scenes, folder), folder, before)


def test_scalars_and_pictures_reach_tensorboard_where_it_is_on(logged: tuple[Path, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logged[0] / "run"))
    events.Reload()
    assert [event.value for event in events.Scalars("agent/images")] == [48, 96]
    assert set(events.Tags()["images"]) == PICTURES
    [plot] = events.Images("agent.png")
    assert (plot.step, plot.width) == (2, 1210)


def test_pictures_are_plots_before_the_hosts_loggers_end(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    """W&B, ClearML and DVC log the trainer's plots then, and MLflow the folder; their callbacks are the first."""
    seen: list[tuple[str, set[str], set[str]]] = []

    class Logged(AgentDetectionTrainer):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            for event in ("on_fit_epoch_end", "on_train_end"):
                self.callbacks[event].insert(0, lambda trainer, event=event: self.note(event))

        def note(self, event: str) -> None:
            plots = {path.name for path in self.plots if path.is_file()}
            seen.append((event, plots & PICTURES, {path.name for path in self.save_dir.iterdir()} & PICTURES))

    fit(model_yaml, data_yaml, tmp_path, "run", Logged.configured(ratio=0.5), epochs=2)
    assert seen == [
        ("on_fit_epoch_end", set(), set()),
        ("on_fit_epoch_end", set(), set()),
        ("on_fit_epoch_end", PICTURES, PICTURES),  # after the final validation
        ("on_train_end", PICTURES, PICTURES),
    ]


def test_the_level_of_the_host_counts(model_yaml: str, scenes: Path, tmp_path: Path) -> None:
    said = command(words_of(model_yaml, scenes, tmp_path), tmp_path, YOLO_VERBOSE="false")
    assert not any(text in said for text in ("saves", "pass 1:", "AR_100", "trained on")), said[-2000:]


def test_a_log_file_of_the_host_has_all_of_it_once(logged: tuple[Path, str]) -> None:
    folder, said = logged
    for text in (said, (folder / "run.log").read_text()):
        for part in ("objects in 48 images", "strategy  agent", "pass 1:", "pass 2:", "AR_100", "padding included);"):
            assert text.count(part) == 1, part
