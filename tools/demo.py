"""The demo: both halves on the embedded scenes; agent, random, full data, and full data at the agent's cost."""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from det_seg_agent.det import cli as det
from det_seg_agent.scenes import kinds, write_scenes
from det_seg_agent.seg import cli as seg
from det_seg_agent.trace import read

CONFIG = Path(__file__).parents[1] / "configs/seg/upernet_light_scenes.py"
RATIO = 0.5


def main() -> int:
    """Train eight times and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"))
    parser.add_argument("--epochs", type=int, default=14, help="of detection on full data")
    parser.add_argument("--iters", type=int, default=840, help="of segmentation on full data")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # the hosts' own deprecations
    folder = options.folder.resolve()
    data = write_scenes(folder / "scenes")
    kind_of = kinds(data)
    table = Table(title=f"{len(kind_of)} embedded scenes, from scratch, one seed, ratio {RATIO}")
    for column in ("task", "strategy", "", "images", "budget", "seconds", *dict.fromkeys(kind_of.values())):
        table.add_column(column, justify="left" if column == "task" else "right", no_wrap=True)
    started = time.time()
    for task, train, length in (("detection", detect, options.epochs), ("segmentation", segment, options.iters)):
        budget = 1.0
        for strategy in ("agent", "random", "full", "short full"):
            print(f"\n=== {task}: {strategy} ===", flush=True)
            run = folder / f"{task}-{strategy.replace(' ', '-')}"
            shorter = round(length * budget) if strategy == "short full" else length
            train(run, data, shorter, strategy.split()[-1], options.seed)
            result = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
            budget = result["budget"] if strategy == "agent" else budget
            judged = f"AP {result['coco']['AP']:.3f}" if "coco" in result else f"mIoU {result['iou']['mIoU']:.1f}"
            table.add_row(
                task, strategy, judged, str(result["images_trained"]),
                f"{result['budget'] * shorter / length:.0%}", f"{result['wall_time_s']:.0f}", *shares(run, kind_of),
            )  # fmt: skip
        table.add_section()
    Console(width=max(110, Console().width)).print(table)
    print(
        f"{time.time() - started:.0f} s. 'short full' is full data for as many images as the agent trained on: the\n"
        "control that a selection must beat. The columns by kind: share of the images of that kind in the\n"
        "selections of half the data. A few hundred images and one seed show that everything works and what is\n"
        f"selected. They do not show which strategy is better. Plots, contact sheets, traces: {folder}"
    )
    return 0


def detect(run: Path, data: Path, epochs: int, strategy: str, seed: int) -> None:
    """Train YOLOv8n by the command line's own function."""
    det.train(
        {
            "model": "yolov8n.yaml", "data": str(data), "epochs": epochs, "imgsz": 128, "batch": 8, "nbs": 8,
            "device": "cpu", "project": str(run.parent), "name": run.name, "exist_ok": True, "seed": seed,
            "optimizer": "AdamW", "lr0": 0.002, "cls": 1.0, "mosaic": 0.0, "close_mosaic": 0, "warmup_epochs": 1,
            "val": False, "plots": False, "verbose": False,
        },
        {"strategy": strategy, "ratio": RATIO},
    )  # fmt: skip


def segment(run: Path, data: Path, iterations: int, strategy: str, seed: int) -> None:
    """Train the light UperNet by the command line's own function."""
    settings: dict[str, Any] = {
        "train_dataloader.dataset.data_root": data, "val_dataloader.dataset.data_root": data,
        "test_dataloader.dataset.data_root": data, "train_cfg.max_iters": iterations,
        "train_cfg.val_interval": iterations, "param_scheduler.0.end": iterations, "randomness.seed": seed,
        "agent.strategy": strategy, "agent.ratio": RATIO, "experiment_name": run.name, "visualizer.name": run.name,
        "log_level": "WARNING",  # the host's log begins with hundreds of lines of configuration
    }  # fmt: skip
    words = [f"{key}={value}" for key, value in settings.items()]
    options = seg.arguments_parser().parse_args([str(CONFIG), "--work-dir", str(run), "--cfg-options", *words])
    seg.train(options)


def shares(run: Path, kind_of: dict[str, str]) -> list[str]:
    """Return, by kind, the share of its images that passes below full size selected."""
    trace = read(run / "trace")
    assert trace is not None
    by_pass = trace.group_by("pass").aggregate([("selected", "mean")])
    partial = [p for p, mean in zip(*by_pass.to_pydict().values(), strict=True) if mean < 1]
    if not partial:
        return ["100%" for _ in dict.fromkeys(kind_of.values())]
    rows = trace.filter(pc.field("pass").isin(partial)).to_pydict()
    listed = list(kind_of.values())  # files are numbered in the order of the data set
    result = []
    for kind in dict.fromkeys(listed):
        picked = [s for s, i in zip(rows["selected"], rows["sample"], strict=True) if listed[i] == kind]
        result.append(f"{sum(picked) / len(picked):.0%}")
    return result


if __name__ == "__main__":
    sys.exit(main())
