"""Near-duplicates and video-like runs, from thumbnails. `inspecting.cli` uses it with images=true."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.progress import track
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 16  # pixels of a thumbnail
FINE = 32  # pixels of the picture that is hashed
BITS = 6  # differing bits, of 64, that near-duplicates may have; of unrelated photographs 0.01 % differ in 12
GREY = 8.0  # mean difference of their thumbnails in grey levels, of 255
NEXT = 0.75  # correlation of neighbours' thumbnails in a video-like run
RUN = 8  # least images of a video-like run
DRAWS = 16  # sets of 16 bits by which hashes are looked up: 94 % of those that differ in 6 bits have one in common
MOST_STEPS = 64  # images with the same 16 bits that an image is compared with

COUNTS = np.array([bin(value).count("1") for value in range(256)], np.uint8)
PLACES = np.arange(FINE)
COSINES = np.cos(np.pi * np.arange(8)[:, None] * (2 * PLACES + 1) / (2 * FINE))  # the lowest of a cosine transform


@dataclass
class Thumbnails:
    """Thumbnails of N images.

    Attributes:
        hashes: (N,) uint64, which of the 8 x 8 lowest frequencies of the cosine transform are above their median
            (perceptual hash); smaller copies and stronger compression hardly change it.
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
            fine = np.asarray(grey.resize((FINE, FINE), Image.Resampling.BOX, reducing_gap=3.0), np.float64)
            pixels = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=3.0))
    except Exception:  # decoders raise many kinds of errors on a broken file
        return np.zeros(64, bool), np.zeros(SIDE * SIDE, np.uint8), (0, 0)
    low = (COSINES @ fine @ COSINES.T).reshape(-1)
    low[0] = np.median(low[1:])  # the brightness of the whole
    return low > np.median(low), pixels.reshape(-1).copy(), size


def differing(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the number of bits in which hashes differ."""
    bits = np.ascontiguousarray(one ^ two).view(np.uint8).reshape(*np.broadcast(one, two).shape, 8)
    counts: np.ndarray = COUNTS[bits].sum(-1)
    return counts


def groups_of(thumbnails: Thumbnails) -> np.ndarray:
    """Return the group (N,) int32 of near-duplicates of each image, from 0 by size; -1 for an image without any.

    Images are compared where their hashes have one of `DRAWS` sets of 16 bits in common, and are of one group where
    hashes differ in at most `BITS` bits and thumbnails in at most `GREY` grey levels.
    """
    count = len(thumbnails.hashes)
    one, two = np.concatenate([np.empty((2, 0), np.int64), *_near(thumbnails)], axis=1)
    graph = coo_array((np.ones(len(one)), (one, two)), shape=(count, count))
    place = connected_components(graph, directed=False)[1]
    sizes = np.bincount(place)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(sizes[place] > 1, rank[place], -1).astype(np.int32)


def _near(thumbnails: Thumbnails) -> Iterator[np.ndarray]:
    """Yield pairs of images that are near-duplicates, (2, pairs) int64; some of them come several times."""
    hashes, generator = thumbnails.hashes, np.random.default_rng(0)
    readable = np.flatnonzero(thumbnails.readable)
    for _ in range(DRAWS):
        bits = generator.permutation(64)[:16].astype(np.uint64)
        key = np.zeros(len(readable), np.uint64)
        for place, bit in enumerate(bits):
            key |= (hashes[readable] >> bit & np.uint64(1)) << np.uint64(place)
        sorted_ = np.lexsort((hashes[readable], key))
        order, key = readable[sorted_], key[sorted_]
        for step in range(1, min(len(order), MOST_STEPS)):
            same = np.flatnonzero(key[:-step] == key[step:])
            if not len(same):
                break
            one, two = order[same], order[same + step]
            near = differing(hashes[one], hashes[two]) <= BITS
            one, two = one[near], two[near]
            gap = np.abs(thumbnails.pixels[one].astype(np.int16) - thumbnails.pixels[two]).mean(1)
            yield np.stack([one, two])[:, gap <= GREY]


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
        pixels = thumbnails.pixels[order].astype(np.float32)
        pixels -= pixels.mean(1, keepdims=True)
        pixels /= np.linalg.norm(pixels, axis=1, keepdims=True) + 1e-6
        near = (pixels[:-1] * pixels[1:]).sum(1) >= NEXT
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
