"""Traps that end a process by SIGKILL at a given moment, for both toolboxes; to be laid in a fork."""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


class Kill:
    """Counts moments; the n-th is the one."""

    def __init__(self, n: int):
        self.left = n

    def due(self) -> bool:
        """Return whether this is the moment."""
        self.left -= 1
        return self.left == 0

    @staticmethod
    def now() -> None:
        """End this process as `kill -9` does."""
        os.kill(os.getpid(), signal.SIGKILL)


def trap_bytes(kill: Kill, concerns: str = "") -> None:
    """Kill when half the bytes of a file whose name holds `concerns` are written by `Path.write_bytes`."""
    stock = Path.write_bytes

    def write_bytes(self: Path, data: Any) -> int:
        if concerns in self.name and kill.due():
            stock(self, data[: len(data) // 2])
            kill.now()
        return stock(self, data)

    Path.write_bytes = write_bytes  # type: ignore[method-assign]


def trap_replace(kill: Kill, before: bool) -> None:
    """Kill before or after a file takes the place of the old one."""
    stock = os.replace

    def replace(*args: Any) -> None:
        due = kill.due()
        if due and before:
            kill.now()
        stock(*args)
        if due:
            kill.now()

    os.replace = replace  # type: ignore[assignment]


def trap_trace(kill: Kill) -> None:
    """Kill when half a file of the trace is written."""
    stock = pq.write_table

    def write_table(table: Any, where: Any, **options: Any) -> None:
        stock(table, where, **options)
        if kill.due():
            where.truncate(where.tell() // 2)
            kill.now()

    pq.write_table = write_table


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a fork; return its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]
