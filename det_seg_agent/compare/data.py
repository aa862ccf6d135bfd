"""The data of a cell."""

from pathlib import Path

from det_seg_agent.compare.cells import Cell
from det_seg_agent.scenes import kinds, write_scenes


def data_root(cell: Cell, folder: Path) -> Path:
    """Return the data's path; the embedded scenes lie beside the cells, by their sizes, rendered where they are not."""
    if cell.data != "scenes":
        return Path(cell.data)
    sizes = "".join(f"-{name}-{value}" for name, value in sorted(cell.scenes.items()))
    return write_scenes(folder.parent / f"scenes{sizes}", **cell.scenes)


def kinds_of(cell: Cell, root: Path) -> list[str]:
    """Return the kind of each training sample of the embedded scenes, by dataset index; of other data nothing."""
    return list(kinds(root).values()) if cell.data == "scenes" else []
