"""What is on disk of a comparison: finished cells, failed ones, and who may write."""

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.fingerprint import sources
from det_seg_agent.errors import ConfigError


class Store:
    """The cells in `folder`.

    A cell's folder holds `cell.json`, `log.txt`, `run/` as the host leaves it, and `result.json` once it is finished,
    or `failed.json`. A finished cell is kept for ever; with another key or other sources a cell has another folder.

    Args:
        folder: of all cells.
        keep_older: whether cells that other sources of ours finished count as finished.
    """

    def __init__(self, folder: Path, keep_older: bool = False):
        self.folder, self.keep_older = folder, keep_older

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """Return what a finished cell left; "older" is true in it where it is of other sources."""
        found = self._results(cell)
        current = [content for content in found if content["sources"] == sources(cell.task, cell.strategy)]
        if current or not (found and self.keep_older):
            return current[-1] if current else None
        return {**max(found, key=lambda content: str(content["finished"])), "older": True}

    def is_older(self, cell: Cell) -> bool:
        """Return whether other sources alone finished a cell."""
        found = self._results(cell)
        return bool(found) and all(content["sources"] != sources(cell.task, cell.strategy) for content in found)

    def _results(self, cell: Cell) -> list[dict[str, Any]]:
        paths = sorted(self.folder.glob(f"{cell.folder}-*/result.json"))
        return [content for path in paths if (content := read_if_there(path)) and content.get("key") == cell.key]

    def place(self, cell: Cell) -> Path:
        """Return the folder in which a cell runs: one by its key and our sources, which holds no finished cell."""
        name = f"{cell.folder}-{sources(cell.task, cell.strategy)[:6]}"
        names = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
        return next(p for p in (self.folder / name for name in names) if not (p / "result.json").exists())

    def failure(self, cell: Cell) -> dict[str, Any] | None:
        """Return what is known of a cell that failed: "status" and "tail"."""
        return None if self.result(cell) else read_if_there(self.place(cell) / "failed.json")

    def tasks_with_results(self, cells: list[Cell]) -> set[str]:
        """Return the tasks of which any cell is finished."""
        return {task for task in {cell.task for cell in cells} if any(self.folder.glob(f"{task}-*/result.json"))}


def clear(place: Path) -> None:
    """Make `place` an empty folder, if nothing but an unfinished cell is in it.

    Raises:
        ConfigError: for a folder of anything else.
    """
    if place.exists() and any(place.iterdir()):
        if not (place / "cell.json").is_file():
            raise ConfigError(f"{place}: holds something that is not a cell of a comparison; give another --folder.")
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other comparisons out of `folder`.

    Raises:
        ConfigError: where one is at work.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{folder}: another comparison runs in it; wait, or give another --folder.") from None
        yield


def read_if_there(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, or None where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def tail(place: Path, lines: int) -> str:
    """Return the last lines of a log."""
    text = (place / "log.txt").read_text(encoding="utf-8", errors="replace")
    return "\n".join(line.rpartition("\r")[2] for line in text.splitlines()[-lines:])
