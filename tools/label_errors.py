"""Does `suspect` of samples.csv find wrong labels? Errors of four kinds are planted, one object an image.

A detector is trained on all images. For each kind the area under the ROC curve and the precision among the k most
suspected are printed, where k is the number planted, of the images with that kind and those without any; beside
`suspect` for the mean loss and for random order.

    python tools/label_errors.py                       # embedded scenes, 3 seeds
    python tools/label_errors.py --hard 25 --wrong 30  # hard scenes among them, and scenes with all labels wrong
    python tools/label_errors.py --data my.yaml --model yolov8n.pt --epochs 10 --imgsz 640
"""

import argparse
import os
from pathlib import Path

import numpy as np
import yaml
from ultralytics import YOLO

from det_seg_agent.det.coco_convert import prepare_data
from det_seg_agent.det.inspection import read_yaml
from det_seg_agent.det.trainer import AgentDetectionTrainer
from det_seg_agent.inspecting.contents import Contents
from det_seg_agent.reporting.samples import read_samples
from det_seg_agent.scenes import truth_of, write_scenes

KINDS = ("other class", "shifted box", "missing box", "extra box")
WHOLE = {"classes": "all classes", "places": "all places"}  # what scenes with wrong labels have wrong
SCORES = ("suspect", "loss_mean")
TWO_LEVELS = Path(__file__).parents[1] / "configs/det/models/two_levels.yaml"
SCENES = {"cls": 1.0, "lr0": 0.003, "nbs": 8, "batch": 8, "hsv_s": 0.2}  # those of configs/compare/noise.yaml


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU (n,) of a box x1 y1 x2 y2 with others (n, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = (high - low).clip(0).prod(1)
    found: np.ndarray = both / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - both)
    return found


def moved(box: np.ndarray, others: np.ndarray, generator: np.random.Generator, most: float) -> np.ndarray | None:
    """Return the box at another place in the image, where its IoU with all others is at most `most`; None if none."""
    size = box[2:] - box[:2]
    for _ in range(100):
        start = generator.uniform(0, 1 - size)
        found = np.concatenate([start, start + size])
        if iou(found, others).max(initial=0.0) <= most:
            return found
    return None


def plant(contents: Contents, share: float, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return labels (n, 5) of each image, class and box, with errors, and the kind (N,) of each image, -1 without.

    Args:
        contents: the labels.
        share: share of the images that get an error of each kind.
        seed: of the choice.
    """
    generator = np.random.default_rng(seed)
    assert contents.boxes is not None
    rows = np.column_stack([contents.cls, contents.boxes]).astype(np.float64)
    labels = np.split(rows, np.searchsorted(contents.image, np.arange(1, len(contents))))
    kinds = np.full(len(contents), -1)
    fit = generator.permutation([i for i, each in enumerate(labels) if len(each) >= 2])
    count = round(share * len(contents))
    for place, index in enumerate(fit[: count * len(KINDS)].tolist()):
        kind, own = place % len(KINDS), labels[index].copy()
        object_ = int(generator.integers(len(own)))
        if KINDS[kind] == "other class":
            others = [c for c in np.unique(contents.cls).tolist() if c != own[object_, 0]]
            own[object_, 0] = generator.choice(others)
        elif KINDS[kind] == "missing box":
            own = np.delete(own, object_, 0)
        else:
            extra = KINDS[kind] == "extra box"
            given = rows[generator.integers(len(rows))] if extra else own[object_]
            box = moved(given[1:], own[:, 1:], generator, 0.1)
            if box is None:
                continue
            if extra:
                own = np.vstack([own, [given[0], *box]])
            else:
                own[object_, 1:] = box
        labels[index], kinds[index] = own, kind
    return labels, kinds


def write(contents: Contents, labels: list[np.ndarray], val: str, folder: Path) -> tuple[Path, list[str]]:
    """Write a data set with these labels and links to the images; return its YAML and the links, by index."""
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True, exist_ok=True)
    files = []
    for index, file in enumerate(contents.files):
        link = folder / "images/train" / f"{index:06d}{Path(file).suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.realpath(file))
        files.append(str(link))
        own = labels[index]
        corners = own[:, 1:].clip(0, 1)
        boxes = np.hstack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])
        text = "".join(f"{int(c)} {' '.join(f'{v:.6f}' for v in box)}\n" for c, box in zip(own[:, 0], boxes))
        (folder / "labels/train" / f"{index:06d}.txt").write_text(text, encoding="utf-8")
    layout = {"train": str(folder / "images/train"), "val": val, "names": dict(enumerate(contents.names))}
    (folder / "data.yaml").write_text(yaml.safe_dump(layout), encoding="utf-8")
    return folder / "data.yaml", files


def measured(score: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Return AUROC, and precision among the k highest for k wrong ones; ties count half and by chance."""
    above = (score[wrong][:, None] > score[~wrong][None]).mean() + (score[wrong][:, None] == score[~wrong]).mean() / 2
    order = np.lexsort((np.random.default_rng(0).random(len(score)), -score))
    return float(above), float(wrong[order[: wrong.sum()]].mean())


def main() -> None:
    """Plant, train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="an Ultralytics data YAML; by default 400 embedded scenes")
    parser.add_argument("--model", default=str(TWO_LEVELS))
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--imgsz", type=int, default=96)
    parser.add_argument("--hard", type=int, default=0, help="percentage of hard scenes")
    parser.add_argument("--wrong", type=int, default=0, help="percentage of scenes with all labels wrong; none planted")
    parser.add_argument("--share", type=float, default=0.05, help="share of the images with an error, of each kind")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="runs/label_errors")
    given = parser.parse_args()
    names = tuple(WHOLE.values()) if given.wrong else KINDS
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in given.seeds:
        folder = Path(given.out).absolute() / f"seed{seed}"
        data = given.data or prepare_data(
            write_scenes(folder / "scenes", 400, 16, 96, seed, given.hard, 0, given.wrong, classes=8, class_colours=90)
        )
        contents = read_yaml(data)
        labels, kinds = plant(contents, 0.0 if given.wrong else given.share, seed)
        if given.wrong:
            truth = truth_of(folder / "scenes")
            wrong_ = [truth[Path(file).name]["wrong"] for file in contents.files]
            kinds = np.array([list(WHOLE).index(each) if each else -1 for each in wrong_])
        planted, files = write(contents, labels, str(Path(contents.files[0]).parent), folder / "data")
        model = YOLO(given.model)
        model.train(
            trainer=AgentDetectionTrainer.configured(strategy="full"), data=str(planted), epochs=given.epochs,
            imgsz=given.imgsz, device=given.device, mosaic=0.0, close_mosaic=0, seed=seed, plots=False, verbose=False,
            val=False, project=str(folder), name="run", exist_ok=True, workers=0, optimizer="AdamW",
            **({} if given.data else {"warmup_epochs": 1, **SCENES}),
        )  # fmt: skip
        rows = read_samples(Path(model.trainer.save_dir))
        place = {file: index for index, file in enumerate(files)}
        kind = kinds[[place[file] for file in rows["file"].to_pylist()]]
        for name in (*names, "any"):
            wrong = kind >= 0 if name == "any" else kind == names.index(name)
            taken = wrong | (kind < 0)
            for score in SCORES:
                values = rows[score].to_numpy().astype(np.float64)
                values = np.nan_to_num(values, nan=float(np.nanmin(values)))
                found.setdefault((name, score), []).append(measured(values[taken], wrong[taken]))
            found.setdefault((name, "random"), []).append((0.5, float(wrong[taken].mean())))
    print("\n| error | " + " | ".join(f"AUROC {s} | precision {s}" for s in (*SCORES, "random")) + " |")
    print("| --- |" + " --- | --- |" * (len(SCORES) + 1))
    for name in (*names, "any"):
        cells = [" / ".join(f"{v[which]:.2f}" for v in found[name, s]) for s in (*SCORES, "random") for which in (0, 1)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
