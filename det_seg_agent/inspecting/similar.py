"""What the images of a data set say: how many are near-duplicates or frames of a video."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from det_seg_agent.files import printable, replacing
from det_seg_agent.inspecting.contents import Contents
from det_seg_agent.inspecting.images import Thumbnails, groups_of, runs_of


@dataclass
class Similar:
    """What the images say.

    Attributes:
        copies: share of the images that are in a group of near-duplicates.
        spare: share of the images that would go if each group kept one.
        groups: number of groups.
        largest: images in the largest group.
        video: share of the images in video-like runs.
        longest: images in the longest run.
    """

    copies: float = 0.0
    spare: float = 0.0
    groups: int = 0
    largest: int = 0
    video: float = 0.0
    longest: int = 0


@dataclass
class Images:
    """What the images say.

    Attributes:
        similar: figures.
        groups: (N,) int32, group of near-duplicates, -1 without one.
        runs: indices of the images in video-like runs.
    """

    similar: Similar
    groups: np.ndarray
    runs: list[list[int]]


def images_of(contents: Contents, thumbnails: Thumbnails) -> Images:
    """Return what the images say."""
    groups, runs = groups_of(thumbnails), runs_of(contents.files, thumbnails)
    _, sizes = np.unique(groups[groups >= 0], return_counts=True)
    total = max(len(contents), 1)
    similar = Similar(
        float((groups >= 0).sum() / total), float((sizes.sum() - len(sizes)) / total), len(sizes),
        int(sizes.max(initial=0)), sum(map(len, runs)) / total, max(map(len, runs), default=0),
    )  # fmt: skip
    return Images(similar, groups, runs)


def write_duplicates(contents: Contents, groups: np.ndarray, path: Path) -> None:
    """Write a row per image that is in a group: group, file, and whether it is the group's first."""
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["group", "file", "first"])
        seen: set[int] = set()
        for index in np.argsort(groups, kind="stable").tolist():
            if (group := int(groups[index])) >= 0:
                rows.writerow([group, printable(contents.files[index]), int(group not in seen)])
                seen.add(group)
