"""`tools/wrong_classes.py` on a data set of Ultralytics: which images have wrong classes, and what is left alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from det_seg_agent.det.coco_convert import prepare_data
from det_seg_agent.scenes import write_scenes

TOOL = Path(__file__).parents[2] / "tools/wrong_classes.py"


def labels_of(folder: Path, split: str) -> dict[str, np.ndarray]:
    return {f.stem: np.loadtxt(f, ndmin=2) for f in sorted((folder / "labels" / split).glob("*.txt"))}


def test_some_images_have_all_their_classes_shifted_and_the_rest_is_a_copy(tmp_path: Path) -> None:
    data = prepare_data(write_scenes(tmp_path / "scenes", 40, 8, 64, classes=4))
    names = list(yaml.safe_load(Path(data).read_text())["names"].values())
    found = {}
    for name, share in (("right", "0"), ("wrong", "0.5")):
        command = [sys.executable, str(TOOL), str(data), str(tmp_path / name), "--share", share, "--without", names[0]]
        subprocess.run(command, check=True)
        found[name] = [labels_of(tmp_path / name, split) for split in ("train", "val")]
        assert list(yaml.safe_load((tmp_path / name / "data.yaml").read_text())["names"].values()) == names[1:]
    wrong = {Path(file).stem for file in json.loads((tmp_path / "wrong/wrong.json").read_text())}
    (right, val), (shifted, val_) = found["right"], found["wrong"]
    assert right.keys() == shifted.keys() and 8 <= len(wrong) <= len(right) - 8
    for stem, own in right.items():
        assert np.array_equal(own[:, 1:], shifted[stem][:, 1:]), "boxes stay"
        steps = set(((shifted[stem][:, 0] - own[:, 0]) % 3).tolist())
        assert (steps == {0.0}) == (stem not in wrong) and len(steps) == 1
    assert all(np.array_equal(val[stem], val_[stem]) for stem in val), "the validation is right"
    assert len(list((tmp_path / "wrong/images/train").iterdir())) == len(shifted)
