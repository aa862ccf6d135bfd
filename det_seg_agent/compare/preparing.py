"""What happens before cells run: settings and data are read, and the pace is measured. `compare.pool` builds on it."""

import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.devices import Slot
from det_seg_agent.compare.fingerprint import digest
from det_seg_agent.compare.locks import acquire, waiting
from det_seg_agent.compare.processes import Outcome, Processes
from det_seg_agent.compare.store import Store, read_if_there, tail
from det_seg_agent.errors import ConfigError
from det_seg_agent.files import write_json


class Preparer(Store):
    """Prepares and estimates the cells of a matrix; see `Store` for the files.

    Args:
        folder: folder of all cells.
        slots: devices, one for each cell that runs at a time.
        keep_older: whether results of other versions of our sources count as finished.
    """

    def __init__(self, folder: Path, slots: list[Slot] | None = None, keep_older: bool = False):
        super().__init__(folder, keep_older)
        self.slots = slots or [Slot()]
        self.processes = Processes()

    @property
    def jobs(self) -> int:
        """Number of cells at a time."""
        return len(self.slots)

    def prepare(self, cells: list[Cell], tasks: set[str], console: Console) -> list[Cell]:
        """Check settings and data of tasks before training, and compute the digests that identify their cells.

        Args:
            cells: the whole matrix.
            tasks: tasks whose cells are needed.
            console: console for messages.

        Returns:
            `cells`, with `resolved` set for those of `tasks`.

        Raises:
            ConfigError: if settings or data are invalid; includes the end of the log.
        """
        resolved: dict[str, dict[str, str]] = {}
        for task in dict.fromkeys(cell.task for cell in cells if cell.task in tasks):
            console.print(f"{task}: reading settings and data", highlight=False)
            first = next(cell for cell in cells if cell.task == task)
            place = self.folder / f"prepare-{task}-{socket.gethostname()}-{os.getpid()}"
            self.folder.mkdir(parents=True, exist_ok=True)
            with waiting(self.folder / f"prepare-{task}.lock"):  # the hosts convert data and write caches
                self._step("prepare", first, place)
            resolved[task] = (read_if_there(place / "outcome.json") or {})["resolved"]
            shutil.rmtree(place)
        return [replace(cell, resolved=resolved.get(cell.task, {})) for cell in cells]

    def calibrate(self, cells: list[Cell], console: Console) -> None:
        """Measure the time per image of each task in `cells` by a short run: one epoch, or a few iterations.

        Raises:
            ConfigError: if the run fails; includes the end of the log.
        """
        for task in dict.fromkeys(cell.task for cell in cells):
            first = next(cell for cell in cells if cell.task == task)
            lock = acquire(self.folder / f"calibrate-{task}.lock") if self._calibrated(first) is None else None
            if lock is None:
                continue  # known, or another process measures it
            try:
                console.print(f"{task}: measuring the pace by a very short run", highlight=False)
                place = self.folder / f"calibrate-{task}"
                ended = self._step("calibrate", first, place)
                content = read_if_there(place / "outcome.json") or {}
                paid = {"wall_s": ended.wall, "cpu_s": ended.cpu, "pace_of": pace_of(first)}
                write_json(place / "result.json", {**content, **paid})
            finally:
                lock.release()

    def _calibrated(self, cell: Cell) -> dict[str, Any] | None:
        content = read_if_there(self.folder / f"calibrate-{cell.task}" / "result.json")
        return content if content is not None and content.get("pace_of") == pace_of(cell) else None

    def _step(self, step: str, cell: Cell, place: Path) -> Outcome:
        ended = self.processes.run(step, cell, place, self.slots[0])
        if ended.status:
            raise ConfigError(f"{cell.task}: this cannot run. {place / 'log.txt'} ends with:\n{tail(place, 8)}")
        return ended

    def estimates(self, cells: list[Cell]) -> dict[str, float]:
        """Estimate each cell's seconds, by name, from finished cells of its task, or else from the calibration."""
        done: dict[str, list[dict[str, Any]]] = {}
        for cell in cells:
            if (result := self.result(cell)) is not None:
                done.setdefault(cell.task, []).append(result)
        seconds = {}
        for cell in cells:
            known = done.get(cell.task) or [content for content in [self._calibrated(cell)] if content]
            known = [r for r in known if not r.get("resumed")] or known
            if known:
                pace = sum(r["per_image_s"] for r in known) / len(known)
                spent = (r["wall_s"] + r.get("later_s", 0) - r["per_image_s"] * r["images"] for r in known)
                seconds[cell.name] = sum(spent) / len(known) + pace * cell.budget * known[0]["full_images"]
        return seconds


def pace_of(cell: Cell) -> str:
    """Return a hash of everything that the time per image depends on."""
    return digest(cell.resolved)
