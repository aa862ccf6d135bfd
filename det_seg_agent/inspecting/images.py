"""Near-duplicates and video-like runs, from thumbnails. `inspecting.cli` uses it with images=true."""

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.progress import track

SIDE = 16  # pixels of a thumbnail
BITS = 3  # differing bits, of 64, that near-duplicates may have: four bands of 16 bits then share one for certain
GREY = 6.0  # mean difference of their thumbnails in grey levels, of 255
NEXT = 12  # differing bits of 64 between neighbours in a video-like run; unrelated images differ in about 32
RUN = 8  # least images of a video-like run


@dataclass
class Thumbnails:
    """Thumbnails of N images.

    Attributes:
        hashes: (N,) uint64, for each of 8 x 8 places whether its right neighbour is brighter (difference hash).
        pixels: (N, 256) uint8, grey, each image stretched to 16 x 16.
        sizes: (N, 2) int32, width and height, upright; 0 if unreadable.
    """

    hashes: np.ndarray
    pixels: np.ndarray
    sizes: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """(N,) bool."""
        return self.sizes[:, 0] > 0


def read(files: Sequence[str], progress: bool = True) -> Thumbnails:
    """Read thumbnails in threads; decoding leaves Python's lock."""
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        rows: Iterable[tuple[np.ndarray, np.ndarray, tuple[int, int]]] = pool.map(_read, files)
        if progress:
            rows = track(rows, "images", len(files), transient=True)
        found = list(rows)
    if not found:
        return Thumbnails(np.zeros(0, np.uint64), np.zeros((0, SIDE * SIDE), np.uint8), np.zeros((0, 2), np.int32))
    bits, pixels, sizes = zip(*found, strict=True)
    hashes = np.packbits(np.stack(bits), axis=1).view(np.uint64).reshape(-1)
    return Thumbnails(hashes, np.stack(pixels), np.array(sizes, np.int32))


def _read(file: str) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    try:
        with Image.open(file) as image:
            size = image.size
            if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # stored on its side
                size = size[1], size[0]
            image.draft("L", (64, 64))  # JPEG decodes at an eighth of its size
            grey = ImageOps.exif_transpose(image).convert("L")
            fine = np.asarray(grey.resize((9, 8), Image.Resampling.BOX, reducing_gap=3.0), np.int16)
            pixels = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=3.0))
    except Exception:  # decoders raise many kinds of errors on a broken file
        return np.zeros(64, bool), np.zeros(SIDE * SIDE, np.uint8), (0, 0)
    return (fine[:, 1:] > fine[:, :-1]).reshape(-1), pixels.reshape(-1).copy(), size


def differing(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the number of bits in which hashes differ."""
    bits = np.ascontiguousarray(one ^ two).view(np.uint8).reshape(*np.broadcast(one, two).shape, 8)
    counts: np.ndarray = COUNTS[bits].sum(-1)
    return counts


COUNTS = np.array([bin(value).count("1") for value in range(256)], np.uint8)


def groups_of(thumbnails: Thumbnails) -> np.ndarray:
    """Return the group (N,) int32 of near-duplicates of each image, from 0 by size; -1 for an image without any.

    Hashes that differ in at most `BITS` bits share one of four bands of 16 bits; where thumbnails differ by at most
    `GREY` grey levels as well, the images are of one group.
    """
    hashes, count = thumbnails.hashes, len(thumbnails.hashes)
    parent = np.arange(count)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node

    readable = np.flatnonzero(thumbnails.readable)
    for band in range(4):
        key = (hashes[readable] >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = readable[np.lexsort((hashes[readable], key))]
        ends = np.flatnonzero(np.diff(np.sort(key))) + 1
        for members in np.split(order, ends):
            # In sorted order near hashes are near, also in a bucket of thousands, as flat images make one.
            for step in range(1, min(len(members), MOST_STEPS)):
                one, two = members[:-step], members[step:]
                near = differing(hashes[one], hashes[two]) <= BITS
                one, two = one[near], two[near]
                gap = np.abs(thumbnails.pixels[one].astype(np.int16) - thumbnails.pixels[two]).mean(1)
                for a, b in zip(one[gap <= GREY].tolist(), two[gap <= GREY].tolist(), strict=True):
                    parent[root(a)] = root(b)
    roots = np.array([root(node) for node in range(count)], np.int64)
    _, place, sizes = np.unique(roots, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(sizes[place] > 1, rank[place], -1).astype(np.int32)


MOST_STEPS = 64  # neighbours in a bucket that an image is compared with


def runs_of(files: Sequence[str], thumbnails: Thumbnails) -> list[list[int]]:
    """Return the runs of images that look like successive frames, the longest first.

    Files are taken in natural order of their names within a folder, so that 9 comes before 10.
    """
    folders: dict[str, list[int]] = {}
    for index in np.flatnonzero(thumbnails.readable).tolist():
        folders.setdefault(os.path.dirname(files[index]), []).append(index)
    runs = []
    for members in folders.values():
        order = sorted(members, key=lambda index: _natural(files[index]))
        near = differing(thumbnails.hashes[order[:-1]], thumbnails.hashes[order[1:]]) <= NEXT
        run = order[:1]
        for index, goes_on in zip(order[1:], near.tolist(), strict=True):
            if not goes_on:
                runs.append(run)
                run = []
            run.append(index)
        runs.append(run)
    return sorted((run for run in runs if len(run) >= RUN), key=len, reverse=True)


def _natural(file: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", Path(file).name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]
