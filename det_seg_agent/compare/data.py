"""The data of a cell: a path, or the embedded scenes; and `Aside`. The cells' child processes use it."""

import time
from pathlib import Path
from typing import Any

from det_seg_agent.compare.cells import Cell
from det_seg_agent.scenes import kinds, write_scenes


def data_root(cell: Cell, folder: Path) -> Path:
    """Return the path of the data; the embedded scenes are rendered beside the cells if necessary."""
    if cell.data != "scenes":
        return Path(cell.data)
    sizes = "".join(f"-{name}-{value}" for name, value in sorted(cell.scenes.items()))
    return write_scenes(folder.parent / f"scenes{sizes}", **cell.scenes)


def kinds_of(cell: Cell, root: Path) -> list[str]:
    """Return the kind of each training sample of the embedded scenes, by dataset index; [] for other data."""
    return list(kinds(root).values()) if cell.data == "scenes" else []


class Aside:
    """Measures work that is for the statistics alone, so that it is not counted as a cost of the run.

    Attributes:
        spent: {"wall_s", "cpu_s"} of the block, after it.
    """

    def __enter__(self) -> "Aside":
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: Any) -> None:
        wall, cpu = self._began
        self.spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
