"""A small rendered data set in COCO format with easy, redundant, hard and mislabelled images, for demo and tests.

Selections can be tried end to end in seconds and without a download. Each image record has its `kind`, so it is known
which images are useful.
"""

from det_seg_agent.scenes.folder import kinds, write_scenes

__all__ = ["kinds", "write_scenes"]
