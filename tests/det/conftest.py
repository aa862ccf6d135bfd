"""What many tests of detection train on."""

import pytest
from det_runs import write_model
from loop_runs import IMAGES

from det_seg_agent.det.coco_convert import prepare_data
from det_seg_agent.scenes import write_scenes


@pytest.fixture(scope="module")
def model_yaml(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny YOLOv8."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """21 + 4 square scenes."""
    return prepare_data(write_scenes(tmp_path_factory.mktemp("square") / "scenes", IMAGES, 4, 64))
