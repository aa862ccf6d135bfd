"""Copy a segmentation data set and give some of its training masks wrong classes, for experiments with known truth.

python tools/wrong_classes.py MSRC23 FOLDER --classes 23 --share 0.2
"""

import argparse
import json
import random
import shutil
from pathlib import Path

import numpy as np
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


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with images/training and annotations/training")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists; name a new folder")
    shutil.copytree(options.data, options.out)
    changed = plant(options.out / "annotations/training", options.classes, options.share, options.seed)
    (options.out / "wrong.json").write_text(json.dumps(changed), encoding="utf-8")
    print(f"{len(changed)} masks of {options.out} have wrong classes; wrong.json names them")


if __name__ == "__main__":
    main()
