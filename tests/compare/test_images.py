"""Figures of bootstrap samples of the test images: those that the toolboxes' own judges give for such a test set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from det_seg_agent.compare.images import CACHE, FILE, class_iou, resampled, save
from det_seg_agent.compare.matches import average_precision, matched
from det_seg_agent.compare.stats import resampled_counts
from det_seg_agent.det.coco_metrics import coco_metrics
from det_seg_agent.det.truth import Truth

CLASSES = 3
Kept = dict[str, list[dict[str, Any]]]


def made_up(images: int, seed: int = 0, ties: bool = False) -> tuple[Truth, Kept]:
    """Return objects, a tenth of them crowds, and detections near them; the last class is in one image alone."""
    generator = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    kept: Kept = {}
    for image in range(1, images + 1):
        kept[f"{image}.jpg"] = []
        for _ in range(generator.integers(0, 6)):
            c = int(generator.integers(1, CLASSES)) if image > 1 else CLASSES
            box = [*generator.uniform(0, 80, 2), *generator.uniform(10, 40, 2)]
            crowd = int(generator.random() < 0.1)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": c, "bbox": box, "iscrowd": crowd,
                 "area": box[2] * box[3]}
            )  # fmt: skip
            for _ in range(generator.integers(0, 3)):
                near = (np.array(box) + generator.normal(0, 3, 4)).tolist()
                score = float(np.float32(generator.random()))
                kept[f"{image}.jpg"].append({"class": c - 1, "score": round(score, 1) if ties else score, "bbox": near})
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 120, "height": 120} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": c, "name": f"class {c}"} for c in range(1, CLASSES + 1)],
    }
    ids = {f"{i}.jpg": i for i in range(1, images + 1)}
    return Truth(content, ids, {c: c + 1 for c in range(CLASSES)}, "", []), kept


def repeated(truth: Truth, kept: Kept, counts: np.ndarray) -> tuple[Truth, Kept]:
    """Return the test set with each image as often as counted."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    again: Kept = {}
    for image, count in zip(truth.content["images"], counts.tolist()):
        for _ in range(count):
            name = f"{len(images) + 1}.jpg"
            images.append({**image, "id": len(images) + 1, "file_name": name})
            again[name] = kept[image["file_name"]]
            annotations += [
                {**a, "id": len(annotations) + k, "image_id": len(images)}
                for k, a in enumerate((a for a in truth.content["annotations"] if a["image_id"] == image["id"]), 1)
            ]
    content = {**truth.content, "images": images, "annotations": annotations}
    return Truth(content, {i["file_name"]: i["id"] for i in images}, truth.category, "", []), again


def stock(truth: Truth, kept: Kept) -> dict[str, float]:
    """Return the metrics of the whole package's judge."""
    rows = [
        {"image_id": truth.ids[file], "category_id": truth.category[d["class"]], "score": d["score"], "bbox": d["bbox"]}
        for file, found in kept.items()
        for d in found
    ]
    return coco_metrics(truth.content, rows, truth.ids.values())


@pytest.mark.parametrize("ties", [False, True])
def test_ap_of_the_matches_is_pycocotools(ties: bool) -> None:
    truth, kept = made_up(20, ties=ties)
    arrays = matched(kept, truth, 300)
    assert arrays["objects"].sum() == sum(not a["iscrowd"] for a in truth.content["annotations"])
    found = average_precision(arrays, np.ones((1, 20), np.uint16))[0]
    theirs = stock(truth, kept)
    assert np.nanmean(found) == pytest.approx(theirs["AP"], abs=1e-6)
    assert np.nanmean(found[:, 0]) == pytest.approx(theirs["AP50"], abs=1e-6)
    assert np.nanmean(found[:, 5]) == pytest.approx(theirs["AP75"], abs=1e-6)


def test_ap_of_a_sample_is_that_of_the_repeated_images() -> None:
    truth, kept = made_up(15, seed=4)
    arrays, counts = matched(kept, truth, 300), resampled_counts(15, 12)
    found = average_precision(arrays, counts)
    lacking = 0
    for row, ap in zip(counts, found):
        theirs = stock(*repeated(truth, kept, row))
        assert np.nanmean(ap) == pytest.approx(theirs["AP"], abs=1e-6)
        assert np.nanmean(ap[:, 0]) == pytest.approx(theirs["AP50"], abs=1e-6)
        lacking += int(np.isnan(ap[2]).all())
        assert np.isnan(ap[2]).all() == (row[0] == 0), "the class of one image is undefined without it"
    assert 0 < lacking < 12


def test_nothing_found_and_nothing_there() -> None:
    truth, kept = made_up(5)
    nothing = average_precision(matched({name: [] for name in kept}, truth, 300), np.ones((2, 5), np.uint16))
    assert nothing.shape == (2, CLASSES, 10) and set(nothing[~np.isnan(nothing)]) <= {0.0}


def test_iou_of_samples_by_hand() -> None:
    arrays = {"intersect": np.array([[2, 0], [4, 0]]), "union": np.array([[4, 0], [4, 5]])}
    found = class_iou(arrays, np.array([[1, 1], [2, 0], [0, 2]]))
    assert found[0].tolist() == [6 / 8, 0] and found[2].tolist() == [1, 0]
    assert found[1][0] == 0.5 and np.isnan(found[1][1])


def test_samples_are_kept_and_made_again_where_they_are_others(tmp_path: Path) -> None:
    arrays = {"names": np.array(["a", "b"]), "intersect": np.arange(8).reshape(4, 2), "union": np.full((4, 2), 9)}
    assert resampled(tmp_path, 10) is None
    save(tmp_path, arrays)
    found = resampled(tmp_path, 10)
    assert found is not None and (found.names, found.images) == (("a", "b"), 4)
    assert found.values.keys() == {"by_class"} and found.values["by_class"].shape == (10, 2)
    stamp = (tmp_path / CACHE).stat().st_mtime_ns
    again = resampled(tmp_path, 10)
    assert again is not None and (tmp_path / CACHE).stat().st_mtime_ns == stamp
    assert np.array_equal(again.values["by_class"], found.values["by_class"])
    more = resampled(tmp_path, 20)
    assert more is not None and np.array_equal(more.values["by_class"][:10], found.values["by_class"])
    (tmp_path / CACHE).write_bytes(b"cut short")
    mended = resampled(tmp_path, 20)
    assert mended is not None and np.array_equal(mended.values["by_class"], more.values["by_class"])
    (tmp_path / FILE).write_bytes(b"cut short")
    assert resampled(tmp_path, 20) is None


def test_detections_go_through_the_file(tmp_path: Path) -> None:
    truth, kept = made_up(12)
    arrays = matched(kept, truth, 300)
    save(tmp_path, arrays)
    found = resampled(tmp_path, 30)
    assert found is not None and found.values.keys() == {"by_class", "by_class50"}
    ap = 100 * average_precision(arrays, resampled_counts(12, 30))
    assert found.values["by_class"] == pytest.approx(ap.mean(2), nan_ok=True, abs=1e-4)
    assert found.values["by_class50"] == pytest.approx(ap[:, :, 0], nan_ok=True, abs=1e-4)
