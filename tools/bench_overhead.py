"""What our work costs on this machine: a step, a pass, a selection, and bytes a sample. Everything in one process."""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from ultralytics.cfg import get_cfg
from ultralytics.data import build_dataloader, build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

from det_seg_agent import Selector
from det_seg_agent.det.coco import prepare_data
from det_seg_agent.det.criterion import SignalCriterion
from det_seg_agent.det.dataset import IndexedDataset
from det_seg_agent.det.loader import SelectionLoader
from det_seg_agent.scenes import write_scenes


def step(model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, Any]) -> None:
    """One training step as the host makes it."""
    images = batch["img"].float() / 255
    loss, _ = model({**batch, "img": images})
    loss.sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    optimizer.zero_grad()


def timed(function: Any, *arguments: Any) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main() -> int:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30, help="pairs of steps")
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--rows", type=int, default=1_000_000, help="samples of the selection")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = check_det_dataset(prepare_data(write_scenes(Path(folder) / "scenes", 256, 8, options.imgsz)))
        cfg = get_cfg(overrides={"imgsz": options.imgsz, "task": "detect"})
        host = build_yolo_dataset(cfg, data["train"], 16, data, mode="train", stride=32)
        plain = build_yolo_dataset(cfg, data["train"], 16, data, mode="train", stride=32)
        stock = build_dataloader(host, 16, workers=0, device="cpu")
        selector = Selector(len(host), 100, ratio=0.5, final_full=0)
        dataset = IndexedDataset(host, 0, 0, fresh=True)
        loader = SelectionLoader(dataset, selector.sampler, stock)
        model = DetectionModel("yolov8n.yaml", nc=4, verbose=False).train()
        model.args = cfg
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        criteria = (v8DetectionLoss(model), SignalCriterion(v8DetectionLoss(model), selector.observe))

        selector.begin_pass(0)
        batches = list(loader)
        ratios = []
        for i, batch in enumerate(itertools.islice(itertools.cycle(batches), options.steps + 3)):
            seconds = [0.0, 0.0]
            for which in (0, 1) if i % 2 else (1, 0):
                model.criterion = criteria[which]
                seconds[which] = timed(step, model, optimizer, dict(batch))
            if i >= 3:
                ratios.append(seconds[1] / seconds[0])

        model.criterion = criteria[1]

        def walk(pass_index: int) -> None:
            selection = selector.begin_pass(pass_index)
            dataset.set_pass(pass_index, selection.indices, selection.weights, [], 16)
            for batch in loader:
                step(model, optimizer, batch)
            selector.end_pass()

        def stock_walk() -> None:
            model.criterion = criteria[0]
            for indices in torch.randperm(len(host)).split(16):
                step(model, optimizer, plain.collate_fn([plain[int(i)] for i in indices]))
            model.criterion = criteria[1]

        walk(0)
        passes = []
        for p in range(1, 4):
            passes.append(timed(walk, p) / timed(stock_walk))

    rows = options.rows
    big = Selector(rows, 100, ratio=0.5)
    for start in range(0, rows, 1 << 16):
        index = torch.arange(start, min(rows, start + (1 << 16)))
        n = len(index)
        big.observe(index, torch.rand(n), torch.rand(n), torch.randn(n, 448))
    big.pass_index = 0
    learn = timed(big.end_pass)
    select = statistics.median(timed(big.begin_pass, p) for p in range(1, 6))
    table = sum(column.element_size() * len(column) for column in big.table.state_dict().values())
    rows_bytes = big.strategy.state_dict()["store"]["rows"]
    result = {
        "step_over_stock_median": round(statistics.median(ratios), 4),
        "step_over_stock_quartiles": [round(q, 4) for q in statistics.quantiles(ratios, n=4)],
        "pass_at_0.5_over_full_median": round(statistics.median(passes), 4),
        "selection_s": round(select, 3),
        "end_of_pass_s": round(learn, 3),
        "samples": rows,
        "state_bytes_per_sample": (table + rows_bytes.element_size() * rows_bytes.numel()) / rows,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
