"""The files of a comparison: results and failures. `compare.pool` builds on it."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.fingerprint import sources
from det_seg_agent.errors import ConfigError


class Store:
    """Reads the results of cells in `folder`.

    A cell's folder contains `cell.json`, `log.txt`, the host's `run/`, and `result.json` if it is finished or
    `failed.json` if it failed. Results are never deleted; a cell with another key or other sources has another folder.

    Args:
        folder: folder of all cells.
        keep_older: whether results of other versions of our sources count as finished.
    """

    def __init__(self, folder: Path, keep_older: bool = False):
        self.folder, self.keep_older = folder, keep_older

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """Return the result of a finished cell, or None.

        "older" is True in a result from other sources, and "place" is its folder.
        """
        found = self._results(cell)
        current = [content for content in found if content["sources"] == sources(cell.task, cell.strategy)]
        if current or not (found and self.keep_older):
            return current[-1] if current else None
        return {**max(found, key=lambda content: str(content["finished"])), "older": True}

    def is_older(self, cell: Cell) -> bool:
        """Return whether a cell only has results from other sources."""
        found = self._results(cell)
        return bool(found) and all(content["sources"] != sources(cell.task, cell.strategy) for content in found)

    def _results(self, cell: Cell) -> list[dict[str, Any]]:
        paths = sorted(self.folder.glob(f"{cell.folder}-*/result.json"))
        found = [(path, read_if_there(path)) for path in paths]
        return [{**r, "place": str(path.parent)} for path, r in found if r is not None and r.get("key") == cell.key]

    def place(self, cell: Cell) -> Path:
        """Return the folder for running a cell, named by its key and our sources; it contains no result."""
        name = f"{cell.folder}-{sources(cell.task, cell.strategy)[:6]}"
        names = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
        return next(p for p in (self.folder / name for name in names) if not (p / "result.json").exists())

    def failure(self, cell: Cell) -> dict[str, Any] | None:
        """Return "status" and "tail" (end of the log) of a failed cell; None if it has not failed."""
        return None if self.result(cell) else read_if_there(self.place(cell) / "failed.json")

    def tasks_with_results(self, cells: list[Cell]) -> set[str]:
        """Return the tasks that have any finished cell."""
        return {task for task in {cell.task for cell in cells} if any(self.folder.glob(f"{task}-*/result.json"))}


def clear(place: Path) -> None:
    """Make `place` an empty folder; only removes the files of a cell.

    Raises:
        ConfigError: if the folder contains anything else.
    """
    if place.exists() and any(place.iterdir()):
        if not (place / "cell.json").is_file():
            raise ConfigError(f"{place}: holds something that is not a cell of a comparison; give another --folder.")
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)


def read_if_there(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None if it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def tail(place: Path, lines: int) -> str:
    """Return the last `lines` lines of the log in `place`."""
    text = (place / "log.txt").read_text(encoding="utf-8", errors="replace")
    return "\n".join(line.rpartition("\r")[2] for line in text.splitlines()[-lines:])
