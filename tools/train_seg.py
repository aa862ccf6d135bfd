"""Train an MMSegmentation model on selections: `python tools/train_seg.py CONFIG --work-dir DIR`."""

import sys

from det_seg_agent.hosts.commands import train_seg

if __name__ == "__main__":
    sys.exit(train_seg())
