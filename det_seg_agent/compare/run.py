"""Runs cells, each in a process of its own, and keeps what is finished."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from det_seg_agent.compare.cells import Cell
from det_seg_agent.errors import ConfigError
from det_seg_agent.files import write_json

TAIL = 30  # lines of a failed cell's log that are kept with it


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit status, wall seconds, and CPU seconds with its own children's."""

    status: int
    wall: float
    cpu: float


class Runner:
    """Runs the cells of a matrix in `folder`, `jobs` at a time.

    A cell's folder holds `cell.json`, `log.txt`, `run/` as the host leaves it, and `result.json` once it is finished,
    or `failed.json`. A finished cell is kept for ever; other settings have another folder.
    """

    def __init__(self, folder: Path, jobs: int = 1):
        self.folder, self.jobs = folder, jobs
        self._running: dict[Any, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._stopped = False

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """Return what a finished cell left."""
        content = read_if_there(self.folder / cell.folder / "result.json")
        return content if content is not None and content.get("key") == cell.key else None

    def failure(self, cell: Cell) -> dict[str, Any] | None:
        """Return what is known of a cell that failed: "status" and "tail"."""
        return None if self.result(cell) else read_if_there(self.folder / cell.folder / "failed.json")

    def prepare(self, cells: list[Cell], console: Console) -> None:
        """Check settings and data of each task before anything trains.

        Raises:
            ConfigError: with the end of the log, for what cannot work.
        """
        for task in dict.fromkeys(cell.task for cell in cells):
            console.print(f"{task}: preparing data", highlight=False)
            first = next(cell for cell in cells if cell.task == task)
            self._step("prepare", first, self.folder / f"prepare-{task}")

    def calibrate(self, cells: list[Cell], console: Console) -> None:
        """Measure the pace of each task of which no cell is finished yet: one epoch, or a few iterations."""
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
        """Return cell name -> seconds it will take, from finished cells of its task, or else from the calibration."""
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
        """Run those that are not finished; return those that failed.

        Args:
            cells: to run.
            everything: the whole matrix, from which estimates are made.
            console: to print to.
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
                        how = f"FAILED with status {outcome.status}: {self.folder / cell.folder / 'log.txt'}"
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
        """End what runs when this process is told to stop; an unfinished cell is run again next time."""
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
        place = self.folder / cell.folder
        self._started[cell.name] = time.time()
        ended = self._spawn("train", cell, place)
        outcome = read_if_there(place / "outcome.json")
        if self._stopped and ended.status:  # it was ended; that is no failure of its own
            return ended
        if ended.status or outcome is None:
            write_json(place / "failed.json", {"status": ended.status, "tail": tail(place, TAIL)})
            return ended if ended.status else Outcome(1, ended.wall, ended.cpu)
        paid = {"wall_s": round(ended.wall, 2), "cpu_s": round(ended.cpu, 2), "jobs": self.jobs}
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        write_json(place / "result.json", {"key": cell.key, "cell": cell.name, **outcome, **paid, "finished": when})
        return ended

    def _spawn(self, step: str, cell: Cell, place: Path) -> Outcome:
        """Run one step of a cell in an empty folder, with one thread a process."""
        clear(place)
        write_json(place / "cell.json", asdict(cell))
        command = [sys.executable, "-m", "det_seg_agent.compare.child", step, str(place)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = time.time()
        with (place / "log.txt").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            self._running[process.pid] = process
            try:
                _, status, used = os.wait4(process.pid, 0)  # of this process and all that it waited for
            except KeyboardInterrupt:  # in the main thread, where there is no pool yet that would end it
                process.terminate()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            self._running.pop(process.pid)
        return Outcome(process.returncode, time.time() - started, used.ru_utime + used.ru_stime)


def pace_of(cell: Cell) -> str:
    """Return what a task's pace depends on."""
    return Cell(cell.task, "full", "", 1.0, 0, {}, cell.host, cell.data, cell.scenes, None, cell.config_text).key


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


def span(seconds: float) -> str:
    """Return a time for people."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
