"""A small rendered data set in COCO format with a long tail, near-duplicates and wrong labels, for demo and tests.

Selections can be tried end to end in seconds and without a download. The truth is written beside the data, so it is
known which images are useful.
"""

from det_seg_agent.scenes.folder import kinds, truth_of, write_scenes

__all__ = ["kinds", "truth_of", "write_scenes"]
