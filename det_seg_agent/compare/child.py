"""One cell, in a process of its own: `python -m det_seg_agent.compare.child prepare|calibrate|train FOLDER`.

`FOLDER/cell.json` says what to do; `FOLDER/outcome.json` is what came of it. The hosts are imported here alone.
"""

import argparse
import csv
import hashlib
import importlib.metadata
import json
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

from det_seg_agent.compare.matrix import Cell, shorter
from det_seg_agent.compare.selection import selection_figures
from det_seg_agent.errors import AgentError, ConfigError
from det_seg_agent.files import write_json
from det_seg_agent.scenes import kinds, write_scenes

CALIBRATION = 20  # iterations of segmentation
PACKAGES = (
    "det_seg_agent", "torch", "torchvision", "numpy", "ultralytics", "pycocotools", "mmengine", "mmcv-lite", "mmcv",
    "mmsegmentation",
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Do one step; the exit status is 2 for input that cannot work."""
    step, folder = arguments[0], Path(arguments[1])
    warnings.filterwarnings("ignore")  # the hosts' own deprecations
    cell = Cell(**json.loads((folder / "cell.json").read_text(encoding="utf-8")))
    try:
        adapter = _Detection(cell, folder) if cell.task == "detection" else _Segmentation(cell, folder)
        if step == "prepare":
            adapter.prepare()
            return 0
        found = machine()  # before hours pass in which sources may change
        outcome = adapter.train(calibrate=step == "calibrate")
    except AgentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(folder / "outcome.json", {**outcome, "machine": found})
    return 0


def data_root(cell: Cell, folder: Path) -> Path:
    """Return the data's path; the embedded scenes lie beside the cells, by their sizes, rendered where they are not."""
    if cell.data != "scenes":
        return Path(cell.data)
    sizes = "".join(f"-{name}-{value}" for name, value in sorted(cell.scenes.items()))
    return write_scenes(folder.parent / f"scenes{sizes}", **cell.scenes)


class _Detection:
    def __init__(self, cell: Cell, folder: Path):
        self.cell, self.folder = cell, folder
        self.root = data_root(cell, folder)

    def arguments(self) -> dict[str, Any]:
        """Return the host's settings of this cell; with fewer epochs for the shorter schedule."""
        from ultralytics.cfg import DEFAULT_CFG_DICT

        from det_seg_agent.det.arguments import split

        given, agent = split({"plots": False, "verbose": False, **self.cell.host})
        if agent:
            raise ConfigError(f"detection.host: agent.{next(iter(agent))} belongs under detection.agent.")
        if self.cell.role == "short":
            epochs = int(given["epochs"])
            given["epochs"] = shorter(epochs, self.cell.budget)
            # The same number of images in the warm-up, and without mosaic, as the selections have there.
            ratios = [self.cell.schedule().ratio_at(p, epochs) for p in range(epochs)]
            warmup = float(given.get("warmup_epochs", DEFAULT_CFG_DICT["warmup_epochs"]))
            closed = int(given.get("close_mosaic", DEFAULT_CFG_DICT["close_mosaic"]))
            given["warmup_epochs"] = sum(ratio * min(1.0, max(0.0, warmup - p)) for p, ratio in enumerate(ratios))
            given["close_mosaic"] = round(sum(ratios[max(0, epochs - closed) :]))
        return given

    def prepare(self) -> None:
        """Convert the data and let the host write its label caches, so that no cell pays for it."""
        from ultralytics.cfg import get_cfg
        from ultralytics.data import build_yolo_dataset
        from ultralytics.data.utils import check_det_dataset

        from det_seg_agent.det.convert import prepare_data

        arguments = {k: v for k, v in self.arguments().items() if k in ("imgsz", "single_cls", "classes", "fraction")}
        data = check_det_dataset(prepare_data(self.root))
        for split in ("train", "val"):
            build_yolo_dataset(get_cfg(overrides=arguments), data[split], 1, data, mode="val")

    def train(self, calibrate: bool) -> dict[str, Any]:
        """Train, and return quality, cost, curve and selection; a calibration is one epoch of full data."""
        from ultralytics.utils.torch_utils import unwrap_model

        from det_seg_agent.det.cli import train

        host = self.arguments()
        full_epochs, run = int(self.cell.host["epochs"]), self.folder / "run"
        if calibrate:
            host["epochs"] = 1
        agent = self.cell.agent if self.cell.role == "selection" else {"strategy": "full"}
        fixed = {"data": str(self.root), "project": str(self.folder), "name": "run", "exist_ok": True}
        initial: list[str] = []
        note = {"on_pretrain_routine_end": lambda trainer: initial.append(fingerprint(unwrap_model(trainer.model)))}
        result = train({**host, **fixed, "seed": self.cell.seed}, agent, note)
        if not result:
            raise ConfigError("this process judged no weights; give one device a run, and --jobs for several runs.")
        rows = list(csv.DictReader((run / "results.csv").read_text(encoding="utf-8").splitlines()))
        samples = result["full_images_trained"] // result["passes"]
        validated = host.get("val", True)
        names = ["metrics/mAP50-95(B)"] if validated else [n for n in rows[0] if n.startswith("train/")]
        curve = [[int(float(row["agent/images"])), sum(float(row[n]) for n in names)] for row in rows]
        return {
            "quality": 100 * result["coco"]["AP"],
            "metrics": {k: 100 * v if v >= 0 else None for k, v in result["coco"].items()},  # -1: nothing to find
            "initial_weights": initial[0],
            "images": result["images_trained"],
            "full_images": samples * full_epochs,
            "samples": samples,
            "schedule": f"{host['epochs']} epochs",
            "per_image_s": float(rows[-1]["time"]) / result["images_trained"],
            "curve": {
                "name": "mAP50-95 of the host's validation, %" if validated else "training loss",
                "points": [[x, 100 * y if validated else y] for x, y in curve],
            },
            "selection": {} if calibrate else selection_figures(run / "trace", self.kinds()),
        }

    def kinds(self) -> list[str]:
        return list(kinds(self.root).values()) if self.cell.data == "scenes" else []


class _Segmentation:
    def __init__(self, cell: Cell, folder: Path):
        self.cell, self.folder = cell, folder
        self.root = data_root(cell, folder)

    def config(self) -> tuple[Any, int]:
        """Return (config, iterations of full training), by the command line's own function."""
        from det_seg_agent.seg.compat import prepare_host

        prepare_host()
        from det_seg_agent.seg.cli import load_config

        options: dict[str, Any] = {
            f"{s}_dataloader.dataset.data_root": str(self.root) for s in ("train", "val", "test")
        }
        options |= {f"agent.{key}": value for key, value in self.cell.agent.items()}
        if self.cell.role != "selection":
            options["agent.strategy"] = "full"
        options |= {"randomness.seed": self.cell.seed, "experiment_name": self.cell.folder}
        options["visualizer.name"] = self.cell.folder  # the host keeps both by name
        words = argparse.Namespace(
            config=self.cell.config, cfg_options=options, work_dir=str(self.folder / "run"), launcher="none",
            amp=False, resume=False,
        )  # fmt: skip
        config = load_config(words)
        if self.cell.iterations is not None:
            self.lasts(config, self.cell.iterations)
        config.merge_from_dict(self.cell.host)
        if config.train_cfg.get("type") != "AgentIterLoop":
            raise ConfigError(f"train_cfg.type={config.train_cfg.get('type')!r}: AgentIterLoop alone can be compared.")
        return config, int(config.train_cfg.max_iters)

    @staticmethod
    def lasts(config: Any, iterations: int) -> None:
        """Let a run last so long, with all that counts iterations scaled alike, as `AgentIterLoop` does."""
        from det_seg_agent.seg.recipe import shorten

        if left := shorten(config, iterations):
            print(f"warning: {left}", file=sys.stderr)

    def budget(self, config: Any, iterations: int, samples: int) -> float:
        """Return the budget of the matched selection in iterations, by `AgentIterLoop`'s rule."""
        from det_seg_agent.seg.recipe import plan

        return plan(self.cell.schedule(), iterations, samples, config.train_dataloader.batch_size).budget

    def prepare(self) -> None:
        """Read config and data."""
        self.samples(self.config()[0])

    @staticmethod
    def samples(config: Any) -> int:
        """Return the size of the training set."""
        from mmseg.registry import DATASETS
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        return len(DATASETS.build(config.train_dataloader.dataset))

    def train(self, calibrate: bool) -> dict[str, Any]:
        """Train, and return quality, cost, curve and selection; a calibration is a few iterations of full data."""
        config, full = self.config()
        samples, batch, run = self.samples(config), int(config.train_dataloader.batch_size), self.folder / "run"
        if self.cell.role == "short":
            self.lasts(config, shorter(full, self.budget(config, full, samples)))
        validated = -(-full // config.train_cfg.get("val_interval", 1000))
        if calibrate:
            self.lasts(config, min(full, CALIBRATION))
            config.train_cfg.val_interval = config.train_cfg.max_iters
        from mmengine.hooks import Hook
        from mmengine.runner import Runner

        initial: list[str] = []

        class Note(Hook):  # type: ignore[misc]
            def before_train(self, runner: Any) -> None:
                initial.append(fingerprint(runner.model))

        runner = Runner.from_cfg(config)
        runner.register_hook(Note())
        runner.train()
        pace = runner.message_hub.get_scalar("train/time").mean() / batch
        result = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        # a calibration validates once, a run more often
        later = (validated - 1) * (result["wall_time_s"] - pace * result["images_trained"]) if calibrate else 0.0
        return {
            "quality": result["iou"]["mIoU"],
            "metrics": {key: value for key, value in result["iou"].items() if key != "by_class"},
            "initial_weights": initial[0],
            "by_class": result["iou"].get("by_class", {}),
            "images": result["images_trained"],
            "full_images": full * batch,
            "samples": samples,
            "schedule": f"{runner.train_loop.max_iters} iterations",
            "per_image_s": pace,
            "later_s": later,
            "curve": {"name": "mIoU, %", "points": validations(run, batch)},
            "selection": {} if calibrate else selection_figures(run / "trace", self.kinds()),
        }

    def kinds(self) -> list[str]:
        return list(kinds(self.root).values()) if self.cell.data == "scenes" else []


def validations(run: Path, batch: int) -> list[list[float]]:
    """Return [images, mIoU] of each validation in the host's scalars."""
    points = []
    for path in sorted(run.glob("*/vis_data/scalars.json")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        points += [[row["step"] * batch, row["mIoU"]] for row in rows if "mIoU" in row]
    return points


def fingerprint(model: Any) -> str:
    """Return a hash of a model's weights, by which it is seen that all cells of a seed start from the same."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def machine() -> dict[str, str]:
    """Return versions, processor and accelerator."""
    import torch

    found = {"Python": platform.python_version(), "system": platform.platform(), "processor": processor()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name(0)
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    found["our sources"] = digest.hexdigest()[:12]  # a cell's key holds settings and version
    return {**found, "torch": torch.__version__, "threads of torch": str(torch.get_num_threads())}


def processor() -> str:
    """Return the processor's name, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
