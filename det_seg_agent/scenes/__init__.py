"""A small rendered data set in COCO format, with images that are easy, redundant, hard or mislabelled.

It lets the selection of training images be tried end to end, in seconds and without a download: which images help a
detector or a segmentor is known here, because every image record carries its ``kind``.
"""

from det_seg_agent.scenes.folder import kinds, write_scenes

__all__ = ["kinds", "write_scenes"]
