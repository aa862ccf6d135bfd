"""Measure our overhead in one process: time of a step, a pass and a selection, and bytes per sample."""

import argparse
import itertools
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from det_seg_agent import Selector
from det_seg_agent.reporting.trace import Trace
from det_seg_agent.scenes import write_scenes


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def paired(stock: Callable[[Any], None], ours: Callable[[Any], None], batches: list[Any], pairs: int) -> dict[str, Any]:
    """Return median and quartiles of the time of our step divided by the stock step's, alternating on equal batches."""
    ratios = []
    for i, batch in enumerate(itertools.islice(itertools.cycle(batches), pairs + 3)):
        seconds = {}
        for step in (stock, ours) if i % 2 else (ours, stock):
            seconds[step] = timed(step, batch)
        if i >= 3:
            ratios.append(seconds[ours] / seconds[stock])
    return {
        "step_over_stock_median": round(statistics.median(ratios), 4),
        "step_over_stock_quartiles": [round(q, 4) for q in statistics.quantiles(ratios, n=4)],
    }


def update(loss: torch.Tensor, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Run backward and an optimizer step."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    optimizer.zero_grad()


def detection(pairs: int, imgsz: int, images: int) -> dict[str, Any]:
    """Measure YOLOv8n: our step relative to stock, and a pass at ratio 0.5 relative to a full one."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_dataloader, build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.loss import v8DetectionLoss

    from det_seg_agent.det.coco_convert import prepare_data
    from det_seg_agent.det.criterion import SignalCriterion
    from det_seg_agent.det.dataset import IndexedDataset
    from det_seg_agent.det.loader import SelectionLoader

    with tempfile.TemporaryDirectory() as folder:
        data = check_det_dataset(prepare_data(write_scenes(Path(folder) / "scenes", images, 8, imgsz)))
        cfg = get_cfg(overrides={"imgsz": imgsz, "task": "detect"})
        host, plain = (build_yolo_dataset(cfg, data["train"], 16, data, mode="train", stride=32) for _ in range(2))
        selector = Selector(len(host), 100, ratio=0.5, final_full=0)
        dataset = IndexedDataset(host, 0, 0, fresh=True)
        loader = SelectionLoader(dataset, selector.sampler, build_dataloader(host, 16, workers=0, device="cpu"))
        model = DetectionModel("yolov8n.yaml", nc=4, verbose=False).train()
        model.args = cfg
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        plain_loss = v8DetectionLoss(model)
        our_loss = SignalCriterion(v8DetectionLoss(model), selector.observe)

        def step(batch: dict[str, Any], criterion: Any) -> None:
            model.criterion = criterion
            loss, _ = model({**batch, "img": batch["img"].float() / 255})
            update(loss.sum(), model, optimizer)

        selector.begin_pass(0)
        result = paired(lambda b: step(b, plain_loss), lambda b: step(b, our_loss), list(loader), pairs)

        trace, spent = Trace(Path(folder) / "trace"), {"selection": 0.0, "agent": 0.0, "trace": 0.0}

        def walk(pass_index: int) -> None:
            spent["selection"] = timed(selector.begin_pass, pass_index)
            selection = selector.selection
            dataset.set_pass(pass_index, selection.indices, selection.weights, [], 16)
            for batch in loader:
                step(batch, our_loss)
            spent["agent"] = timed(selector.end_pass)
            table = selector.table
            spent["trace"] = timed(trace.write, pass_index, table, selection.indices, table.score)

        def stock_walk() -> None:
            for indices in torch.randperm(len(host)).split(16):
                step(plain.collate_fn([plain[int(i)] for i in indices]), plain_loss)

        walk(0)
        passes, shares = [], []
        for p in range(1, 6):
            whole = timed(walk, p)
            passes.append(whole / timed(stock_walk))
            shares.append({part: seconds / whole for part, seconds in spent.items()})
        signals = 1 - 1 / result["step_over_stock_median"]
    by_part = {part: round(statistics.median(row[part] for row in shares), 5) for part in spent}
    return {
        **result,
        "pass_at_0.5_over_full_median": round(statistics.median(passes), 4),
        "share_of_a_pass_by_part_median": {"signals": round(signals, 5), **by_part},
        "images_of_that_pass": len(host) // 2,
    }


def segmentation(pairs: int, classes: int = 150, crop: int = 128, batch: int = 4) -> dict[str, Any]:
    """Measure a UperNet-R18 with light heads: our step relative to stock, and the memory that our signals allocate."""
    from det_seg_agent.seg.compat import prepare_host

    prepare_host()
    from mmengine.config import Config
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample
    from mmseg.utils import register_all_modules
    from torch.profiler import ProfilerActivity, profile

    from det_seg_agent.pixels import image_signals
    from det_seg_agent.seg.signals import SignalTap

    register_all_modules(init_default_scope=True)
    config = Config.fromfile(Path(__file__).parents[1] / "configs/seg/upernet_r18_80k_ade20k-512x512.py").model
    config.pretrained = None
    norm = {"type": "BN", "requires_grad": True}
    config.backbone.norm_cfg = norm
    config.decode_head.update(channels=32, num_classes=classes, norm_cfg=norm)
    config.auxiliary_head.update(channels=16, num_classes=classes, norm_cfg=norm)
    model = MODELS.build(config).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    selector = Selector(64, 100)
    selector.begin_pass(0)

    def make() -> dict[str, Any]:
        labels = [torch.randint(0, classes, (1, crop, crop)) for _ in range(batch)]
        samples = [SegDataSample(gt_sem_seg=PixelData(data=x), metainfo={"img_shape": (crop, crop)}) for x in labels]
        return {"inputs": torch.randn(batch, 3, crop, crop), "data_samples": samples}

    def step(batch: dict[str, Any]) -> None:
        losses = model(**batch, mode="loss")
        update(sum(value for key, value in losses.items() if "loss" in key), model, optimizer)

    def our_step(batch: dict[str, Any]) -> None:
        tap = SignalTap(model, weighted=False)
        step(batch)
        assert tap.signals is not None
        found, features = tap.signals
        index = torch.arange(len(batch["data_samples"]))
        given = {"sufficiency": found.sufficiency, "agreement": found.agreement, "class_counts": found.counts}
        selector.observe(index, found.loss, found.entropy, features, **given)
        tap.remove()

    result = paired(step, our_step, [make() for _ in range(4)], pairs)
    logits, label = torch.randn(batch, classes, crop // 4, crop // 4), torch.zeros(batch, crop, crop, dtype=torch.int64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        image_signals(logits, label, 255)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in record.events())
    return {**result, "signal_bytes_allocated_a_step": int(allocated), "batch": batch, "classes": classes, "crop": crop}


def tensors(state: Any) -> list[torch.Tensor]:
    """Return all tensors of a state."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [t for value in (state.values() if isinstance(state, dict) else ()) for t in tensors(value)]


def peak_bytes() -> int:
    """Return the peak memory of this process in bytes (on Linux ru_maxrss is in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one_pass(selector: Selector, p: int, credits: int, batch: int = 1024) -> float:
    """Give a selector random signals of a full pass, with `credits` samples per image; return seconds per image."""
    rows, spent = len(selector), 0.0
    draw = torch.Generator().manual_seed(p)
    for start in range(0, rows, batch):
        n = min(batch, rows - start)
        image = torch.arange(n).repeat_interleave(credits)
        index = torch.randint(0, rows, (n * credits,), generator=draw)
        index[::credits] = torch.arange(start, start + n)
        loss, entropy, enough = torch.rand(3, n, generator=draw)
        features = torch.randn(n, 64, generator=draw)
        share = torch.full((n * credits,), 1 / credits)
        spent += timed(selector.observe, index, loss, entropy, features, image, share, enough)
    return spent / rows


def selection(rows: int, credits: int) -> dict[str, Any]:
    """Measure the core on a data set of `rows` samples: two passes, then selections, memory and trace."""
    torch.set_num_threads(1)
    small = Selector(64, 4, ratio=0.5)  # imports and first calls
    for p in range(2):
        small.begin_pass(p)
        one_pass(small, p, credits)
        small.end_pass()
    before = peak_bytes()
    big = Selector(rows, 100, ratio=0.5)
    big.begin_pass(0)
    observe, ends = [], []
    for p in range(2):
        observe.append(one_pass(big, p, credits))
        big.pass_index = p
        ends.append(timed(big.end_pass))
    selections = []
    for p in range(2, 5):
        selections.append(timed(big.begin_pass, p))
        for _ in big.sampler:
            pass
    peak = peak_bytes() - before
    with tempfile.TemporaryDirectory() as folder:
        trace = Trace(Path(folder))
        write = timed(trace.write, 3, big.table, big.selection.indices, big.table.score)
        on_disk = sum(path.stat().st_size for path in Path(folder).iterdir())
    columns = tensors(big.table.state_dict()) + tensors(big.strategy.state_dict())
    kept = sum(t.element_size() * t.numel() for t in columns if t.dim() and len(t) == rows)
    return {
        "samples": rows,
        "samples_an_image": credits,
        "selection_s": round(statistics.median(selections), 3),
        "end_of_first_and_second_pass_s": [round(seconds, 3) for seconds in ends],
        "observe_us_an_image": round(1e6 * observe[-1], 2),
        "trace_s": round(write, 3),
        "peak_bytes_per_sample": round(peak / rows),
        "state_bytes_per_sample": round(kept / rows, 1),
        "trace_bytes_per_sample": round(on_disk / rows, 2),
    }


def in_a_process_of_its_own(rows: int, credits: int) -> dict[str, Any]:
    """Run `selection` in a new process, so that its peak memory does not include other sizes."""
    # An executor, as a pool would wait for ever for a process that ran out of memory.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(selection, rows, credits).result()
    print(json.dumps(result), file=sys.stderr)
    return result


def main() -> int:
    """Measure the requested parts and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["detection", "segmentation", "selection"], help="what to measure")
    parser.add_argument("--steps", type=int, default=30, help="pairs of steps")
    parser.add_argument("--imgsz", type=int, default=160, help="of detection")
    parser.add_argument("--images", type=int, default=256, help="of detection's passes")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1_000_000], help="sizes of the data set of the selection"
    )
    parser.add_argument("--credits", type=int, nargs="+", default=[1, 5], help="samples that an image shows")
    options = parser.parse_args()
    measure: dict[str, Callable[[], Any]] = {
        "detection": lambda: detection(options.steps, options.imgsz, options.images),
        "segmentation": lambda: segmentation(options.steps),
        "selection": lambda: [in_a_process_of_its_own(rows, n) for rows in options.rows for n in options.credits],
    }
    if unknown := sorted(set(options.parts) - set(measure)):
        parser.error(f"{', '.join(unknown)}: valid parts are {', '.join(measure)}")
    result = {part: measure[part]() for part in options.parts}
    print(json.dumps({**result, "threads": torch.get_num_threads()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
