"""`Report`: a run's log lines, trace, pictures, samples and `metrics.json`. Each adapter has one per run."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from det_seg_agent.files import printable, write_json
from det_seg_agent.messages import LOGGER
from det_seg_agent.pass_report import PassReport
from det_seg_agent.reporting.class_levels import plot_levels, write_levels
from det_seg_agent.reporting.cost import closing_text, full_time_estimate, images_of, plan_text
from det_seg_agent.reporting.extra import missing, notice, open_trace, passes_of
from det_seg_agent.selector import Selector

if TYPE_CHECKING:
    from det_seg_agent.reporting.looks import Looks

STATS = ("balance", "reward", "policy_entropy")  # fields of `PassReport`


class Report:
    """Writes our output files of a run to `folder`, identically for every toolbox.

    Args:
        folder: the run's folder.
        selector: the run's selector.
        files: image file of each sample, by dataset index.
        trace: whether to write the Parquet trace.
        full_images: number of images in training on full data; by default all samples in each pass.
        budget: planned fraction of `full_images`; by default computed from the padded selections.
        labels: returns what `data.html` draws as the labels of samples.
        predictions: the same of what the trained model says; called at the end of the run.

    Attributes:
        pictures: files of the pictures that were drawn at the end.
        until: what ends the run if the number of passes is not known in advance, such as `time=0.5`.
        trains: whether the run changes weights; `score` sets it to False.
    """

    def __init__(
        self,
        folder: Path,
        selector: Selector,
        files: list[str],
        trace: bool,
        full_images: int | None = None,
        budget: float | None = None,
        labels: "Looks | None" = None,
        predictions: "Looks | None" = None,
    ):
        self.folder, self.selector, self.files = Path(folder), selector, files
        self.missing = missing()
        self.trace = open_trace(self.folder / "trace") if trace and "pyarrow" not in self.missing else None
        self.full_images, self.budget = full_images, budget
        self.labels, self.predictions = labels, predictions
        self.stat_names = [name for name in STATS if name in selector.strategy.stat_names]
        self.until, self.trains = "", True
        self.pictures: list[Path] = []
        self.last: PassReport | None = None
        self.pass_seconds: list[tuple[float, int]] = []
        self._begun = self._mark = time.time()
        self._warned: set[str] = set()

    def begin(self, first_pass: int) -> None:
        """Make the folder, log the panel, and delete the trace from pass `first_pass` on, as it is written again."""
        self._begun = self._mark = time.time()
        with self._optional("the run's folder"):
            self.folder.mkdir(parents=True, exist_ok=True)
        if self.trace is not None:
            with self._optional("the trace"):
                self.trace.drop_from(first_pass)
        if self.missing:
            self._warn(notice(self.missing))
        LOGGER.info("det_seg_agent\n%s", self.panel())

    def panel(self) -> str:
        """Return a text panel with strategy, schedule, images per pass and expected saving."""
        return plan_text(self.selector, self.full_images, self.budget, self.until)

    def add(self, report: PassReport) -> str:
        """Record a finished pass and write its trace; return its log line."""
        self.last = report
        self.pass_seconds.append((time.time() - self._mark, report.selected))
        if self.trace is not None:
            table = self.selector.table
            with self._optional("the trace", f"pass {report.pass_index + 1} is missing in it"):
                self.trace.write(report.pass_index, table, self.selector.selection.indices, table.score)
        classes = self.selector.classes
        if classes is not None and classes.passes:
            with self._optional("classes.csv"):
                write_levels(classes, self.folder)
        return report.line()

    def mark(self) -> None:
        """Start timing a pass."""
        self._mark = time.time()

    def scalars(self) -> dict[str, float]:
        """Return the last pass's figures as `agent/...` scalars for CSV files and loggers; the names never change."""
        if self.last is None:
            return {}
        names = ("selected", "ratio", "new", *self.stat_names, "images")
        values = {name: getattr(self.last, name) for name in names}
        return {f"agent/{name}": v if isinstance(v, int) else round(v, 5) for name, v in values.items()}

    def end(self, figures: Mapping[str, Any] | None = None, wall: float | None = None, draw: bool = True) -> str:
        """Write `metrics.json` and the pictures, and return the closing sentence.

        Args:
            figures: entries of `metrics.json` in addition to `result`.
            wall: duration of the run in seconds; by default the time since `begin`.
            draw: whether to draw the pictures.
        """
        wall = time.time() - self._begun if wall is None else wall
        self.write_metrics({**(figures or {}), **self.result(wall)})
        if draw:
            self.finish()
        return self.closing(wall)

    def finish(self) -> None:
        """Draw the plot, the heat map of the classes and the contact sheets; write what is known of the samples."""
        self.pictures = []
        history, table, classes = self.selector.history, self.selector.table, self.selector.classes
        if "matplotlib" not in self.missing:
            with self._optional("the plot"):
                from det_seg_agent.reporting.plots import plot_run

                times, trace = table.selected.numpy(), passes_of(self.trace, self._warn)
                self.pictures.append(plot_run(history, times, trace, self.folder))
            if classes is not None and classes.passes:
                with self._optional("the heat map of the classes"):
                    self.pictures.append(plot_levels(classes, self.folder))
        if "PIL" not in self.missing:
            with self._optional("the contact sheets"):
                from det_seg_agent.reporting.sheets import contact_sheets

                self.pictures += contact_sheets(self.files, table.selected, len(history), table.score, self.folder)

        if not self.missing.keys() & {"pyarrow", "PIL"}:
            self._write_samples()

    def _write_samples(self) -> None:
        from det_seg_agent.reporting.data_page import DataPage, write_page
        from det_seg_agent.reporting.samples import sample_rows, write_samples

        table, classes = self.selector.table, self.selector.classes
        if classes is not None:
            with self._optional("the classes of the samples"):
                classes.read_shares(len(table))
        with self._optional("samples.parquet and samples.csv"):
            rows = sample_rows(table, self.files, classes)
            write_samples(rows, self.folder)
            with self._optional("data.html"):
                page = DataPage(
                    rows, self.files, len(self.selector.history),
                    self.selector.settings.strategy if self.trains else "", classes,
                    self.labels, self.predictions, self._warn,
                )  # fmt: skip
                write_page(page.html(), self.folder / "data.html")

    def show(self, add: Callable[[str, np.ndarray], object]) -> None:
        """Hand the pictures to a host's loggers: their names, as `agent.png`, and their RGB values (h, w, 3) uint8."""
        with self._optional("the pictures for the loggers", "they are in the run's folder"):
            from PIL import Image

            for path in self.pictures:
                with Image.open(path) as image:
                    add(path.name, np.asarray(image.convert("RGB")))

    def write_metrics(self, figures: dict[str, Any]) -> None:
        """Write `metrics.json`."""
        with self._optional("metrics.json"):
            write_json(self.folder / "metrics.json", figures)

    @contextmanager
    def _optional(self, what: str, loss: str = "it is missing or old") -> Iterator[None]:
        """Ignore errors while writing optional output (trace, pictures, metrics); warn once for each kind of output."""
        try:
            yield
        except Exception as error:  # a full disk, a damaged file, or any error of a plotting library
            if what not in self._warned:
                self._warned.add(what)
                hint = f" Free space in {self.folder}." if isinstance(error, OSError) else ""
                reason = str(error) or type(error).__name__
                self._warn(f"{what} cannot be written ({reason}): {loss}; the run goes on.{hint}")

    def _warn(self, text: str) -> None:
        with suppress(OSError, ValueError):  # stderr may be closed
            LOGGER.warning(printable(f"det_seg_agent: {text}"))

    def cost(self) -> dict[str, Any]:
        """Return budget and number of images of this run and of training on full data; see `cost.images_of`."""
        return images_of(self.selector, self.full_images)

    def result(self, wall: float) -> dict[str, Any]:
        """Return `cost` plus the run's duration `wall` and the estimate for full data, in seconds."""
        estimate = full_time_estimate(wall, len(self.selector), self.pass_seconds)
        return {**self.cost(), "wall_time_s": round(wall, 1), "full_wall_time_s_estimate": round(estimate, 1)}

    def closing(self, wall: float) -> str:
        """Return `result` as one sentence; for a resumed run the seconds count from the resume."""
        if not self.trains:
            return (
                f"showed {self.result(wall)['images_trained']} images to the model in {wall:.0f} s; nothing was trained"
            )
        result = self.result(wall)
        return closing_text(result, wall, len(self.pass_seconds) < result["passes"], self.selector.selects_all)
