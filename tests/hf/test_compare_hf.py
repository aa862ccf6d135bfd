"""Comparisons of models of transformers: the same controls, accuracy and perplexity."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from compare_runs import Here
from recipes_hf import write_images, write_rows, write_tokenizer

from det_seg_agent.compare import preparing
from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.cli import main
from det_seg_agent.compare.matrix import read
from det_seg_agent.errors import ConfigError

QUIET = {"train.use_cpu": True, "train.dataloader_pin_memory": False, "train.log_level": "error"}


def write(folder: Path, task: str, **more: Any) -> Path:
    """Write a comparison of tiny models, with its data."""
    block: dict[str, Any] = {
        "config": "hf/vit_tiny.yaml", "data": str(folder / "images"), "host": {"epochs": 4, **QUIET},
        "agent": {"final_full": 0}, "strategies": ["loss"], "ratios": {0.5: [0]},
    }  # fmt: skip
    if task == "classification":
        write_images(folder / "images")
    else:
        tokenizer = write_tokenizer(folder / "tokenizer")
        block |= {"config": "hf/llama_tiny.yaml", "data": write_rows(folder / "rows.jsonl", 20, 0)}
        block["host"] |= {"tokenizer": tokenizer, "validation": write_rows(folder / "held.jsonl", 6, 1)}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "Tiny", task: {**block, **more}}))
    return path


def test_a_block_has_all_controls(tmp_path: Path) -> None:
    cells = read(write(tmp_path, "classification"))[1]
    names = [f"{cell.label} {cell.epochs or ''}".strip() for cell in cells]
    assert names == ["full", "full, shorter 2", "full, shorter 3", "random", "even", "quality", "loss"]
    assert {cell.task for cell in cells} == {"classification"} and cells[3].budget == 0.625


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"host": {}}, "classification.host.epochs=None"),
        ({"host": {"epochs": 4, "train.seed": 1}}, "classification.host.train.seed: it follows from the matrix"),
        ({"config": "nothing.yaml"}, "classification.config=nothing.yaml: there is no such file"),
        ({"data": "scenes"}, "classification.data=scenes"),
        ({"report": {"primary": "mIoU"}}, "it is a figure of another task"),
        ({"strategies": [{"strategy": "infobatch", "options": {"native": True}}]}, "options.native"),
    ],
)
def test_a_block_that_cannot_work_is_refused(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        read(write(tmp_path, "classification", **more))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "instruction"])
def test_a_comparison_runs_and_is_shown(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "Processes", Here)
    path = write(tmp_path, task)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main([str(path), "--folder", str(tmp_path / "out")]) == 0
    results = {}
    for file in (tmp_path / "out").glob("*/result.json"):
        if not file.parent.name.startswith("calibrate"):
            cell = Cell(**json.loads(file.with_name("cell.json").read_text()))
            results[f"{cell.label} {cell.epochs or ''}".strip()] = json.loads(file.read_text())
    assert set(results) == {"full", "full, shorter 2", "full, shorter 3", "random", "even", "quality", "loss"}
    samples = results["full"]["samples"]
    shares = {name: result["images"] / samples for name, result in results.items()}
    selections = dict.fromkeys(("random", "even", "quality", "loss"), 2.5)
    assert shares == {"full": 4, "full, shorter 2": 2, "full, shorter 3": 3, **selections}
    assert len({result["initial_weights"] for result in results.values()}) == 1
    for result in results.values():
        assert 0 <= result["quality"] <= 100 and len(result["curve"]["points"]) in (2, 3, 4)
        assert result["curve"]["points"][-1][0] == result["images"]
        if task == "instruction":
            assert result["quality"] == pytest.approx(100 / result["metrics"]["perplexity"])
        else:
            assert set(result["by_class"]) == {"red", "green", "blue"}
            assert result["classes"]["train_images"] == {"red": 10, "green": 10, "blue": 10}
    page = (tmp_path / "out/index.html").read_text()
    assert ("accuracy" if task == "classification" else "perplexity") in page
    assert main([str(path), "--folder", str(tmp_path / "out")]) == 0  # all is finished
    assert "FAILED" not in said.getvalue()
