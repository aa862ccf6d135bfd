"""The figures of a cell that tables show: whole, macro over classes, and the rarest classes. `compare.rows` uses them.

Every figure is a mean over classes, so that it is as well defined for a sample of the test images.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from det_seg_agent.compare.images import Resampled
from det_seg_agent.compare.report import UNITS, Report
from det_seg_agent.errors import listed

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure in percent.

    Attributes:
        key: name in the YAML and in the JSON.
        label: name in tables.
        classes: the classes that it is the mean of; None for all that the test set has.
        by_class: key of the figures by class in a result.
    """

    key: str
    label: str
    classes: tuple[str, ...] | None = None
    by_class: str = "by_class"

    def value(self, result: Result) -> float | None:
        """Return the figure of a result; None if it has none."""
        if self.classes is None:
            found = result["quality"] if self.by_class == "by_class" else result.get("metrics", {}).get(self.key)
            return None if found is None else float(found)
        known = [result.get(self.by_class, {}).get(name) for name in self.classes]
        there = [float(value) for value in known if value is not None]
        return statistics.fmean(there) if there and len(there) == len(known) else None

    def resampled(self, samples: Resampled) -> NDArray[np.float64] | None:
        """Return the figure (B,) of each sample of the test images; None if the samples lack it."""
        values = samples.values.get(self.by_class)
        if values is None or not set(self.classes or ()) <= set(samples.names):
            return None
        at = [i for i, name in enumerate(samples.names) if self.classes is None or name in self.classes]
        chosen = values[:, at].astype(np.float64)
        there = ~np.isnan(chosen)
        with np.errstate(invalid="ignore"):
            return np.where(there, chosen, 0.0).sum(1) / there.sum(1)


@dataclass(frozen=True)
class Figures:
    """The figures of a task.

    Attributes:
        unit: AP, mIoU, accuracy or 100/perplexity.
        primary: the one that is compared and tested.
        shown: all, the primary one first.
        counts: "train_images", "test_images" and in detection "test_objects" by class; {} if unknown.
        notes: what readers have to know about them.
    """

    unit: str
    primary: Figure
    shown: tuple[Figure, ...]
    counts: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = ()


def figures_of(task: str, report: Report, results: Mapping[str, Result]) -> Figures:
    """Return the figures of a task.

    Args:
        task: detection, segmentation, classification or instruction.
        report: settings.
        results: results of its finished cells, by name.
    """
    unit, notes = UNITS[task], []
    whole = Figure(unit, unit)
    fifty = [Figure("AP50", "AP50", by_class="by_class50")] if task == "detection" else []
    lacking = [name for name, result in results.items() if not result.get("classes")]
    counts: Mapping[str, Mapping[str, int]] = next(
        (result["classes"] for result in results.values() if result.get("classes")), {}
    )
    found = {figure.key: figure for figure in (whole, *fifty)}
    if task == "instruction":
        notes.append("100 / perplexity is the geometric mean of the held-out answers' token probabilities, in percent.")
    elif lacking:
        notes.append(
            f"No figures by class, as {len(lacking)} cells were finished without them, by an earlier version or with "
            f"another metric: {listed(lacking)}. Run these again for macro figures."
        )
    else:
        word, of = _WORDS[task]
        least = report.min_objects if of == "test_objects" else report.min_images
        enough = [name for name, n in counts[of].items() if n >= least]
        shown = counts["train_images"]
        if enough:
            found["macro"] = Figure("macro", f"macro {word}", tuple(enough))
            notes.append(
                f"Macro {word}: mean over the {len(enough)} of {len(counts[of])} classes with at least {least} "
                f"{of.replace('_', ' ')}."
            )
        else:
            notes.append(f"No class has {least} {of.replace('_', ' ')}, so that there is no macro {word}.")
        if len(enough) >= 3 and shown:
            rare = sorted(enough, key=lambda name: shown[name])[: len(enough) // 3]
            found["rarest"] = Figure("rarest", f"rarest {word}", tuple(rare))
            notes.append(f"Rarest {word}: the third of these with the fewest training images: {listed(rare)}.")
    primary = found.get(report.primary, whole)
    if primary.key != report.primary and task != "instruction":
        notes.append(f"{unit} is compared in its place.")
    rest = [found[key] for key in ("macro", unit, "rarest", "AP50") if key in found and key != primary.key]
    return Figures(unit, primary, (primary, *rest), counts, tuple(notes))


_WORDS = {
    "detection": ("AP", "test_objects"), "segmentation": ("IoU", "test_images"),
    "classification": ("accuracy", "test_images"),
}  # fmt: skip


def rare_first(figures: Figures, names: Sequence[str]) -> list[str]:
    """Return names of classes by rising number of training images."""
    shown = figures.counts.get("train_images", {})
    return sorted(names, key=lambda name: shown.get(name, math.inf))
