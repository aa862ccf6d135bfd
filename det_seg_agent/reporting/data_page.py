"""`data.html`: what a run says about its data, with pictures. `Report` writes it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from det_seg_agent.classes import Classes
from det_seg_agent.files import replacing
from det_seg_agent.reporting.looks import Look, Looks
from det_seg_agent.reporting.markup import bullets, figure, grid, page, picture, section, short, table
from det_seg_agent.reporting.sheets import order
from det_seg_agent.reporting.suspects import TELL

SHOWN = 12  # pictures of a section
SUSPECTS = 24
LEARNT, NOT_LEARNT = 0.5, 0.1  # levels of a class
FEW = 3  # passes
ROWS = 200  # classes in the table


class DataPage:
    """The page of a run.

    Args:
        rows: what `sample_rows` returns.
        files: image file of each sample; those in `rows` may have escapes.
        passes: number of passes of the run.
        strategy: name of the run's strategy; empty for images that were shown to a model without training.
        classes: the classes of the run, if they are known.
        labels: returns what to draw as the labels of samples, if the adapter tells it.
        predictions: the same of what the trained model says.
        warn: called with a message if one of the two fails.
    """

    def __init__(
        self,
        rows: pa.Table,
        files: Sequence[str],
        passes: int,
        strategy: str,
        classes: Classes | None = None,
        labels: Looks | None = None,
        predictions: Looks | None = None,
        warn: Callable[[str], object] = print,
    ):
        self.rows, self.files, self.passes, self.strategy = rows, files, passes, strategy
        self.classes, self.labels, self.predictions, self.warn = classes, labels, predictions, warn

    def column(self, name: str) -> np.ndarray:
        """Return a column as float64, (num_samples,), with NaN for null."""
        return pc.cast(self.rows[name], pa.float64()).to_numpy()

    def html(self) -> str:
        """Return the page."""
        parts = [
            section("In short", "", bullets(self.in_short())),
            section(
                "Suspected label errors",
                "The model keeps disagreeing with these labels, more than with others of the same classes. Left the "
                "labels, right what the trained model says, where both are known, around the objects. "
                "Hard or unusual images are among "
                "them: look before you delete. `why` in samples.csv has the figures.",
                self.suspected(),
            ),
            self.by_times(True),
            self.by_times(False),
            self.highest("loss_mean", "Hardest", "loss", "The highest mean loss over the passes that saw them."),
            self.highest(
                "entropy", "Most uncertain", "entropy", "The highest predictive entropy when they were seen last."
            ),
            section(
                "Classes",
                f"Level: right / (predicted + labelled - right) {'in training, ' if self.strategy else ''}by objects "
                "or pixels, when the class was shown last. The lowest come first.",
                self.class_table(),
            ),
        ]
        passes = "1 pass" if self.passes == 1 else f"{self.passes} passes"
        how = f"strategy {self.strategy}. All figures are of training" if self.strategy else "nothing was trained"
        return page(
            "What the run says about its data",
            f"{len(self.rows):,} training images, {passes}, {how}; samples.csv has the figures of each image.", parts,
        )  # fmt: skip

    def in_short(self) -> list[str]:
        """Return sentences with the figures to know first."""
        times, suspect, seen = self.column("selected"), self.column("suspect"), self.column("seen")
        lines = [
            f"An image was selected {times.mean():.1f} times on average, {times.min():.0f} to {times.max():.0f} times."
            if len(times)
            else "There are no images."
        ]
        if (blind := int((seen == 0).sum())) and len(seen):
            lines.append(f"{blind:,} images gave no signal: they were never trained on, or their loss was not finite.")
        known = np.isfinite(suspect)
        if known.any():
            counts = [int((suspect[known] >= limit).sum()) for limit in (TELL, 0.9)]
            lines.append(
                f"{counts[0]:,} images have a suspect score of at least {TELL:g}, {counts[1]:,} of at least 0.9."
            )
            few = int((seen[known] < FEW).sum())
            if few:
                lines.append(f"{few:,} images were seen in fewer than {FEW} passes: little is known of their labels.")
        else:
            lines.append("No agreement of model and labels is known, so no label is suspected.")
        level = self.levels()
        if level is not None:
            lines += self._learnt(level)
        return lines

    def _learnt(self, level: np.ndarray) -> list[str]:
        assert self.classes is not None
        names, lines = self.classes.names, []
        order_ = np.argsort(level, kind="stable")
        for word, chosen in (
            (f"Not learnt (level under {NOT_LEARNT:g})", [i for i in order_ if level[i] < NOT_LEARNT]),
            (f"Learnt (level at least {LEARNT:g})", [i for i in order_[::-1] if level[i] >= LEARNT]),
        ):
            shown = ", ".join(names[i] for i in chosen[:12])
            more = f" and {len(chosen) - 12} more" if len(chosen) > 12 else ""
            lines.append(f"{word}: {shown}{more}." if chosen else f"{word}: no class.")
        return lines

    # Pictures ---------------------------------------------------------------------------------------------------------

    def suspected(self) -> str:
        """Return the pictures of the most suspected samples, with labels and predictions."""
        suspect = self.column("suspect")
        chosen = [
            i for i in np.argsort(-np.nan_to_num(suspect, nan=-1.0), kind="stable")[:SUSPECTS] if suspect[i] >= TELL
        ]
        if not chosen:
            return "<p>None.</p>" if np.isfinite(suspect).any() else ""
        looks = [self._looks(f, chosen, w) for f, w in ((self.labels, "labels"), (self.predictions, "predictions"))]
        kinds = [kind for kind, found in zip(("labels", "predictions"), looks, strict=True) if found is not None]
        drawn = [found for found in looks if found is not None] or [[None] * len(chosen)]
        why = self.rows["why"]
        return grid(
            (
                figure(
                    picture(self.files[i], self.name(i), [each[place] for each in drawn], kinds, near=True),
                    f"{self.name(i)}: {why[i].as_py()}; labelled {self.class_names(i)}",
                    wrap=len(drawn) > 1,
                )
                for place, i in enumerate(chosen)
            ),
            pairs=len(drawn) > 1,
        )

    def _looks(self, looks: Looks | None, chosen: Sequence[int], what: str) -> Sequence[Look | None] | None:
        if looks is None:
            return None
        try:
            return looks([int(i) for i in chosen])
        except Exception as error:  # a model or a data set of the user's own; the page can do without
            self.warn(f"data.html shows no {what}: {type(error).__name__}: {error}")
            return None

    def by_times(self, most: bool) -> str:
        """Return the section of the samples selected most or least often; nothing if all were so equally often."""
        times = self.column("selected")
        if not len(times) or times.min() == times.max():
            return ""
        score = torch.tensor(self.column("score"))
        picked = order(torch.tensor(times), score, most, SHOWN)
        word = "Most" if most else "Least"
        note = f"Selected {word.lower()} often; among equals the {'highest' if most else 'lowest'} last scores."
        return section(f"{word} selected", note, self.pictures(picked, "selected", ""))

    def highest(self, column: str, title: str, word: str, note: str) -> str:
        """Return the section of the samples with the highest values of a column."""
        values = self.column(column)
        known = np.flatnonzero(np.isfinite(values))
        picked = known[np.argsort(-values[known], kind="stable")][:SHOWN].tolist()
        return section(title, note, self.pictures(picked, column, word))

    def pictures(self, picked: Sequence[int], column: str, word: str) -> str:
        """Return pictures of samples with their labels and a figure in the caption."""
        values = self.column(column)
        looks = self._looks(self.labels, picked, "labels") or [None] * len(picked)
        return grid(
            figure(
                picture(self.files[i], self.name(i), [looks[place]]),
                f"{self.name(i)}: {f'{word} {values[i]:.3g}' if word else f'{values[i]:.0f} times'}",
            )
            for place, i in enumerate(picked)
        )

    # Classes ----------------------------------------------------------------------------------------------------------

    def levels(self) -> np.ndarray | None:
        """Return the level (classes,) of each class in the last pass that showed it, NaN if none did."""
        if self.classes is None or not self.classes.passes:
            return None
        level = np.full(len(self.classes), np.nan)
        for _, values in sorted(self.classes.passes.items()):
            level = np.where(np.isfinite(values), values, level)
        return level

    def class_table(self) -> str:
        """Return the table of the classes, the lowest level first."""
        if self.classes is None or self.classes.shares is None:
            return ""
        shares, level = self.classes.shares, self.levels()
        found = np.full(len(self.classes), np.nan) if level is None else level
        images, labels = shares.images().int().tolist(), shares.labels.long().tolist()
        lines = [
            (name, f"{images[i]:,}", f"{labels[i]:,}", float(found[i]) if np.isfinite(found[i]) else "not shown")
            for i, name in sorted(enumerate(self.classes.names), key=lambda pair: np.nan_to_num(found[pair[0]], nan=-1))
        ]
        more = f"<p>{len(lines) - ROWS} classes more.</p>" if len(lines) > ROWS else ""
        return table(("class", "images", "objects or pixels", "level"), lines[:ROWS], bar=3) + more

    def name(self, index: int) -> str:
        """Return the short name of a sample's file."""
        return short(Path(self.files[index]).name)

    def class_names(self, index: int) -> str:
        """Return the classes of a sample's labels."""
        names = self.rows["classes"][int(index)].as_py()
        return names if names else "nothing" if names == "" else "unknown"


def write_page(content: str, path: Path) -> Path:
    """Write a page, atomically."""
    with replacing(path) as part:
        part.write_text(content, encoding="utf-8")
    return path
