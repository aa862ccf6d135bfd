import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools/wrong_classes.py"


def test_it_changes_the_classes_of_some_training_masks_and_names_them(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for split, number in (("training", 40), ("validation", 4)):
        folder = tmp_path / "data/annotations" / split
        folder.mkdir(parents=True)
        for i in range(number):
            labels = draw.integers(0, 5, (8, 8)).astype(np.uint8)
            labels[0] = 255
            Image.fromarray(labels).save(folder / f"{i}.png")
    command = [sys.executable, TOOL, tmp_path / "data", tmp_path / "noisy", "--classes", "5", "--share", "0.25"]

    subprocess.run(command, check=True, capture_output=True)

    named, changed = set(json.loads((tmp_path / "noisy/wrong.json").read_text())), set()
    for path in sorted((tmp_path / "data").rglob("*.png")):
        before = np.array(Image.open(path)).astype(int)
        after = np.array(Image.open(tmp_path / "noisy" / path.relative_to(tmp_path / "data"))).astype(int)
        if not np.array_equal(before, after):
            changed.add(path.name)
            assert path.parent.name == "training"
            assert (after[0] == 255).all(), "void stays"
            assert len(set(((after[1:] - before[1:]) % 5).flat)) == 1, "one shift for the whole mask"
    assert changed == named
    assert 4 <= len(named) <= 16
    assert subprocess.run(command, capture_output=True).returncode == 2, "it overwrites nothing"
