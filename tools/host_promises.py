"""Check what we promise with the installed version of Ultralytics, and print it as JSON; `check_hosts.py` calls it.

Trains a tiny YOLOv8 on generated scenes, on the CPU, in about a minute. Each promise is a function that returns "" if
it is kept, or how it is broken.
"""

import importlib.util
import itertools
import json
import logging
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

IMAGES, EPOCHS = 24, 4


class StoppedError(Exception):
    """Ends a training within an epoch."""


class Bench:
    """A folder with scenes and a tiny model, and trainings on them.

    Attributes:
        runs: the trainers of the runs so far, by name.
    """

    def __init__(self, folder: Path):
        from ultralytics.utils import ROOT

        from det_seg_agent.det.coco_convert import prepare_data
        from det_seg_agent.scenes import write_scenes

        # Up to 8.4.160 the first training of a process draws one number more: this import of it does.
        if importlib.util.find_spec("ultralytics.utils.events"):
            importlib.import_module("ultralytics.utils.events")
        self.folder, self.runs = folder, dict[str, Any]()
        content = yaml.safe_load((ROOT / "cfg/models/v8/yolov8.yaml").read_text())
        content["scales"] = {"n": [0.33, 0.0625, 1024]}
        self.model = folder / "yolov8n.yaml"
        self.model.write_text(yaml.safe_dump(content))
        self.data = prepare_data(write_scenes(folder / "scenes", IMAGES, 4, 64))

    def train(self, name: str, stock: bool = False, stop: bool = False, resume: bool = False, **agent: Any) -> Any:
        """Train and return the trainer, which has kept its batches and how far the parts were from the loss."""
        from ultralytics import YOLO
        from ultralytics.models.yolo.detect import DetectionTrainer

        from det_seg_agent.det.trainer import AgentDetectionTrainer

        base = DetectionTrainer if stock else AgentDetectionTrainer.configured(**agent)
        watched = type(base.__name__, (Watched, base), {"__module__": base.__module__, "stops": stop})
        arguments: dict[str, Any]
        if resume:
            model, arguments = YOLO(self.folder / name / "weights/last.pt"), {"resume": True}
        else:
            fixed = {"data": self.data, "project": str(self.folder), "name": name, "seed": 1, "exist_ok": True}
            fast = {
                "nbs": 8,
                "epochs": EPOCHS,
                "imgsz": 64,
                "batch": 8,
                "device": "cpu",
                "plots": False,
                "verbose": False,
            }
            model, arguments = (
                YOLO(self.model),
                {**fixed, **fast, "close_mosaic": 0, "mixup": 0.5, "workers": 0},
            )
        try:
            model.train(trainer=watched, **arguments)
        except StoppedError:
            return None
        self.runs[name] = model.trainer
        return model.trainer


class Watched:
    """Mixin for a trainer: keeps what its batches showed, and compares the parts of the images with the loss."""

    stops = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.shown: dict[int, list[str]] = {}
        self.credited: dict[int, set[int]] = {}
        self.chosen: dict[int, list[int]] = {}
        self.far = 0.0
        self.checked = 0
        self.add_callback("on_train_batch_end", Watched.compare)  # type: ignore[attr-defined]

    def preprocess_batch(self, batch: Any) -> Any:
        """Keep the images and the samples of a batch."""
        self.shown.setdefault(self.epoch, []).extend(map(str, batch["im_file"]))  # type: ignore[attr-defined]
        if "credit_index" in batch:
            self.credited.setdefault(self.epoch, set()).update(batch["credit_index"].tolist())  # type: ignore[attr-defined]
            self.chosen[self.epoch] = self.selector.selection.indices.tolist()  # type: ignore[attr-defined]
        return super().preprocess_batch(batch)  # type: ignore[misc]

    def optimizer_step(self) -> None:
        """Step, and stop within the third epoch if asked to."""
        super().optimizer_step()  # type: ignore[misc]
        if self.stops and self.epoch == 2:  # type: ignore[attr-defined]
            raise StoppedError

    def compare(self) -> None:
        """Compare the sum of the images' parts with the host's loss items."""
        from det_seg_agent.det.compat import items_of, unwrap_model

        criterion = unwrap_model(self.model).criterion  # type: ignore[attr-defined]
        if hasattr(criterion, "split"):
            stock = items_of(criterion.stock, self.loss_items)  # type: ignore[attr-defined]
            ours = criterion.parts().sum(0).tolist()
            self.checked += len(stock)
            for found, value in zip(ours, stock.values(), strict=True):
                self.far = max(self.far, abs(found - value) / (abs(value) + 1e-6))


def same(one: Any, two: Any) -> bool:
    """Return whether the EMA weights of two trainers are equal bit for bit."""
    first, second = (trainer.ema.ema.state_dict() for trainer in (one, two))
    return all(torch.equal(first[key], second[key]) for key in first)


def full_is_stock(bench: Bench) -> str:
    """`strategy=full` gives the stock run's weights, bit for bit."""
    stock, full = bench.train("stock", stock=True), bench.train("full", strategy="full")
    return "" if same(stock, full) else "other weights"


def parts_sum_to_the_loss(bench: Bench) -> str:
    """In each batch of a selecting run the images' parts sum to the host's loss items."""
    run = bench.train("whole", strategy="agent", ratio=0.5)
    if not run.checked:
        return "no loss items to compare with"
    return "" if run.far < 1e-3 else f"parts differ by {run.far:.1%}"


def selection_is_exact(bench: Bench) -> str:
    """Each pass trains on its selection, each image once, and composites show no other sample."""
    run = bench.runs["whole"]
    files = [str(file) for file in run.train_loader.dataset.im_files]
    for epoch, chosen in run.chosen.items():
        if sorted(files.index(file) for file in run.shown[epoch]) != chosen:
            return f"other images in epoch {epoch + 1}"
        if not run.credited[epoch] <= set(chosen):
            return f"composites of other images in epoch {epoch + 1}"
    sizes = [len(chosen) for chosen in run.chosen.values()]
    return "" if min(sizes) < IMAGES and len(sizes) == EPOCHS else "no selections"


def resume_is_exact(bench: Bench) -> str:
    """Stopped within an epoch, a run goes on with the same selections and ends with the same weights."""
    bench.train("cut", stop=True, strategy="agent", ratio=0.5)
    whole, again = bench.runs["whole"], bench.train("cut", resume=True)
    if any(again.chosen[epoch] != whole.chosen[epoch] for epoch in again.chosen):
        return "other selections"
    return "" if same(whole, again) else "the same selections, other weights"


def credit_is_by_pixels(bench: Bench) -> str:
    """The credit of a sample is its share of an item's pixels, with mosaic, affine crop, MixUp and CutMix."""
    from ultralytics.cfg import DEFAULT_CFG_DICT

    kinds: dict[str, dict[str, float]] = {
        "mosaic": {},
        "MixUp": {"mixup": 1.0},
        "CutMix": {"cutmix": 1.0, "mosaic": 0.0},
    }
    found = {kind: far_from_pixels(bench, hyp) for kind, hyp in kinds.items() if hyp.keys() <= DEFAULT_CFG_DICT.keys()}
    return "; ".join(f"{kind} off by {far:.0%}" for kind, far in found.items() if far > 0.04)


def far_from_pixels(bench: Bench, hyp: dict[str, float]) -> float:
    """Return the largest difference of a sample's credit from its share of pixels; one sample at a time is lit."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    from det_seg_agent.det.dataset import IndexedDataset, seed_process

    data = check_det_dataset(bench.data)
    grey = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
    config = get_cfg(overrides={"imgsz": 64, "task": "detect", **grey, **hyp})
    host = build_yolo_dataset(config, data["train"], 8, data, mode="train", stride=32)
    load, lit, passes = host.get_image_and_label, -1, itertools.count()

    def painted(index: int) -> Any:
        label = load(index)
        label["img"] = np.full_like(label["img"], 114)  # the colour of the host's padding
        label["img"][..., 1] = 254
        label["img"][..., 0] = 254 if index == lit else 114
        return label

    host.get_image_and_label = painted
    dataset, far = IndexedDataset(host, 0, 0, fresh=True), 0.0
    for index in range(0, IMAGES, 4):
        for lit in range(IMAGES):
            dataset.set_pass(next(passes), torch.arange(IMAGES), None, [], 8)  # forgets the images of earlier draws
            seed_process(0, index, 0, 0)
            item = dataset[index]
            _, green, blue = (item["img"].numpy().astype(float) - 114).mean((1, 2))
            far = max(far, abs(blue / green - dict(item["credits"]).get(lit, 0.0)))
    return far


def command_line_judges(bench: Bench) -> str:
    """`train-det` trains, judges the best weights by pycocotools and writes both."""
    from det_seg_agent.det.cli import main as train_det

    folder = bench.folder / "command"
    words = f"model={bench.model} data={bench.data} project={bench.folder} name=command agent.strategy=random"
    status = train_det([*words.split(), "epochs=1", "imgsz=64", "batch=8", "device=cpu", "plots=False"])
    figures = json.loads((folder / "metrics.json").read_text())
    return "" if status == 0 and "AP" in figures.get("coco", {}) else figures.get("judging_failed", "no figures")


PROMISES: dict[str, Callable[[Bench], str]] = {
    "full is stock": full_is_stock,
    "parts sum to the loss": parts_sum_to_the_loss,
    "exact selection": selection_is_exact,
    "exact resume": resume_is_exact,
    "credit by pixels": credit_is_by_pixels,
    "command and judge": command_line_judges,
}


def main() -> int:
    """Check all promises; the last line that is printed is JSON: how each is broken, and "" if it is kept."""
    logging.disable(logging.INFO)
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name, promise in PROMISES.items():
            try:
                result[name] = promise(bench)
            except Exception as error:  # one broken promise must not hide the others
                traceback.print_exc()
                result[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:80]
    print(json.dumps(result))
    return int(any(result.values()))


if __name__ == "__main__":
    sys.exit(main())
