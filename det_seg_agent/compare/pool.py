"""`Runner`: runs cells, each in its own process, and stores their results. `compare.cli` uses it."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.fingerprint import digest
from det_seg_agent.compare.store import Store, clear, read_if_there, tail
from det_seg_agent.errors import ConfigError
from det_seg_agent.files import write_json

TAIL = 30  # lines of a failed cell's log stored with it


@dataclass(frozen=True)
class Outcome:
    """Result of a process: exit status, wall seconds, and CPU seconds including its children's."""

    status: int
    wall: float
    cpu: float


class Runner(Store):
    """Runs the cells of a matrix; see `Store` for the files.

    Args:
        folder: folder of all cells.
        jobs: number of cells to run at a time.
        keep_older: whether results of other versions of our sources count as finished.
    """

    def __init__(self, folder: Path, jobs: int = 1, keep_older: bool = False):
        super().__init__(folder, keep_older)
        self.jobs = jobs
        self._running: dict[Any, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._stopped = False

    def prepare(self, cells: list[Cell], tasks: set[str], console: Console, look: bool = False) -> list[Cell]:
        """Check settings and data of tasks before training, and compute the digests that identify their cells.

        Args:
            cells: the whole matrix.
            tasks: tasks whose cells are needed.
            console: console for messages.
            look: whether nothing will be trained; then a temporary folder is used, as a comparison may be running.

        Returns:
            `cells`, with `resolved` set for those of `tasks`.

        Raises:
            ConfigError: if settings or data are invalid; includes the end of the log.
        """
        resolved: dict[str, dict[str, str]] = {}
        for task in dict.fromkeys(cell.task for cell in cells if cell.task in tasks):
            console.print(f"{task}: reading settings and data", highlight=False)
            first = next(cell for cell in cells if cell.task == task)
            place = self.folder / (f"look-{task}-{os.getpid()}" if look else f"prepare-{task}")
            self._step("prepare", first, place)
            resolved[task] = (read_if_there(place / "outcome.json") or {})["resolved"]
            if look:
                shutil.rmtree(place)
        return [replace(cell, resolved=resolved.get(cell.task, {})) for cell in cells]

    def calibrate(self, cells: list[Cell], console: Console) -> None:
        """Measure the time per image of each task in `cells` by a short run: one epoch, or a few iterations.

        Raises:
            ConfigError: if the run fails; includes the end of the log.
        """
        for task in dict.fromkeys(cell.task for cell in cells):
            first = next(cell for cell in cells if cell.task == task)
            if self._calibrated(first) is None:
                console.print(f"{task}: measuring the pace by a very short run", highlight=False)
                place = self.folder / f"calibrate-{task}"
                ended = self._step("calibrate", first, place)
                content = read_if_there(place / "outcome.json") or {}
                paid = {"wall_s": ended.wall, "cpu_s": ended.cpu, "pace_of": pace_of(first)}
                write_json(place / "result.json", {**content, **paid})

    def _calibrated(self, cell: Cell) -> dict[str, Any] | None:
        content = read_if_there(self.folder / f"calibrate-{cell.task}" / "result.json")
        return content if content is not None and content.get("pace_of") == pace_of(cell) else None

    def _step(self, step: str, cell: Cell, place: Path) -> Outcome:
        ended = self._spawn(step, cell, place)
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
            if known:
                pace = sum(r["per_image_s"] for r in known) / len(known)
                spent = (r["wall_s"] + r.get("later_s", 0) - r["per_image_s"] * r["images"] for r in known)
                seconds[cell.name] = sum(spent) / len(known) + pace * cell.budget * known[0]["full_images"]
        return seconds

    def run(self, cells: list[Cell], everything: list[Cell], console: Console) -> list[Cell]:
        """Run the unfinished cells with a progress bar; return those that failed.

        Args:
            cells: cells to run.
            everything: the whole matrix, for estimates.
            console: console for messages.
        """
        todo = [cell for cell in cells if self.result(cell) is None]
        failed: list[Cell] = []
        kept = len(cells) - len(todo)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        left = TextColumn("{task.fields[left]} left")
        with Progress(*columns, TimeElapsedColumn(), left, console=console) as progress, self._pool() as pool:
            bar = progress.add_task(f"{kept}/{len(cells)} cells", total=1, left="?")
            waiting: dict[Future[Outcome], Cell] = {pool.submit(self.one, cell): cell for cell in todo}
            estimate = self.estimates(everything)
            while waiting:
                ended, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                for future in ended:
                    cell, outcome = waiting.pop(future), future.result()
                    how = f"finished in {span(outcome.wall)}"
                    if outcome.status:
                        failed.append(cell)
                        how = f"FAILED with status {outcome.status}: {self.place(cell) / 'log.txt'}"
                    progress.console.print(f"{cell.name}: {how}", highlight=False, soft_wrap=True)
                if ended:
                    estimate = self.estimates(everything)
                rest = sum(self._remaining(cell, estimate) for cell in waiting.values()) / self.jobs
                spent = sum(estimate.get(cell.name, 0) for cell in todo) / self.jobs - rest
                done = len(cells) - len(waiting)
                progress.update(
                    bar, completed=spent, total=max(spent + rest, 1e-9), left=span(rest), refresh=bool(ended),
                    description=f"{done}/{len(cells)} cells",
                )  # fmt: skip
        return failed

    def _remaining(self, cell: Cell, estimate: dict[str, float]) -> float:
        whole, started = estimate.get(cell.name, 0.0), self._started.get(cell.name)
        return whole if started is None else max(whole - (time.time() - started), 0.05 * whole)

    @contextlib.contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Yield a thread pool; on exit terminate running cells, which will be run again next time."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            yield pool
        finally:
            self._stopped = True
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running.values()):
                process.terminate()
            pool.shutdown()

    def one(self, cell: Cell) -> Outcome:
        """Run a cell, and write `result.json` or `failed.json`."""
        place = self.place(cell)
        self._started[cell.name] = time.time()
        ended = self._spawn("train", cell, place)
        outcome = read_if_there(place / "outcome.json")
        if self._stopped and ended.status:  # terminated by us, so not a failure
            return ended
        if ended.status or outcome is None:
            write_json(place / "failed.json", {"status": ended.status, "tail": tail(place, TAIL)})
            return ended if ended.status else Outcome(1, ended.wall, ended.cpu)
        aside = outcome.get("aside", {"wall_s": 0.0, "cpu_s": 0.0})  # what the statistics took
        paid = {
            "wall_s": round(ended.wall - aside["wall_s"], 2),
            "cpu_s": round(ended.cpu - aside["cpu_s"], 2),
            "jobs": self.jobs,
        }
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        write_json(place / "result.json", {"key": cell.key, "cell": cell.name, **outcome, **paid, "finished": when})
        return ended

    def _spawn(self, step: str, cell: Cell, place: Path) -> Outcome:
        """Run one step of a cell in an empty folder, in a child process with one thread."""
        clear(place)
        write_json(place / "cell.json", asdict(cell))
        command = [sys.executable, "-m", "det_seg_agent.compare.child", step, str(place)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = time.time()
        with (place / "log.txt").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            self._running[process.pid] = process
            try:
                _, status, used = os.wait4(process.pid, 0)  # times include the child's own children
            except KeyboardInterrupt:  # in the main thread, where no pool terminates it
                process.terminate()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            self._running.pop(process.pid)
        return Outcome(process.returncode, time.time() - started, used.ru_utime + used.ru_stime)


def pace_of(cell: Cell) -> str:
    """Return a hash of everything that the time per image depends on."""
    return digest(cell.resolved)


def span(seconds: float) -> str:
    """Format a duration for messages."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
