"""What the visualizer's backends get of a run."""

from pathlib import Path
from typing import Any

from seg_runs import ITERS, config_of, fit  # first: it prepares the host

# isort: split
import numpy as np
import pytest
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend

pytestmark = [pytest.mark.slow, pytest.mark.draws]  # it trains

PICTURES = {"agent.png", "classes.png", "most_selected.jpg", "least_selected.jpg"}


@VISBACKENDS.register_module(force=True)
class Refusing(LocalVisBackend):
    """A backend whose server is away when the pictures come."""

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        raise ConnectionError("no route to host")


def run_of(scenes: Path, folder: Path, *kinds: Any, iterations: int = 12) -> Path:
    """Train with backends; return the folder of what they write."""
    options = {**ITERS, "train_cfg.max_iters": iterations, "agent__ratio": 0.4}
    fit(config_of(scenes, folder, **options, visualizer__vis_backends=[{"type": kind} for kind in kinds]))
    [found] = folder.glob("*/vis_data")
    return found


def test_scalars_and_pictures_reach_tensorboard(scenes: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = run_of(scenes, tmp_path, "LocalVisBackend", "TensorboardVisBackend", iterations=48)
    events = EventAccumulator(str(written))
    events.Reload()
    assert len(events.Scalars("agent/images")) >= 8 and set(events.Tags()["images"]) == PICTURES
    [plot] = events.Images("agent.png")
    assert plot.width == 1210 and plot.step == max(event.step for event in events.Scalars("agent/images"))


@pytest.mark.parametrize("kind", ["LocalVisBackend", "mmengine.visualization.LocalVisBackend", LocalVisBackend])
def test_pictures_are_not_copied_within_the_work_dir(scenes: Path, tmp_path: Path, kind: Any) -> None:
    assert not (run_of(scenes, tmp_path, kind) / "vis_image").exists()
    assert {path.name for path in tmp_path.iterdir()} >= PICTURES


def test_a_logger_that_fails_costs_its_pictures_and_not_the_run(scenes: Path, tmp_path: Path, messages: Any) -> None:
    run_of(scenes, tmp_path, "Refusing")
    assert "the pictures for the loggers cannot be written (no route to host)" in messages.getvalue()
    assert (tmp_path / "metrics.json").is_file()
