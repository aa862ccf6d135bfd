"""Train a segmenter on what the agent selects: `python tools/train_seg.py CONFIG --work-dir DIR`."""

import sys

from det_seg_agent.seg.cli import main

if __name__ == "__main__":
    sys.exit(main())
