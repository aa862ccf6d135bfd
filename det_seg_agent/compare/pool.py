"""`Runner`: runs cells, each in its own process, and stores their results. `compare.cli` uses it.

Several processes and machines may run the cells of one folder: each cell has a lock.
"""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from det_seg_agent.compare.attempts import prune
from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.devices import Slot
from det_seg_agent.compare.locks import Lock
from det_seg_agent.compare.preparing import Preparer
from det_seg_agent.compare.processes import Outcome
from det_seg_agent.compare.queue import Queue
from det_seg_agent.compare.store import read_if_there, tail
from det_seg_agent.files import write_json

TAIL = 30  # lines of a failed cell's log stored with it
INVALID = 2  # exit status of a cell whose input is refused
POLL = 5.0  # seconds between looks at cells that other processes run


class Runner(Preparer):
    """Runs the cells of a matrix; see `Store` for the files.

    Args:
        folder: folder of all cells.
        slots: devices, one for each cell that runs at a time.
        keep_older: whether results of other versions of our sources count as finished.
        keep_checkpoints: whether to keep all checkpoints of finished cells.

    Attributes:
        out_of_time: whether `run` ended at its time limit.
    """

    def __init__(
        self, folder: Path, slots: list[Slot] | None = None, keep_older: bool = False, keep_checkpoints: bool = False
    ):
        super().__init__(folder, slots, keep_older)
        self.keep_checkpoints, self.out_of_time = keep_checkpoints, False
        self._started: dict[str, float] = {}

    def run(
        self, cells: list[Cell], everything: list[Cell], console: Console, time_limit: float | None = None
    ) -> list[Cell]:
        """Run the unfinished cells with a progress bar, and wait for those that other processes run.

        Args:
            cells: cells to run.
            everything: the whole matrix, for estimates.
            console: console for messages.
            time_limit: seconds after which the running cells are stopped; the same command goes on with them.

        Returns:
            The cells that failed.
        """
        queue = Queue(cells, self, self.processes.end)
        todo, began = queue.unfinished(), time.time()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        left = TextColumn("{task.fields[left]} left")
        with Progress(*columns, TimeElapsedColumn(), left, console=console) as progress, self._pool() as pool:
            bar = progress.add_task(f"{len(cells) - len(todo)}/{len(cells)} cells", total=1, left="?")
            working: set[Future[None]] = {pool.submit(self._work, slot, queue, progress) for slot in self.slots}
            estimate, known = self.estimates(everything), len(todo)
            while working:
                ended, working = wait(working, timeout=1, return_when=FIRST_COMPLETED)
                for future in ended:
                    future.result()
                open_cells = queue.unfinished()
                if len(open_cells) != known:
                    estimate, known = self.estimates(everything), len(open_cells)
                rest = sum(self._remaining(cell, estimate) for cell in open_cells) / self.jobs
                spent = sum(estimate.get(cell.name, 0) for cell in todo) / self.jobs - rest
                progress.update(
                    bar, completed=spent, total=max(spent + rest, 1e-9), left=span(rest), refresh=bool(ended),
                    description=f"{len(cells) - len(open_cells)}/{len(cells)} cells",
                )  # fmt: skip
                if time_limit is not None and time.time() - began > time_limit and working:
                    self.out_of_time = True
                    break
        return queue.failed

    def _remaining(self, cell: Cell, estimate: dict[str, float]) -> float:
        whole, started = estimate.get(cell.name, 0.0), self._started.get(cell.name)
        return whole if started is None else max(whole - (time.time() - started), 0.05 * whole)

    @contextlib.contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Yield a thread pool; on exit terminate running cells, which will go on next time."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            yield pool
        finally:
            self.processes.stop()
            pool.shutdown(cancel_futures=True)

    def _work(self, slot: Slot, queue: Queue, progress: Progress) -> None:
        """Run cells in a slot, in the order given, until none is left."""
        told = False
        while not self.processes.stopped:
            cell, lock = queue.take()
            if cell is None:
                return
            if lock is None:
                if not told:
                    text = "waiting for cells that other processes run; they are taken over if those end"
                    progress.console.print(text, highlight=False)
                    told = True
                self._wait()
                continue
            try:
                outcome = self.one(cell, slot, lock)
            finally:
                queue.put_back(cell, lock, again=lock.is_lost)
            if lock.is_lost or (self.processes.stopped and outcome.status):
                continue
            how = f"finished in {span(outcome.wall)}"
            if outcome.status:
                queue.failed.append(cell)
                how = f"FAILED with status {outcome.status}: {self.place(cell) / 'log.txt'}"
            progress.console.print(f"{cell.name}: {how}", highlight=False, soft_wrap=True)

    def _wait(self) -> None:
        end = time.time() + POLL
        while time.time() < end and not self.processes.stopped:
            time.sleep(0.2)

    def one(self, cell: Cell, slot: Slot | None = None, lock: Lock | None = None) -> Outcome:
        """Run a cell, or go on with it after a stop, and write `result.json` or `failed.json`."""
        place, slot = self.place(cell), slot or self.slots[0]
        self._started[cell.name] = time.time()
        ended = self.processes.run("train", cell, place, slot, resume=True)
        if ended.status == INVALID and ended.resumed:  # what is left cannot go on, as after the last step
            ended = self.processes.run("train", cell, place, slot)
        outcome = read_if_there(place / "outcome.json")
        if lock is not None and lock.is_lost:  # its folder is another process's now
            return ended
        if self.processes.stopped and ended.status:  # terminated by us, so not a failure
            return ended
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        if ended.status or outcome is None:
            text = tail(place, TAIL)
            write_json(place / "failed.json", {"status": ended.status, "tail": text, "finished": when})
            return ended if ended.status else Outcome(1, ended.wall, ended.cpu)
        aside = outcome.get("aside", {"wall_s": 0.0, "cpu_s": 0.0})  # what the statistics took
        paid = {
            "wall_s": round(ended.wall - aside["wall_s"], 2),
            "cpu_s": round(ended.cpu - aside["cpu_s"], 2),
            "jobs": self.jobs,
            "device": slot.device,
        }
        write_json(place / "result.json", {"key": cell.key, "cell": cell.name, **outcome, **paid, "finished": when})
        if not self.keep_checkpoints:
            prune(place)
        return ended


def span(seconds: float) -> str:
    """Format a duration for messages."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
