"""Train a model of transformers on selections: `python tools/train_hf.py RECIPE.yaml key=value ...`."""

import sys

from det_seg_agent.hosts.commands import train_hf

if __name__ == "__main__":
    sys.exit(train_hf())
