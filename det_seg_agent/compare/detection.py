"""Training and evaluation of a detection cell. `compare.child` runs it in a child process."""

import csv
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from det_seg_agent.compare.attempts import elapsed, note_weights, restart
from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.data import Aside, data_root, kinds_of
from det_seg_agent.compare.fingerprint import (
    digest,
    digest_of_file,
    digest_of_files,
    digest_of_weights,
    portable,
    versions,
)
from det_seg_agent.compare.images import save
from det_seg_agent.compare.selection import selection_figures
from det_seg_agent.errors import ConfigError
from det_seg_agent.messages import LOGGER

# Settings that cannot change a result, or that the key covers elsewhere.
NEUTRAL = frozenset({
    "device", "workers", "cache", "verbose", "plots", "show", "profile", "save", "save_period", "save_json",
    "save_dir", "project", "name", "exist_ok", "mode", "data", "model", "seed",
})  # fmt: skip
EARLY_STOP = {"patience": 0}  # off, as cells would otherwise end at different budgets


class Detection:
    """Trains and evaluates a detector by our command line's functions.

    Args:
        cell: the cell.
        folder: folder of the cell.
        device: in place of the device in the host's settings.
    """

    def __init__(self, cell: Cell, folder: Path, device: str | None = None):
        self.cell, self.folder, self.device = cell, folder, device
        self.root = data_root(cell, folder)

    def arguments(self) -> dict[str, Any]:
        """Return the host's settings of this cell, with fewer epochs for the shorter schedule."""
        from ultralytics.cfg import DEFAULT_CFG_DICT

        from det_seg_agent.det.arguments import split

        given, _ = split({"plots": False, "verbose": False, **EARLY_STOP, **self.cell.host})
        if self.cell.role == "short":
            epochs = int(given["epochs"])
            given["epochs"] = self.cell.epochs
            # As many images in the warm-up, and after mosaic is switched off, as in a run with selections.
            ratios = [self.cell.schedule().ratio_at(p, epochs) for p in range(epochs)]
            warmup = float(given.get("warmup_epochs", DEFAULT_CFG_DICT["warmup_epochs"]))
            closed = int(given.get("close_mosaic", DEFAULT_CFG_DICT["close_mosaic"]))
            given["warmup_epochs"] = sum(ratio * min(1.0, max(0.0, warmup - p)) for p, ratio in enumerate(ratios))
            given["close_mosaic"] = round(sum(ratios[max(0, epochs - closed) :]))
        if self.device is not None:
            given["device"] = self.device
        return given

    def prepare(self) -> dict[str, str]:
        """Convert the data, make the host write its label caches (so that no cell's time includes it), load the model.

        Returns:
            Digests of the host's settings, the model, the data and versions; see `fingerprint`.

        Raises:
            ConfigError: if data or model are unusable.
        """
        from ultralytics.cfg import get_cfg
        from ultralytics.utils.downloads import attempt_download_asset

        from det_seg_agent.det.cli import load_model

        arguments = self.arguments()
        settings = dict(vars(get_cfg(overrides=arguments)))
        if isinstance(settings["pretrained"], str):
            settings["pretrained"] = attempt_download_asset(settings["pretrained"])
        model = load_model(dict(arguments))
        if model.task not in ("detect", "segment"):
            raise ConfigError(f"detection.host.model: AP is that of boxes, and the model is for {model.task}.")
        layers = {k: v for k, v in getattr(model.model, "yaml", {}).items() if k != "yaml_file"}
        return {
            "settings": digest(portable(settings, NEUTRAL)),
            "model": digest(portable(str(model.ckpt_path)) if model.ckpt_path else portable(layers)),
            "data": digest(self.data(settings)),
            "versions": digest(versions("detection")),
        }

    def data(self, settings: dict[str, Any]) -> list[Any]:
        """Return class names and digests of the images and labels of both splits, as the host reads them."""
        from ultralytics.cfg import get_cfg
        from ultralytics.data import build_yolo_dataset
        from ultralytics.data.utils import check_det_dataset

        from det_seg_agent.det.coco_convert import prepare_data
        from det_seg_agent.det.coco_metrics import find_val_json

        data = check_det_dataset(prepare_data(self.root))
        judged = find_val_json(data)
        found = [data["names"], data.get("channels"), judged and digest_of_file(judged)]
        for split in ("train", "val"):
            dataset = build_yolo_dataset(get_cfg(overrides=settings), data[split], 1, data, mode="val")
            labels = hashlib.sha256()
            for label in dataset.labels:
                for array in (label["cls"], label["bboxes"], *label["segments"]):
                    labels.update(array.tobytes())
            found += [digest_of_files([str(file) for file in dataset.im_files]), labels.hexdigest()]
        return found

    def train(self, calibrate: bool, resume: bool = False) -> dict[str, Any]:
        """Train and return the outcome: quality, cost, curve and selection.

        Args:
            calibrate: whether to train one epoch of full data.
            resume: whether to go on with an attempt that was stopped, from its last epoch, if it reached one.

        Raises:
            ConfigError: if the training fails on its input, or did not evaluate the weights.
        """
        from det_seg_agent.det.cli import train
        from det_seg_agent.det.compat import unwrap_model

        host = self.arguments()
        full_epochs, run = int(self.cell.host["epochs"]), self.folder / "run"
        if calibrate:
            host["epochs"] = 1
        agent = self.cell.agent if self.cell.role in ("selection", "native") else {"strategy": "full"}
        fixed = {"data": str(self.root), "project": str(self.folder), "name": "run", "exist_ok": True}
        started: dict[str, Any] = {}
        last = self.resumable() if resume else None
        if resume and last is None:
            restart(self.folder)
        given = {**host, **fixed, "seed": self.cell.seed}
        if last is not None:  # the checkpoint has the settings; these may differ on another machine
            movable: dict[str, Any] = {k: host[k] for k in ("device", "workers", "cache") if k in host}
            given = {"resume": str(last), "data": str(self.root), "save_dir": str(run), **movable}

        def note(trainer: Any) -> None:
            weights = note_weights(self.folder, digest_of_weights(unwrap_model(trainer.model)))
            started.update(weights=weights, batch=int(trainer.batch_size), trainer=trainer)

        result = train(given, agent, {"on_pretrain_routine_end": note}, judged="last")
        if not result:
            raise ConfigError("this process judged no weights; give one device a run, and --jobs for several runs.")
        with Aside() as aside:
            by_class = {} if calibrate else self.by_class(started["trainer"])
        rows = list(csv.DictReader((run / "results.csv").read_text(encoding="utf-8").splitlines()))
        samples = result["full_images_trained"] // result["passes"]
        validated = host.get("val", True)
        names = ["metrics/mAP50-95(B)"] if validated else [n for n in rows[0] if n.startswith("train/")]
        curve = [[int(float(row["agent/images"])), sum(float(row[n]) for n in names)] for row in rows]
        return {
            "quality": 100 * result["coco"]["AP"],
            "metrics": {k: 100 * v if v >= 0 else None for k, v in result["coco"].items()},  # -1: nothing to find
            **by_class,
            "aside": aside.spent,
            "initial_weights": started["weights"],
            "images": result["images_trained"],
            "full_images": samples * full_epochs,
            "samples": samples,
            "batch": started["batch"],
            "processes": 1,
            "schedule": f"{host['epochs']} epochs",
            "per_image_s": elapsed([float(row["time"]) for row in rows]) / result["images_trained"],
            "resumed": last is not None,
            "curve": {
                "name": "mAP50-95 of the host's validation, %" if validated else "training loss",
                "points": [[x, 100 * y if validated else y] for x, y in curve],
                "seconds": [float(row["time"]) for row in rows],
            },
            "selection": {} if calibrate else selection_figures(run / "trace", kinds_of(self.cell, self.root)),
        }

    def resumable(self) -> Path | None:
        """Return the checkpoint to go on from; None if there is none, or its run was finished."""
        from det_seg_agent.det.resume import epoch_of, find_state

        last = self.folder / "run/weights/last.pt"
        if not last.is_file() or epoch_of(last) < 0:
            return None
        try:
            find_state(last)
        except ConfigError as error:
            LOGGER.warning(f"{error} The cell starts again.")
            return None
        return last

    def by_class(self, trainer: Any) -> dict[str, Any]:
        """Return AP by class of the last validation, and how often each class occurs; store the matches by image."""
        import numpy as np

        from det_seg_agent.compare.matches import average_precision, matched
        from det_seg_agent.det.judge import class_names
        from det_seg_agent.det.truth import load_truth

        validator = trainer.validator
        truth = load_truth(validator.val_json, validator.dataloader.dataset, class_names(trainer), validator.args)
        arrays = matched(validator.kept, truth, validator.args.max_det)
        save(self.folder, arrays)
        ap = 100 * average_precision(arrays, np.ones((1, len(arrays["objects"])), np.uint16))[0]
        names = [str(name) for name in arrays["names"]]
        name_of = {c["id"]: str(c["name"]) for c in truth.content["categories"]}
        shown = Counter(int(c) for label in trainer.train_loader.dataset.labels for c in set(label["cls"].reshape(-1)))
        return {
            "by_class": {name: None if np.isnan(row[0]) else float(row.mean()) for name, row in zip(names, ap)},
            "by_class50": {name: None if np.isnan(row[0]) else float(row[0]) for name, row in zip(names, ap)},
            "classes": {
                "train_images": {name_of[c]: shown.get(index, 0) for index, c in truth.category.items()},
                "test_images": dict(zip(names, (arrays["objects"] > 0).sum(0).tolist())),
                "test_objects": dict(zip(names, arrays["objects"].sum(0).tolist())),
            },
        }
