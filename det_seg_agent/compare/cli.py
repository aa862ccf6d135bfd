"""The command line of comparisons; `tools/compare.py` runs it."""

import argparse
import signal
from pathlib import Path

from rich.console import Console

from det_seg_agent.compare.budgets import Finished
from det_seg_agent.compare.cells import Cell
from det_seg_agent.compare.devices import slots_of
from det_seg_agent.compare.documents import write_tables
from det_seg_agent.compare.locks import waiting
from det_seg_agent.compare.matrix import read
from det_seg_agent.compare.page import missing_cells, page, write_text
from det_seg_agent.compare.pictures import pictures
from det_seg_agent.compare.pool import Runner, span
from det_seg_agent.compare.spec import Comparison
from det_seg_agent.compare.summary import Summary, summarise
from det_seg_agent.compare.tables import WIDTH, classes_csv, print_tables, results, rows_csv
from det_seg_agent.errors import ConfigError
from det_seg_agent.files import write_json
from det_seg_agent.hosts.commands import guarded
from det_seg_agent.hosts.recipes import FOLDER, found

OUT_OF_TIME = 124  # as of timeout(1)
SCENES = FOLDER / "compare/scenes.yaml"


def arguments_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="det-seg-agent compare",
        description="Train a matrix of strategy x ratio x seed with its controls, and write one page of results.",
    )
    parser.add_argument("config", nargs="?", type=Path, default=SCENES, help="a YAML; by default the embedded scenes")
    parser.add_argument("--data", help="data of the tasks for which the YAML names none")
    parser.add_argument("--folder", type=Path, help="of cells and page; by default runs/compare/ and the YAML's name")
    parser.add_argument("--jobs", type=int, help="cells at a time, 1 by default")
    parser.add_argument("--devices", help="in place of the YAML's: cpu or indices, with :N for N cells, as 0,1:2")
    parser.add_argument("--time-limit", type=float, help="hours after which to stop; the same command goes on")
    parser.add_argument(
        "--keep-checkpoints", action="store_true", help="keep all of a finished cell; else the judged one alone"
    )
    parser.add_argument("--only", default="", help="run the cells alone whose name contains this")
    parser.add_argument("--list", action="store_true", help="print the cells and stop")
    parser.add_argument(
        "--keep-older", action="store_true", help="keep and mark cells of other sources of this package; else run again"
    )
    parser.add_argument("--page-only", action="store_true", help="train nothing; make the page of what is finished")
    parser.add_argument(
        "--tables",
        type=Path,
        metavar="FILE.md",
        help="write the tables into the places marked in a document; no training",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, 1 if a cell failed, 2 for invalid input, 124 at the time limit, 130 after Ctrl-C.
    """
    options = arguments_parser().parse_args(arguments)
    options.config = found(options.config)
    # SIGTERM must also end the cells. Not by raising SIGINT, which a shell's background job ignores.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    stopped = "stopped; finished cells are kept, and the same command goes on with the others"
    try:
        return guarded(lambda: compare(options), stopped)
    finally:
        signal.signal(signal.SIGTERM, before)


def compare(options: argparse.Namespace) -> int:
    """Run, list or only report a comparison, as the options say; return the exit status.

    Raises:
        ConfigError: if options, YAML or data are invalid.
    """
    slots = slots_of(options.devices, options.jobs)
    if options.time_limit is not None and not options.time_limit > 0:
        raise ConfigError(f"--time-limit {options.time_limit:g}: hours, more than 0.")
    console = Console(soft_wrap=True)
    comparison, cells = read(options.config, options.data)
    folder = (options.folder or Path("runs/compare") / options.config.stem).resolve()
    runner = Runner(folder, slots, options.keep_older, options.keep_checkpoints)
    if not any(options.only in cell.name for cell in cells):
        raise ConfigError(f"--only {options.only!r}: no cell's name contains it; --list shows them.")
    options.page_only |= options.tables is not None
    look = options.list or options.page_only
    tasks = set() if look else {cell.task for cell in cells if options.only in cell.name}
    cells = runner.prepare(cells, tasks | runner.tasks_with_results(cells), console)
    wanted = [cell for cell in cells if options.only in cell.name]
    if options.list:
        listed(wanted, runner, console)
        return 0
    if options.page_only and not any(map(runner.result, cells)):
        raise ConfigError(f"{folder}: no cell is finished, so that there is nothing to show; run it first.")
    limit = None if options.time_limit is None else 3600 * options.time_limit
    try:
        failed = [] if options.page_only else train(wanted, cells, runner, console, limit)
    finally:  # also when interrupted, with the finished cells
        with waiting(folder / "index.lock"):
            report(options, comparison, cells, runner)
        console.print(f"page: {folder / 'index.html'}", highlight=False)
    if runner.out_of_time:
        text = f"stopped after {options.time_limit:g} h; the same command goes on with what is left"
        console.print(text, highlight=False)
        return OUT_OF_TIME
    return 1 if failed else 0


def report(options: argparse.Namespace, comparison: Comparison, cells: list[Cell], runner: Runner) -> None:
    """Write the page and the files of results, and print the tables."""
    finished = [(cell, result) for cell in cells if (result := runner.result(cell)) is not None]
    missing = missing_cells(cells, runner.result, runner.failure)
    summaries = summaries_of(comparison, finished, cells)
    text = options.config.read_text(encoding="utf-8")
    shown = {
        summary.task: pictures([pair for pair in finished if pair[0].task == summary.task]) for summary in summaries
    }
    content = page(comparison.title, text, again(options), finished, missing, summaries, shown)
    write_text(runner.folder / "index.html", content)
    write_json(runner.folder / "results.json", results(summaries))
    write_text(runner.folder / "results.csv", rows_csv(summaries))
    write_text(runner.folder / "classes.csv", classes_csv(summaries))
    print_tables(summaries, Console(width=WIDTH))
    if options.tables is not None:
        count = write_tables(options.tables, options.config.stem, summaries)
        Console(soft_wrap=True).print(f"{options.tables}: {count} tables", highlight=False)


def summaries_of(comparison: Comparison, finished: Finished, cells: list[Cell]) -> list[Summary]:
    """Return the summary of each task that has a finished cell."""
    tasks = dict.fromkeys(cell.task for cell, _ in finished)
    mine = {task: [(cell, result) for cell, result in finished if cell.task == task] for task in tasks}
    return [summarise(task, done, comparison.report(task), cells) for task, done in mine.items()]


def again(options: argparse.Namespace) -> str:
    """Return the command that repeats the whole comparison."""
    recipe = FOLDER in options.config.parents
    name = options.config.relative_to(FOLDER) if recipe else options.config
    words = ["det-seg-agent compare", *([] if options.config == SCENES else [str(name)])]
    words += ["--data", options.data] if options.data else []
    words += ["--jobs", str(options.jobs)] if options.jobs else []
    return " ".join([*words, *(["--devices", options.devices] if options.devices else [])])


def train(
    wanted: list[Cell], cells: list[Cell], runner: Runner, console: Console, time_limit: float | None = None
) -> list[Cell]:
    """Run the unfinished cells after printing an estimate; return those that failed."""
    todo = [cell for cell in wanted if runner.result(cell) is None]
    if not todo:
        return []
    if older := sum(map(runner.is_older, todo)):
        console.print(
            f"{older} cells were finished by another state of det_seg_agent's sources and are run again, beside those, "
            "which stay in their folders; --keep-older keeps and marks them",
            highlight=False,
        )
    tasks = {cell.task for cell in todo}
    new = {t for t in tasks if not any(runner.result(c) for c in cells if c.task == t)}
    runner.calibrate([cell for cell in todo if cell.task in new], console)
    estimate = runner.estimates(cells)
    seconds = sum(estimate.get(cell.name, 0) for cell in todo) / runner.jobs
    about = span(seconds) if seconds else "an unknown time"
    source = "finished cells" if not new else "a very short run of each task"
    console.print(
        f"{len(wanted) - len(todo)} of {len(wanted)} cells are finished; the others take about {about} "
        f"with {runner.jobs} at a time, by {source}",
        highlight=False,
    )
    return runner.run(wanted, cells, console, time_limit)


def listed(cells: list[Cell], runner: Runner, console: Console) -> None:
    """Print the cells with budget and state."""
    for cell in cells:
        state = "finished" if runner.result(cell) else "failed" if runner.failure(cell) else "to run"
        state += ", of older sources" if runner.is_older(cell) else ""
        budget = "by its own rule" if cell.role == "native" else f"about {cell.budget:.0%}"
        console.print(f"{cell.name}: budget {budget}, {state}", highlight=False)
