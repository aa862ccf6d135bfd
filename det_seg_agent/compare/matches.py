"""Detections matched to objects, image by image, and AP by class from them. `compare.detection` stores them.

pycocotools matches; what is kept is enough to compute AP of any sample of the test images, see `average_precision`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_seg_agent.det.coco_metrics import evaluation
from det_seg_agent.det.truth import Truth

RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's
THRESHOLDS = 10  # IoU .50, .55, ..., .95
CHUNK = 4_000_000  # numbers in a temporary array

Arrays = dict[str, NDArray[Any]]


def matched(kept: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth, max_det: int) -> Arrays:
    """Match the boxes of a validation to the objects with pycocotools' own rule.

    Args:
        kept: by image file, the detections that the validator stored.
        truth: ground truth.
        max_det: the host's limit of detections per image.

    Returns:
        "names" (C,) of the classes; "objects" (N, C), number of objects that count in each image; and one entry for
        each detection, sorted by class and falling score: "image", "class" (indices), "score", and "matched" and
        "ignored", whose bit t is set at the t-th IoU threshold. Detections below the last match of their class are
        left out, because they cannot change AP.
    """
    judge = evaluation(truth.content, truth.results(kept), truth.ids.values(), "bbox", max_det)
    images, classes, areas = len(judge.params.imgIds), judge.params.catIds, len(judge.params.areaRng)
    limit = judge.params.maxDets[-1]
    names = {c["id"]: str(c["name"]) for c in truth.content["categories"]}
    objects = np.zeros((images, len(classes)), np.int32)
    bits = (1 << np.arange(THRESHOLDS)).astype(np.uint16)
    columns: dict[str, list[NDArray[Any]]] = {k: [] for k in ("image", "class", "score", "matched", "ignored")}
    for k in range(len(classes)):
        found: list[list[NDArray[Any]]] = []
        for i, entry in enumerate(judge.evalImgs[k * areas * images : k * areas * images + images]):  # all areas
            if entry is None:
                continue
            objects[i, k] = np.count_nonzero(np.logical_not(entry["gtIgnore"]))
            hit = np.asarray(entry["dtMatches"])[:, :limit] > 0
            ignored = np.asarray(entry["dtIgnore"])[:, :limit].astype(bool)
            score = np.asarray(entry["dtScores"], np.float32)[:limit]
            found.append([np.full(len(score), i, np.int32), score, bits @ (hit & ~ignored), bits @ ignored])
        image, score, hits, ignores = (
            map(np.concatenate, zip(*found)) if found else (np.zeros(0, t) for t in ("i4", "f4", "u2", "u2"))
        )
        order = np.argsort(-score, kind="mergesort")  # as pycocotools
        last = np.flatnonzero(hits[order])
        order = order[: last[-1] + 1 if len(last) else 0]
        for name, column in zip(("image", "score", "matched", "ignored"), (image, score, hits, ignores)):
            columns[name].append(column[order])
        columns["class"].append(np.full(len(order), k, np.int16))
    arrays = {name: np.concatenate(column) for name, column in columns.items()}
    kinds = {"image": np.int32, "score": np.float32, "matched": np.uint16, "ignored": np.uint16}
    arrays |= {name: arrays[name].astype(kind) for name, kind in kinds.items()}
    return {"names": np.array([names[c] for c in classes]), "objects": objects, **arrays}


def average_precision(arrays: Mapping[str, NDArray[Any]], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return AP of each sample of the test images, by class and IoU threshold, as pycocotools defines it.

    Equal scores of repeated images stand side by side, which cannot change the envelope of precision; so this is the
    AP of a test set that has each image as often as counted.

    Args:
        arrays: result of `matched`.
        counts: (B, N), how often each image is in each sample.

    Returns:
        (B, C, 10) in [0, 1]; NaN where a sample has no object of the class.
    """
    classes, images = len(arrays["names"]), counts.shape[1]
    objects = counts.astype(np.float64) @ arrays["objects"].astype(np.float64)
    found = np.full((len(counts), classes, THRESHOLDS), np.nan)
    for k in range(classes):
        mine = slice(*np.searchsorted(arrays["class"], [k, k + 1]))
        image, hits, ignores = (arrays[name][mine] for name in ("image", "matched", "ignored"))
        step = max(1, CHUNK // max(1, len(image), images))
        for start in range(0, len(counts), step):
            part = slice(start, start + step)
            found[part, k] = _one_class(counts[part][:, image], hits, ignores, objects[part, k])
    return found


def _one_class(
    weights: NDArray[Any], hits: NDArray[Any], ignores: NDArray[Any], objects: NDArray[Any]
) -> NDArray[np.float64]:
    """Return (B, 10) AP of a class from the weights (B, D) of its detections and its number of objects (B,)."""
    found = np.zeros((len(weights), THRESHOLDS))
    passed = np.cumsum(weights, 1, dtype=np.float64)
    for t in range(THRESHOLDS):
        at = np.flatnonzero(hits >> t & 1)
        if not len(at):
            continue
        counted = passed[:, at]
        aside = np.flatnonzero(ignores >> t & 1)
        if len(aside):
            before = np.searchsorted(aside, at)
            sums = np.cumsum(weights[:, aside], 1, dtype=np.float64)
            counted = counted - np.where(before > 0, sums[:, np.maximum(before - 1, 0)], 0.0)
        true = np.cumsum(weights[:, at], 1, dtype=np.float64)
        precision = true / (counted + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        recall = true / np.maximum(objects, 1)[:, None]
        reached = np.searchsorted(RECALLS, recall, side="right")
        found[:, t] = (precision * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS)
    found[objects == 0] = np.nan
    return found
