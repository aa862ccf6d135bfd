"""What follows from a data set for the choice of strategy and ratio, with the evidence. `inspecting.cli` prints it."""

from collections.abc import Sequence

from det_seg_agent.errors import listed
from det_seg_agent.inspecting.contents import Contents
from det_seg_agent.inspecting.findings import HUGE, TINY, Findings
from det_seg_agent.inspecting.similar import Similar
from det_seg_agent.schedule import Schedule
from det_seg_agent.settings import parse

LONG_TAIL = 20.0  # images of the commonest class over those of the rarest
FEW = 500  # images below which selection saves little
EVERYWHERE = 0.7  # share of images with a rare class, above which choosing images hardly lifts it
TWINS = 0.1  # share of images in groups of near-duplicates, or in video-like runs, that matters
FAULTY = 0.01  # share of faulty objects that matters
RATIOS = (0.3, 0.5, 0.7, 0.9, 1.0)


def sentences(contents: Contents, found: Findings, similar: Similar | None, ratio: float) -> list[str]:
    """Return what follows, in plain words, the weightiest first."""
    lines = []
    faulty = sum(fault.count for fault in found.faults)
    if faulty and faulty < FAULTY * len(contents.cls):
        lines.append(f"{faulty:,} labels look wrong in themselves: too few to choose a strategy by; correct them.")
    elif faulty:
        lines.append(
            f"Look at the labels first: {faulty:,} of them look wrong in themselves. Selection does not repair labels. "
            "`agent` and `curated` count less what the model disagrees with: with 20 % wrong classes on photographs "
            "the agent was +4.5 mIoU [+2.4, +6.5] above random over six seeds, in a detector it was not measured."
        )
    lines += _classes(contents, found, ratio)
    if similar is not None:
        lines += _similar(similar)
    if found.empty > 0.2 * len(contents):
        lines.append(
            f"{found.empty / len(contents):.0%} of the images are empty. Their loss is low, their agreement unknown: "
            "`loss` passes over them; `random` and `even` do not."
        )
    if found.tiny == found.tiny and found.tiny > 0.3:
        lines.append(
            f"{found.tiny:.0%} of the objects are under {TINY:g} px at this imgsz: a larger one matters more than any "
            "selection."
        )
    if len(contents) < FEW:
        lines.append(
            f"{len(contents)} images are few: passes are short and full data costs little. Train on all, or compare "
            "with several seeds."
        )
    lines.append(
        "Only a training shows wrong labels. The agent counts images less that it doubts (docs/experiments.md), and "
        "after a run data.html has the suspects."
    )
    lines.append(
        "Wherever the above names no reason, expect of any strategy what random selection gives: from scratch, on "
        "clean and balanced data, none was above full data on a shorter schedule by more than the spread over seeds "
        "(docs/benchmarks.md). `det-seg-agent compare` tells on your data."
    )
    return lines


def _classes(contents: Contents, found: Findings, ratio: float) -> list[str]:
    names = listed((contents.names[c] for c in found.rare), 100)
    if len(found.used) < 3:
        return [
            f"{len(found.used)} class{'es' if len(found.used) != 1 else ''}: there is no tail for selection to lift."
        ]
    if found.imbalance < LONG_TAIL and found.thinness > LONG_TAIL:
        few, many = (contents.names[int(c)] for c in (found.thinnest, found.labels.argmax()))
        return [
            f"Classes are in similar numbers of images (at most {found.imbalance:.0f} to 1), but {many} has "
            f"{found.thinness:.0f} times the {contents.unit} of {few}: choosing images does not change that. Class "
            "weights of the host act on it, and crops (cat_max_ratio of RandomCrop) where masks are cropped."
        ]
    if found.imbalance < LONG_TAIL:
        return [
            f"Classes are fairly even (the commonest is in {found.imbalance:.0f} times as many images as the rarest): "
            "strategies that select by classes (`repeat_factor`, `curated`) have little to gain by it."
        ]
    if found.rare_share > EVERYWHERE:
        return [
            f"The rarest third ({names}) is in {found.rare_share:.0%} of the images: which images are chosen hardly "
            f"lifts it (at most {found.lift_most:.1f} times). Class weights of the host, or crops, act on it."
        ]
    lines = [
        f"Long tail: the rarest third ({names}) is in {found.rare_share:.1%} of the images. At ratio {ratio:g} a "
        f"selection without repeats can raise them at most {found.lift_most:.1f} times, `repeat_factor` shows them "
        f"{found.lift_repeats:.1f} times as often as random selection does. On LVIS and OpenImages, which have such "
        "tails, static rules of this kind gained 2.7 to 6.1 AP and 8 to 10 AP50 at equal iterations in the literature; "
        "here it was measured with one seed only (docs/benchmarks.md). The agent knows no classes."
    ]
    single = [contents.names[c] for c in found.used if found.images[c] < 10]
    if single:
        are = "class is" if len(single) == 1 else "classes are"
        lines.append(
            f"{len(single)} {are} in fewer than 10 images ({listed(single, 100)}): repeats show the same few "
            "again, and their figures will be noise. Collect more of them, or leave them out of the mean."
        )
    return lines


def _similar(similar: Similar) -> list[str]:
    lines = []
    if similar.spare > TWINS:
        lines.append(
            f"{similar.copies:.0%} of the images are near-duplicates, {similar.groups:,} groups with up to "
            f"{similar.largest}; {similar.spare:.0%} could go. No strategy sees them: the agent selected 52 % of such "
            "copies where random selects 49 %, top loss 64 % (docs/benchmarks.md). Take them out by duplicates.csv."
        )
    if similar.video > TWINS:
        lines.append(
            f"{similar.video:.0%} of the images are in video-like runs (the longest has {similar.longest}). Neighbours "
            "show nearly the same. On CamVid, which is such data, 57 % of the images gave 39.0 mIoU at random, 39.2 by "
            "the agent and 40.1 with full data on a shorter schedule; full training had 41.0 (docs/benchmarks.md). "
            "If the validation images are of the same recordings, its figures flatter every strategy."
        )
    if not lines:
        lines.append("There are few near-duplicates and no long video-like runs: there is no redundancy to save on.")
    return lines


def costs(images: int, epochs: int, ratio: float, pace: float | None) -> list[tuple[str, ...]]:
    """Return a row per ratio: ratio, images of a pass, images of the run, share of full training, and hours.

    Args:
        images: number of training images.
        epochs: passes of the run.
        ratio: the ratio that was asked about.
        pace: images a second in training; None leaves the hours out.
    """
    rows: list[tuple[str, ...]] = []
    for each in sorted({*RATIOS, ratio}):
        schedule = parse(Schedule, {"ratio": each})
        total = schedule.images(epochs, images) if images else 0
        row = (f"{each:g}", f"{round(each * images):,}", f"{total:,}", f"{total / max(epochs * images, 1):.0%}")
        rows.append((*row, f"{total / pace / 3600:.1f}") if pace else row)
    return rows


def labels_lines(contents: Contents, found: Findings) -> list[str]:
    """Return sentences on the labels."""
    unused = [contents.names[c] for c in range(len(contents.names)) if not found.images[c]]
    lines = [
        f"{len(contents):,} images, {found.labels.sum():,.0f} {contents.unit}, {len(found.used)} of "
        f"{len(contents.names)} classes are used.",
        f"{found.empty:,} images are empty"
        + (f", {contents.unlabelled:,} of them have no label file." if contents.unlabelled else "."),
    ]
    if unused:
        lines.append(f"Never used: {listed(unused, 200)}.")
    if found.tiny == found.tiny:
        lines.append(
            f"{found.tiny:.1%} of the objects are tiny (under {TINY:g} px at imgsz), {found.huge:.1%} huge (over "
            f"{HUGE:.0%} of the image)."
        )
    return lines


def faults_lines(files: Sequence[str], found: Findings) -> list[str]:
    """Return a sentence for each kind of faulty label."""
    return [
        f"{fault.what[0].upper()}{fault.what[1:]}: {fault.count:,}"
        + (f", first in {files[fault.images[0]]}. " if fault.images else ". ")
        + fault.remedy
        for fault in found.faults
    ]
