"""Train a segmenter on what the agent selects: `python tools/train_seg.py CONFIG --work-dir DIR`."""

import sys

from det_seg_agent.hosts.commands import train_seg

if __name__ == "__main__":
    sys.exit(train_seg())
