"""Copy a data set and give some of its training images wrong classes, for experiments with known truth.

python tools/wrong_classes.py MSRC23 FOLDER --classes 23 --share 0.2     # folders of masks, as ADE20K has them
python tools/wrong_classes.py my.yaml FOLDER --share 0.4 --without person --least-images 45 --least-area 0.02

Of a data set of Ultralytics only the classes with enough images, and boxes of enough area in the median, are kept, and
of its images those that show one of them.
"""

import argparse
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image


def plant(masks: Path, classes: int, share: float, seed: int) -> list[str]:
    """Shift the classes of some masks in a folder, each by its own number; return the names of these masks.

    Args:
        masks: folder of masks, one channel of 8 bits, labels 0 to `classes` - 1; others (void) stay.
        classes: number of classes.
        share: probability of a mask to be changed.
        seed: seed of the choice.
    """
    draw, changed = random.Random(seed), []
    for path in sorted(masks.iterdir()):
        if draw.random() < share:
            image = Image.open(path)
            labels = np.array(image)
            shifted = (labels.astype(int) + draw.randrange(1, classes)) % classes
            wrong = Image.fromarray(np.where(labels < classes, shifted, labels).astype(np.uint8))
            if image.mode == "P":
                wrong.putpalette(image.getpalette() or [])
            wrong.save(path)
            changed.append(path.name)
    return changed


def boxes_of(content: dict[str, Any], split: str) -> dict[str, np.ndarray]:
    """Return the rows (n, 5) of the labels of each image of a split: class, and box as centre and size in 0..1."""
    from ultralytics.data.utils import img2label_paths  # masks need no Ultralytics

    from det_seg_agent.det.inspection import image_files

    found = content[split]
    files = image_files([str(each) for each in (found if isinstance(found, list) else [found])])
    rows = {}
    for file, labels in zip(files, img2label_paths(files), strict=True):
        lines = Path(labels).read_text(encoding="utf-8").splitlines() if Path(labels).is_file() else []
        rows[file] = np.array([line.split()[:5] for line in lines if line.strip()], np.float64).reshape(-1, 5)
    return rows


def plant_boxes(data: Path, out: Path, options: argparse.Namespace) -> list[str]:
    """Write a copy of an Ultralytics data set with the kept classes; return the names of the images with wrong ones.

    In an image with wrong classes those of all objects are shifted by the same number, drawn for each image.
    """
    from ultralytics.data.utils import check_det_dataset

    content = check_det_dataset(str(data), autodownload=False)
    splits = {split: boxes_of(content, split) for split in ("train", "val")}
    names = {int(c): str(name) for c, name in content["names"].items()}
    rows = list(splits["train"].values())
    kept = [
        c
        for c, name in sorted(names.items())
        if name not in options.without
        and sum(bool((each[:, 0] == c).any()) for each in rows) >= options.least_images
        and np.median(np.concatenate([each[each[:, 0] == c, 3:].prod(1) for each in rows])) > options.least_area
    ]
    draw, changed = random.Random(options.seed), []
    if len(kept) < 2:
        raise SystemExit(f"{data}: {len(kept)} classes are kept, two are needed; ask for fewer images or less area.")
    for split, images in splits.items():
        for kind in ("images", "labels"):
            (out / kind / split).mkdir(parents=True)
        for file, own in sorted(images.items(), key=lambda item: Path(item[0]).name):
            own = own[np.isin(own[:, 0], kept)]
            if not len(own):
                continue
            shift = 0
            if split == "train" and draw.random() < options.share:
                shift = draw.randrange(1, len(kept))
                changed.append(Path(file).name)
            text = "".join(
                f"{(kept.index(int(c)) + shift) % len(kept)} {' '.join(f'{v:.6f}' for v in box)}\n" for c, *box in own
            )
            (out / "labels" / split / f"{Path(file).stem}.txt").write_text(text, encoding="utf-8")
            shutil.copy(file, out / "images" / split)
    layout = {"train": "images/train", "val": "images/val", "names": {i: names[c] for i, c in enumerate(kept)}}
    (out / "data.yaml").write_text(yaml.safe_dump(layout, sort_keys=False), encoding="utf-8")
    return changed


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with images/training and annotations/training, or a data YAML")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--classes", type=int, help="number of classes of the masks")
    parser.add_argument("--without", nargs="*", default=[], help="classes of boxes to leave out")
    parser.add_argument("--least-images", type=int, default=1, help="training images that a class of boxes needs")
    parser.add_argument("--least-area", type=float, default=0.0, help="median share of an image that its boxes need")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists; name a new folder")
    if options.data.suffix in (".yaml", ".yml"):
        changed = plant_boxes(options.data, options.out, options)
    elif options.classes is None:
        parser.error("masks need --classes")
    else:
        shutil.copytree(options.data, options.out)
        changed = plant(options.out / "annotations/training", options.classes, options.share, options.seed)
    (options.out / "wrong.json").write_text(json.dumps(changed), encoding="utf-8")
    print(f"{len(changed)} training images of {options.out} have wrong classes; wrong.json names them")


if __name__ == "__main__":
    main()
