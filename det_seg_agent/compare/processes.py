"""`Processes`: runs steps of cells in child processes, and ends them all when asked. `compare.pool` uses it."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from det_seg_agent.compare.attempts import began
from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.devices import Slot
from det_seg_agent.compare.store import clear
from det_seg_agent.files import write_json


@dataclass(frozen=True)
class Outcome:
    """Result of a process.

    Attributes:
        status: exit status.
        wall, cpu: seconds; CPU seconds include those of its children.
        resumed: whether it was told to go on with an earlier attempt.
    """

    status: int
    wall: float
    cpu: float
    resumed: bool = False


class Processes:
    """Runs child processes; one thread each may wait in `run`."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._guard = threading.Lock()
        self.stopped = False

    def run(self, step: str, cell: Cell, place: Path, slot: Slot, resume: bool = False) -> Outcome:
        """Run a step of a cell in a process with one thread; in an empty folder, unless it goes on after a stop.

        Args:
            step: prepare, calibrate or train.
            cell: the cell.
            place: its folder.
            slot: device of the process.
            resume: whether to go on with what `place` holds, if it can.
        """
        going_on = resume and began(place, cell)
        if not going_on:
            clear(place)
        (place / "outcome.json").unlink(missing_ok=True)
        write_json(place / "cell.json", asdict(cell))
        command = [sys.executable, "-m", "det_seg_agent.compare.child", step, str(place), *slot.words()]
        command += ["--resume"] if going_on else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **slot.environment()}
        started = time.time()
        with (place / "log.txt").open("ab") as log:
            with self._guard:
                if self.stopped:
                    return Outcome(-1, 0.0, 0.0)
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
                self._running[str(place)] = process
            try:
                _, status, used = os.wait4(process.pid, 0)  # times include the child's own children
            except KeyboardInterrupt:  # in the main thread, where nothing else terminates it
                process.terminate()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            self._running.pop(str(place))
        return Outcome(process.returncode, time.time() - started, used.ru_utime + used.ru_stime, going_on)

    def end(self, place: Path) -> None:
        """Terminate the process of a folder, if it runs."""
        process = self._running.get(str(place))
        if process is not None:
            process.terminate()

    def stop(self) -> None:
        """Terminate all processes, and start no other."""
        with self._guard:
            self.stopped = True
            running = list(self._running.values())
        for process in running:
            process.terminate()
