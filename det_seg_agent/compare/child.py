"""The child process of a cell: `python -m det_seg_agent.compare.child STEP FOLDER [--device D] [--resume]`.

STEP is prepare, calibrate or train. `compare.processes` starts it. It reads `FOLDER/cell.json` and writes
`FOLDER/outcome.json`. The hosts are only imported here.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.detection import Detection
from det_seg_agent.compare.fingerprint import machine, sources
from det_seg_agent.compare.huggingface import HuggingFace
from det_seg_agent.compare.pictures import draw_sheets
from det_seg_agent.compare.segmentation import Segmentation
from det_seg_agent.errors import AgentError
from det_seg_agent.files import write_json


def main(arguments: list[str]) -> int:
    """Run one step; return 0, or 2 for invalid input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=["prepare", "calibrate", "train"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", help="in place of the cell's: cpu, or the index among the visible ones")
    parser.add_argument("--resume", action="store_true", help="go on with the attempt in the folder, if it can")
    options = parser.parse_args(arguments)
    step, folder = options.step, options.folder
    warnings.filterwarnings("ignore")  # the hosts' own deprecations
    cell = Cell(**json.loads((folder / "cell.json").read_text(encoding="utf-8")))
    try:
        adapter: Detection | Segmentation | HuggingFace
        if cell.task == "detection":
            adapter = Detection(cell, folder, options.device)
        else:
            adapter = (Segmentation if cell.task == "segmentation" else HuggingFace)(cell, folder)
        if step == "prepare":
            outcome: dict[str, Any] = {"resolved": adapter.prepare()}
        else:
            # Before training, as sources may change during hours of it.
            started = {"machine": machine(), "sources": sources(cell.task, cell.strategy)}
            outcome = {**adapter.train(calibrate=step == "calibrate", resume=options.resume), **started}
            if outcome["selection"] and cell.data == "scenes":
                draw_sheets(folder, adapter.root)
    except AgentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(folder / "outcome.json", outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
