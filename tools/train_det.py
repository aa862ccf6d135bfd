"""Train an Ultralytics model on selections: `python tools/train_det.py model=yolov8n.yaml data=coco.yaml`."""

import sys

from det_seg_agent.hosts.commands import train_det

if __name__ == "__main__":
    sys.exit(train_det())
