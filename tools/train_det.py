"""Train a YOLOv8 detector on what the agent selects: `python tools/train_det.py model=yolov8n.yaml data=coco.yaml`."""

import sys

from det_seg_agent.det.cli import main

if __name__ == "__main__":
    sys.exit(main())
