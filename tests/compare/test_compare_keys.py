"""Comparisons: when a finished cell is another one, an older one, or still the same."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from compare_runs import write, write_segmentation
from ultralytics import YOLO

from det_seg_agent.compare import fingerprint
from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.cli import listed
from det_seg_agent.compare.detection import Detection
from det_seg_agent.compare.fingerprint import portable, sources
from det_seg_agent.compare.matrix import read
from det_seg_agent.compare.pool import Runner
from det_seg_agent.compare.segmentation import Segmentation
from det_seg_agent.compare.store import Store
from det_seg_agent.det.coco_convert import prepare_data
from det_seg_agent.scenes import write_scenes
from det_seg_agent.strategies import base


def resolved(path: Path, data: str, **host: Any) -> dict[str, str]:
    """Return what the settings of a YAML stand for, with other ones of the host."""
    cell = read(path, data)[1][0]
    cell = replace(cell, host={**cell.host, **host})
    place = path.parent / "prepare"
    adapter = Detection(cell, place) if cell.task == "detection" else Segmentation(cell, place)
    return adapter.prepare()


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Change a text file, which must be changed by it."""
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


@pytest.fixture
def detection(tmp_path: Path) -> tuple[Path, Path]:
    """Return the YAML of a comparison and that of its data, which lie apart."""
    data = Path(prepare_data(write_scenes(tmp_path / "scenes", 8, 4, 64)))
    (tmp_path / "settings").mkdir()
    return write(tmp_path / "settings/c.yaml", data=None, scenes={}), data


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the parts that differ."""
    assert before.keys() == after.keys()
    return [name for name in before if before[name] != after[name]]


def test_detection_knows_settings_model_data_and_versions(
    detection: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = detection
    first = resolved(path, str(data))
    assert changed(first, resolved(path, str(data))) == []
    assert changed(first, resolved(path, str(data), lr0=0.02)) == ["settings"]
    model = path.with_name("yolov8n.yaml")
    edit(model, lambda text: text.replace("0.0625", "0.125"))
    wider = resolved(path, str(data))
    assert changed(first, wider) == ["model"]
    edit(data, lambda text: text.replace("disc", "ring"))
    renamed = resolved(path, str(data))
    assert changed(wider, renamed) == ["data"]
    edit(next((data.parent / "labels/train").glob("*.txt")), lambda text: text + "0 0.5 0.5 0.25 0.25\n")
    relabelled = resolved(path, str(data))
    assert changed(renamed, relabelled) == ["data"]
    edit(data.parent / "train.txt", lambda text: text.partition("\n")[2])
    fewer = resolved(path, str(data))
    assert changed(relabelled, fewer) == ["data"]
    truth = data.parents[1] / "annotations/instances_val.json"
    edit(truth, lambda text: text.replace('"iscrowd": 0', '"iscrowd": 1', 1))
    other_truth = resolved(path, str(data))
    assert changed(fewer, other_truth) == ["data"]
    monkeypatch.setattr(fingerprint, "version", lambda name: "99" if name == "ultralytics" else None)
    assert changed(other_truth, resolved(path, str(data))) == ["versions"]


def test_detection_does_not_depend_on_place_and_machine(
    detection: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = detection
    first = resolved(path, str(data))
    neutral = {"device": "0", "workers": 3, "cache": "ram", "verbose": True, "plots": True, "save_period": 1}
    assert changed(first, resolved(path, str(data), **neutral)) == []
    moved = tmp_path / "elsewhere"
    shutil.move(data.parents[1], moved / "set")
    shutil.copytree(path.parent, moved / "settings")
    model = str(moved / "settings/yolov8n.yaml")
    assert changed(first, resolved(path, str(moved / "set/ultralytics/data.yaml"), model=model)) == []
    real = fingerprint.version
    monkeypatch.setattr(fingerprint, "version", lambda name: f"{real(name)}+cu126" if name == "torch" else real(name))
    assert changed(first, resolved(path, str(moved / "set/ultralytics/data.yaml"))) == []


def test_weights_count_by_their_content(detection: tuple[Path, Path], tmp_path: Path) -> None:
    path, data = detection
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        YOLO(str(path.with_name("yolov8n.yaml"))).save(str(tmp_path / name / "start.pt"))
    first = resolved(path, str(data), model=str(tmp_path / "one/start.pt"))
    assert changed(first, resolved(path, str(data), model=str(tmp_path / "two/start.pt"))) == ["model"]
    shutil.copy(tmp_path / "one/start.pt", tmp_path / "two/start.pt")
    assert changed(first, resolved(path, str(data), model=str(tmp_path / "two/start.pt"))) == []
    from_one = resolved(path, str(data), pretrained=str(tmp_path / "one/start.pt"))
    assert changed(first, from_one) == ["settings", "model"]
    assert changed(from_one, resolved(path, str(data), pretrained=str(tmp_path / "two/start.pt"))) == []


@pytest.fixture
def segmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return the YAML of a comparison, whose config has a base and imports a module of its own, and its data."""
    (tmp_path / "settings").mkdir()
    path = write_segmentation(tmp_path / "settings/c.yaml", data=None, scenes={})
    recipe = path.with_name("recipe.py")
    recipe.rename(path.with_name("base.py"))
    with path.with_name("base.py").open("a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(lr=0.004))\n")
    (tmp_path / "mine_of_keys.py").write_text("FIRST = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    imports = "custom_imports = dict(imports=['det_seg_agent.seg', 'mine_of_keys'], allow_failed_imports=False)"
    recipe.write_text(f"_base_ = './base.py'\n{imports}\n")
    return path, write_scenes(tmp_path / "scenes", 8, 4, 64)


def test_segmentation_knows_the_resolved_config_data_and_versions(
    segmentation: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = segmentation
    first = resolved(path, str(data))
    assert changed(first, resolved(path, str(data))) == []
    assert changed(first, resolved(path, str(data), **{"optim_wrapper.optimizer.weight_decay": 0.1})) == ["config"]
    edit(path.with_name("base.py"), lambda text: text.replace("lr=0.004", "lr=0.4"))
    faster = resolved(path, str(data))
    assert changed(first, faster) == ["config"]
    edit(path.parents[1] / "mine_of_keys.py", lambda text: text.replace("1", "2"))
    other_code = resolved(path, str(data))
    assert changed(faster, other_code) == ["config"]
    mask = next(
        p for p in sorted((data / "masks/train").glob("*.png")) if {1, 2} & set(cv2.imread(str(p), -1).ravel().tolist())
    )
    swapped = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(mask), np.array([0, 2, 1, *range(3, 256)], np.uint8)[swapped])
    relabelled = resolved(path, str(data))
    assert changed(other_code, relabelled) == ["data"]
    (data / "val" / next((data / "val").iterdir()).name).unlink()
    fewer = resolved(path, str(data))
    assert changed(relabelled, fewer) == ["data"]
    monkeypatch.setattr(fingerprint, "version", lambda name: "99" if name == "mmengine" else None)
    assert changed(fewer, resolved(path, str(data))) == ["versions"]


def test_segmentation_does_not_depend_on_place_and_machine(segmentation: tuple[Path, Path], tmp_path: Path) -> None:
    path, data = segmentation
    first = resolved(path, str(data))
    edit(path.with_name("recipe.py"), lambda text: f"# A comment.\n{text}")
    neutral = {"train_dataloader.num_workers": 2, "train_dataloader.persistent_workers": True, "log_level": "INFO"}
    neutral |= {"default_hooks.checkpoint.max_keep_ckpts": 9, "default_hooks.logger.interval": 7}
    assert changed(first, resolved(path, str(data), **neutral)) == []
    shutil.move(data, tmp_path / "elsewhere/data")
    shutil.copytree(path.parent, tmp_path / "elsewhere/settings")
    assert changed(first, resolved(tmp_path / "elsewhere/settings/c.yaml", str(tmp_path / "elsewhere/data"))) == []


def test_a_key_is_of_settings_and_of_what_they_stand_for(tmp_path: Path) -> None:
    cell = read(write(tmp_path / "c.yaml"))[1][-1]
    assert replace(cell, resolved={"data": "other"}).key != cell.key
    for same in ({"data": "/elsewhere"}, {"host": {"device": 1}}, {"scenes": {}}, {"config": "/elsewhere/c.py"}):
        assert replace(cell, **same).key == cell.key
    for other in ({"seed": 5}, {"ratio": 0.4}, {"agent": {**cell.agent, "warmup": 0}}, {"role": "native"}):
        assert replace(cell, **other).key != cell.key


def test_settings_mean_the_same_elsewhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.pt").write_bytes(b"same")
    one, two = ({"load_from": str(tmp_path / n / "weights.pt"), "out": [str(tmp_path / n)]} for n in ("one", "two"))
    two["out"] = [str(tmp_path / "two/one")]
    assert portable(one) == portable(two)
    (tmp_path / "two/weights.pt").write_bytes(b"else")
    assert portable(one) != portable(two)
    assert portable({"a": {"secret": 1, "b": (1, 2)}, 3: "x"}, frozenset({"secret"})) == {"a": {"b": [1, 2]}, "3": "x"}


def test_sources_are_those_that_can_change_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "det_seg_agent"
    shutil.copytree(fingerprint.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mine_of_sources.py").write_text("class Mine: pass\n")
    rule = "from det_seg_agent import Strategy\nclass Rule(Strategy):\n    select = print\n"
    (tmp_path / "rule_of_sources.py").write_text(rule)
    info = tmp_path / "rule_of_sources-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rule_of_sources\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[det_seg_agent.strategies]\nplugged = rule_of_sources:Rule\n")
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fingerprint, "PACKAGE", package)
    asked = [("detection", "loss"), ("segmentation", "loss"), ("detection", "mine_of_sources:Mine")]
    asked.append(("detection", "plugged"))

    def after(path: Path) -> list[bool]:
        before = [sources.__wrapped__(*words) for words in asked]
        with path.open("a") as file:
            file.write("# A change.\n")
        return [a != b for a, b in zip(before, [sources.__wrapped__(*words) for words in asked])]

    assert after(package / "selector.py") == after(package / "compare/child.py") == [True] * 4
    assert after(package / "det/trainer.py") == [True, False, True, True]
    assert after(package / "seg/hook.py") == [False, True, False, False]
    assert after(tmp_path / "mine_of_sources.py") == [False, False, True, False]
    assert after(tmp_path / "rule_of_sources.py") == [False, False, False, True]
    for name in fingerprint.SHOWING:
        assert after(package / name) == [False] * 4


def finish(store: Store, cell: Cell, made_by: str, when: str) -> Path:
    """Write a finished cell."""
    place = store.place(cell)
    place.mkdir(parents=True)
    content = {"key": cell.key, "sources": made_by, "finished": when, "quality": 1.0}
    (place / "result.json").write_text(json.dumps(content))
    return place


def test_what_is_finished_stays_and_is_known_by_key_and_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = read(write(tmp_path / "c.yaml"))[1][-1]
    store, keeping = Runner(tmp_path / "out"), Runner(tmp_path / "out", keep_older=True)
    now = sources(cell.task, cell.strategy)
    places = [finish(store, cell, made_by, when) for made_by, when in (("old", "2026-01-02"), ("older", "2026-01-01"))]
    assert store.result(cell) is None and store.is_older(cell)
    found = keeping.result(cell)
    assert found is not None and found["older"] and found["sources"] == "old", "the last one"
    listed([cell], store, _console())
    listed([cell], keeping, _console())
    out = capsys.readouterr().out
    assert "to run, of older sources" in out and "finished, of older sources" in out
    places.append(finish(store, cell, now, "2026-01-03"))
    assert len(set(places)) == 3 and all((place / "result.json").exists() for place in places)
    for each in (store, keeping):
        known = {"key": cell.key, "sources": now, "finished": "2026-01-03", "quality": 1.0}
        assert each.result(cell) == {**known, "place": str(places[-1])}
        assert not each.is_older(cell)
    other = replace(cell, resolved={"data": "other"})
    assert store.result(other) is None and not store.is_older(other) and keeping.result(other) is None


def _console() -> Any:
    from rich.console import Console

    return Console(soft_wrap=True)


def test_the_yaml_alone_is_read_where_nothing_is_finished(tmp_path: Path) -> None:
    """`--list` of a comparison that has not begun asks no host."""
    cells = read(write(tmp_path / "c.yaml"))[1]
    store = Store(tmp_path / "out")
    assert store.tasks_with_results(cells) == set()
    finish(store, cells[0], "any", "2026-01-01")
    assert store.tasks_with_results(cells) == {"detection"}
