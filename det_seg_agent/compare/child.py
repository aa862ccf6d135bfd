"""The child process of a cell: `python -m det_seg_agent.compare.child prepare|calibrate|train FOLDER`.

`compare.pool` starts it. It reads `FOLDER/cell.json` and writes `FOLDER/outcome.json`. The hosts are only imported
here.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.detection import Detection
from det_seg_agent.compare.fingerprint import machine, sources
from det_seg_agent.compare.segmentation import Segmentation
from det_seg_agent.errors import AgentError
from det_seg_agent.files import write_json


def main(arguments: list[str]) -> int:
    """Run one step; return 0, or 2 for invalid input."""
    step, folder = arguments[0], Path(arguments[1])
    warnings.filterwarnings("ignore")  # the hosts' own deprecations
    cell = Cell(**json.loads((folder / "cell.json").read_text(encoding="utf-8")))
    try:
        adapter = Detection(cell, folder) if cell.task == "detection" else Segmentation(cell, folder)
        if step == "prepare":
            outcome: dict[str, Any] = {"resolved": adapter.prepare()}
        else:
            # Before training, as sources may change during hours of it.
            started = {"machine": machine(), "sources": sources(cell.task, cell.strategy)}
            outcome = {**adapter.train(calibrate=step == "calibrate"), **started}
    except AgentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(folder / "outcome.json", outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
