"""Comparisons of tiny runs."""

import contextlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from det_runs import write_model
from seg_runs import CONFIG, TINY

from det_seg_agent.compare import child
from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.processes import Outcome, Processes
from det_seg_agent.compare.store import clear

SCENES = {"train": 16, "val": 4, "size": 64}


class Here(Processes):
    """Runs steps in this process, which has imported the toolboxes already; a cell never goes on."""

    def run(self, step: str, cell: Cell, place: Path, *_: Any, **__: Any) -> Outcome:
        """Run a step in an empty folder."""
        clear(place)
        (place / "cell.json").write_text(json.dumps(asdict(cell)))
        began = time.perf_counter(), time.process_time()
        with (place / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            status = child.main([step, str(place)])
        return Outcome(status, time.perf_counter() - began[0], time.process_time() - began[1])


def write(path: Path, **content: Any) -> Path:
    """Write a comparison of detectors on tiny scenes."""
    model = write_model(path.parent)
    host = {"model": model, "epochs": 2, "imgsz": 64, "batch": 8, "device": "cpu", "optimizer": "SGD", "lr0": 0.01}
    block = {"data": "scenes", "scenes": SCENES, "host": host, "agent": {"final_full": 0}, "ratios": {0.5: [0]}}
    path.write_text(yaml.safe_dump({"title": "Tiny", "detection": {**block, "strategies": ["loss"], **content}}))
    return path


def write_segmentation(path: Path, **content: Any) -> Path:
    """Write a comparison of segmenters on tiny scenes: 8 passes of 2 iterations, of which 7 select at ratio 0.5."""
    recipe = path.with_name("recipe.py")
    if not recipe.exists():
        recipe.write_text(
            f"_base_ = {str(CONFIG)!r}\ntrain_cfg = dict(max_iters=16, val_interval=8)\n"
            "model = dict(data_preprocessor=dict(size=(64, 64)))\n"
            "param_scheduler = [dict(type='PolyLR', power=0.9, by_epoch=False, begin=0, end=16)]\n"
        )
    host = {
        **TINY,
        "train_dataloader.dataset.pipeline.3.crop_size": 64,
        "log_level": "ERROR",
        "default_hooks.logger.interval": 1,
        "default_hooks.checkpoint.interval": 5,
    }
    block = {"data": "scenes", "scenes": SCENES, "host": host, "agent": {"final_full": 0}, "ratios": {0.5: [0]}}
    block |= {"config": recipe.name, "strategies": ["loss"]}
    path.write_text(yaml.safe_dump({"title": "Tiny", "segmentation": {**block, **content}}))
    return path
