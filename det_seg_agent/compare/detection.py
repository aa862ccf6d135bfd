"""A cell of detection."""

import csv
from pathlib import Path
from typing import Any

from det_seg_agent.compare.cells import Cell, shorter
from det_seg_agent.compare.data import data_root, kinds_of
from det_seg_agent.compare.fingerprint import fingerprint
from det_seg_agent.compare.selection import selection_figures
from det_seg_agent.errors import ConfigError


class Detection:
    def __init__(self, cell: Cell, folder: Path):
        self.cell, self.folder = cell, folder
        self.root = data_root(cell, folder)

    def arguments(self) -> dict[str, Any]:
        """Return the host's settings of this cell; with fewer epochs for the shorter schedule."""
        from ultralytics.cfg import DEFAULT_CFG_DICT

        from det_seg_agent.det.cli import split

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
            "selection": {} if calibrate else selection_figures(run / "trace", kinds_of(self.cell, self.root)),
        }
