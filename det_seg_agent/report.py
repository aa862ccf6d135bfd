"""What a user sees of a run: panel, lines, columns, trace, pictures, and `metrics.json`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel

from det_seg_agent.files import write_json
from det_seg_agent.plots import plot_run
from det_seg_agent.selector import PassReport, Selector
from det_seg_agent.sheets import contact_sheets
from det_seg_agent.trace import Trace, read


class Report:
    """Writes what a run leaves in `folder`, the same for every toolbox.

    Args:
        folder: the run's folder.
        selector: of the run.
        files: image file of each sample, by dataset index.
        trace: whether to write the Parquet trace.
        full_images: images that training on full data would see; by default all in each pass.
        budget: share of `full_images` that the run is to train on; by default the schedule's.
    """

    def __init__(
        self,
        folder: Path,
        selector: Selector,
        files: list[str],
        trace: bool,
        full_images: int | None = None,
        budget: float | None = None,
    ):
        self.folder, self.selector, self.files = Path(folder), selector, files
        self.trace = Trace(self.folder / "trace") if trace else None
        self.full_images, self.budget = full_images, budget
        self.last: PassReport | None = None
        self.pass_seconds: list[tuple[float, int]] = []
        self._mark = time.time()
        self._told: set[str] = set()

    def begin(self, first_pass: int) -> None:
        """Print the panel and drop the trace of passes that are to be made again."""
        self._mark = time.time()
        if self.trace is not None:
            with self._optional(self.trace.folder, "the trace"):
                self.trace.drop_from(first_pass)
        Console().print(Panel(self.panel(), title="det_seg_agent", expand=False))

    def panel(self) -> str:
        """Return strategy, schedule, images a pass and expected saving."""
        s, total, passes = self.selector.settings, len(self.selector), self.selector.total_passes
        name = s.strategy if s.preset == "default" else f"{s.strategy} ({s.preset})"
        if self.selector.selects_all:
            return f"strategy  {name}\nimages    {total} in each of {passes} passes, nothing is saved"
        counts = sorted({s.count_at(p, passes, total) for p in range(passes)})
        budget = s.budget(passes, total) if self.budget is None else self.budget
        return (
            f"strategy  {name}\n"
            f"schedule  {s.describe(passes)}\n"
            f"images    {' or '.join(map(str, counts))} of {total} a pass\n"
            f"budget    {budget:.0%} of the images of full training: saves {1 - budget:.0%}"
        )

    def add(self, report: PassReport) -> str:
        """Take a finished pass; return its line."""
        self.last = report
        self.pass_seconds.append((time.time() - self._mark, report.selected))
        if self.trace is not None:
            table = self.selector.table
            with self._optional(self.trace.folder, "the trace", f"pass {report.pass_index + 1} is missing in it"):
                self.trace.write(report.pass_index, table, self.selector.selection.indices, table.score)
        return report.line()

    def mark(self) -> None:
        """Start the clock of a pass."""
        self._mark = time.time()

    def full_time_estimate(self, wall: float) -> float:
        """Return the seconds that full data would have taken: `wall` plus the unselected images at this run's pace."""
        seconds = sum(s for s, _ in self.pass_seconds)
        images = sum(n for _, n in self.pass_seconds)
        skipped = len(self.selector) * len(self.pass_seconds) - images
        return wall + skipped * seconds / max(images, 1)

    def scalars(self) -> dict[str, float]:
        """Return the last pass as `agent/...` figures for CSV files and loggers."""
        if self.last is None:
            return {}
        r = self.last
        return {
            "agent/selected": r.selected,
            "agent/ratio": round(r.ratio, 5),
            "agent/new": round(r.new, 5),
            "agent/balance": round(r.balance, 5),
            "agent/reward": round(r.reward, 5),
            "agent/policy_entropy": round(r.policy_entropy, 5),
            "agent/images": r.images,
        }

    def finish(self) -> None:
        """Draw the plot and the two contact sheets."""
        history, table = self.selector.history, self.selector.table
        with self._optional(self.folder, "the plot"):
            plot_run(history, self.folder, read(self.folder / "trace") if self.trace is not None else None)
        with self._optional(self.folder, "the contact sheets"):
            contact_sheets(self.files, table.selected, len(history), table.score, self.folder)

    def write_metrics(self, figures: dict[str, Any]) -> None:
        """Write `metrics.json`."""
        with self._optional(self.folder, "metrics.json"):
            write_json(self.folder / "metrics.json", figures)

    @contextmanager
    def _optional(self, path: Path, what: str, loss: str = "it is missing or old") -> Iterator[None]:
        """Let a run go on without what only shows it, as on a full disk, and tell the user once of each."""
        try:
            yield
        except OSError as error:
            if what not in self._told:
                self._told.add(what)
                text = f"{what} cannot be written ({error}): {loss}. Free space in {path}; the run goes on."
                Console(stderr=True).print(f"det_seg_agent: {text}", style="bold red", soft_wrap=True, markup=False)

    def cost(self) -> dict[str, Any]:
        """Return budget and images, and what full data would have cost.

        `padding` is how many of the images filled up last batches, over all passes: samples walked twice in one.
        """
        history, total = self.selector.history, len(self.selector)
        images = int(history[-1]["images"]) if history else 0
        full = self.full_images or total * len(history)
        return {
            "strategy": self.selector.settings.strategy,
            "ratio": self.selector.settings.ratio,
            "passes": len(history),
            "images_trained": images,
            "full_images_trained": full,
            "padding": 0 if self.selector.selects_all else padding(history),
            "budget": images / full if full else 0.0,
        }

    def result(self, wall: float) -> dict[str, Any]:
        """Return `cost` with the seconds that the run took and those that full data would have taken."""
        estimate = self.full_time_estimate(wall)
        return {**self.cost(), "wall_time_s": round(wall, 1), "full_wall_time_s_estimate": round(estimate, 1)}

    def closing(self, wall: float) -> str:
        """Return `result` in one sentence."""
        r = self.result(wall)
        return (
            f"trained on {r['images_trained']} images, full data would have been {r['full_images_trained']} (budget "
            f"{r['budget']:.0%}); {wall:.0f} s, full data about {r['full_wall_time_s_estimate']:.0f} s by this run's "
            "own time per image"
        )


def padding(history: list[dict[str, float]]) -> int:
    """Return the images that passes trained on beyond their selections."""
    before = [0.0, *(row["images"] for row in history)]
    return int(sum(max(0.0, row["images"] - b - row["selected"]) for b, row in zip(before, history, strict=False)))
