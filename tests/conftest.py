"""The real toolbox, isolated and offline."""

import gc
import io
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it

from pathlib import Path

import pytest

from det_seg_agent.scenes import write_scenes


def pytest_collection_finish() -> None:
    """Take what the imports made out of the garbage collector, which the hosts call for every data set and run."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Give it back, as some packages tell what is left at the exit."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def drawing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trainings draw their plots and their page where a test looks at them and is marked `draws`."""
    if request.node.get_closest_marker("draws") or not request.node.get_closest_marker("slow"):
        yield
    else:
        from undrawn import undrawn

        with undrawn():
            yield


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 48 + 8 scenes of 64 px."""
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", 48, 8, 64)


@pytest.fixture(scope="session")
def data_yaml(scenes: Path) -> str:
    """The scenes, converted for the host."""
    from det_seg_agent.det.coco_convert import prepare_data

    return prepare_data(scenes)


@pytest.fixture
def messages() -> Iterator[io.StringIO]:
    """What the package's logger says, whatever it is connected to."""
    logger, handler = logging.getLogger("det_seg_agent"), logging.StreamHandler(io.StringIO())
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler.stream
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What Ultralytics' logger says."""
    handler = logging.StreamHandler(io.StringIO())
    logging.getLogger("ultralytics").addHandler(handler)
    yield handler.stream
    logging.getLogger("ultralytics").removeHandler(handler)
