"""Reading YOLO label files in bulk, without the images. `det.inspection` uses it."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context

import numpy as np

CHUNK = 5000  # files that a process reads at a time
ALONE = 20_000  # files below which one process reads them all


@dataclass
class LabelRows:
    """Objects of label files.

    Attributes:
        file: (M,) int64, position of each object's file.
        cls: (M,) float64, class as written.
        boxes: (M, 4) float32, x1 y1 x2 y2 as fractions of the image.
        absent: (k,) int64, positions of files that are not there.
        bad: (b,) int64, file of each line that is no label.
    """

    file: np.ndarray
    cls: np.ndarray
    boxes: np.ndarray
    absent: np.ndarray
    bad: np.ndarray


def read_label_files(paths: Sequence[str]) -> LabelRows:
    """Read label files, (class, x, y, w, h) or (class, polygon) in each line, in several processes if there are many.

    A file that is not there counts as one without objects, as in the host.
    """
    starts = range(0, len(paths), CHUNK)
    jobs = [(start, list(paths[start : start + CHUNK])) for start in starts]
    processes = os.cpu_count() or 1
    if len(paths) < ALONE or processes == 1:
        parts = [_read(job) for job in jobs]
    else:
        with ProcessPoolExecutor(processes, get_context("fork")) as pool:
            parts = list(pool.map(_read, jobs))
    if not parts:
        parts = [_read((0, []))]
    return LabelRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def _read(job: tuple[int, list[str]]) -> LabelRows:
    start, paths = job
    owners: list[int] = []
    lines: list[list[bytes]] = []
    absent, bad = [], []
    for place, path in enumerate(paths, start):
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            absent.append(place)
            continue
        try:
            content = os.read(handle, max(os.fstat(handle).st_size, 1))
        finally:
            os.close(handle)
        for line in content.split(b"\n"):
            words = line.split()
            if words:
                owners.append(place)
                lines.append(words)
    widths = np.array([len(words) for words in lines], np.int64)
    plain, outlined = widths == 5, (widths > 6) & (widths % 2 == 1)
    file = np.array(owners, np.int64)
    try:
        values = np.array(list(chain.from_iterable(lines)), dtype="S24").astype(np.float64)
        ends = np.cumsum(widths)
    except ValueError:  # some word is no number: one by one
        good = np.array([_is_numbers(words) for words in lines], bool)
        values = np.array([float(w) for words, is_good in zip(lines, good.tolist()) if is_good for w in words])
        ends = np.cumsum(np.where(good, widths, 0))
        plain, outlined = plain & good, outlined & good
    bad = file[~(plain | outlined)].tolist()
    rows = np.flatnonzero(plain | outlined)
    cls, boxes = np.zeros(len(rows)), np.zeros((len(rows), 4), np.float32)
    first = ends - widths
    simple = np.flatnonzero(plain[rows])
    if len(simple):
        five = values[first[rows[simple]][:, None] + np.arange(5)]
        cls[simple], centre, half = five[:, 0], five[:, 1:3], five[:, 3:] / 2
        boxes[simple] = np.concatenate([centre - half, centre + half], 1)
    for place in np.flatnonzero(outlined[rows]).tolist():
        row = values[first[rows[place]] : ends[rows[place]]]
        cls[place] = row[0]
        points = row[1:].reshape(-1, 2)
        boxes[place] = [*points.min(0), *points.max(0)]
    finite = np.isfinite(boxes).all(1) & np.isfinite(cls)
    bad += file[rows[~finite]].tolist()
    return LabelRows(
        file[rows[finite]], cls[finite], boxes[finite], np.array(absent, np.int64), np.sort(np.array(bad, np.int64))
    )


def _is_numbers(words: list[bytes]) -> bool:
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False
