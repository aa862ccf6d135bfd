"""`Queue`: the cells to be run, shared with other processes by a lock for each cell. `compare.pool` uses it."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.locks import Lock, acquire
from det_seg_agent.compare.store import Store


class Queue:
    """Gives each cell to one thread of one process.

    Args:
        cells: cells to run, in this order.
        store: their results.
        lost: called with the folder of a cell whose lock another process has taken over.

    Attributes:
        failed: cells that failed, here or in another process since this one began.
    """

    def __init__(self, cells: list[Cell], store: Store, lost: Callable[[Path], None]):
        self._store, self._lost = store, lost
        self._todo = [cell for cell in cells if store.result(cell) is None]
        self._running: list[Cell] = []
        self._failures: dict[str, Any] = {cell.name: store.failure(cell) for cell in self._todo}
        self._guard = threading.Lock()
        self.failed: list[Cell] = []

    def unfinished(self) -> list[Cell]:
        """Return the cells that wait or run."""
        with self._guard:
            return [*self._todo, *self._running]

    def take(self) -> tuple[Cell | None, Lock | None]:
        """Return the next cell and its lock; no lock if others hold those of all that are left, no cell if none is."""
        with self._guard:
            for cell in list(self._todo):
                if self._done_elsewhere(cell):
                    self._todo.remove(cell)
                    continue
                place = self._store.place(cell)
                lock = acquire(place.with_name(f"{place.name}.lock"), partial(self._lost, place))
                if lock is None:
                    continue
                self._todo.remove(cell)
                if self._done_elsewhere(cell):  # between the look and the lock
                    lock.release()
                    continue
                self._running.append(cell)
                return cell, lock
            return (self._todo[0] if self._todo else None), None

    def put_back(self, cell: Cell, lock: Lock, again: bool = False) -> None:
        """Release a cell that was taken; with `again` it waits once more, as after a loss of its lock."""
        lock.release()
        with self._guard:
            self._running.remove(cell)
            if again:
                self._todo.append(cell)

    def _done_elsewhere(self, cell: Cell) -> bool:
        if self._store.result(cell) is not None:
            return True
        failure = self._store.failure(cell)
        if failure is None or failure == self._failures[cell.name]:
            return False
        self.failed.append(cell)
        return True
