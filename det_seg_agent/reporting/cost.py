"""What a run costs in images and seconds beside training on full data: planned before it, counted after it."""

from collections.abc import Sequence
from typing import Any

from det_seg_agent.schedule import is_full
from det_seg_agent.selector import Selector

LONG_S = 60  # seconds; in shorter runs start-up and evaluation outweigh the time per image


def plan_text(selector: Selector, full_images: int | None = None, budget: float | None = None, until: str = "") -> str:
    """Return strategy, schedule, images per pass and expected saving, a line each.

    Args:
        selector: the run's selector, before or after its passes.
        full_images: number of images in training on full data; by default all samples in each pass.
        budget: planned fraction of `full_images`; by default computed from the padded selections.
        until: what ends the run if the number of passes is not known in advance.
    """
    s, total, passes = selector.settings, len(selector), selector.total_passes
    name = s.strategy
    if selector.selects_all:
        each = f"each pass until {until}" if until else f"each of {passes} passes"
        return f"strategy  {name}\nimages    {total} in {each}, nothing is saved"
    if not selector.strategy.fixed_budget:
        full = sum(is_full(s.ratio_at(p, passes)) for p in range(passes))
        return (
            f"strategy  {name}\n"
            f"images    {total} in {full} of {passes} passes, in the others as many as the rule selects\n"
            "budget    follows from the strategy's rule: metrics.json has it at the end"
        )
    if until:
        mean = " on average" if s.schedule == "oscillating" else ""
        return (
            f"strategy  {name}\n"
            f"schedule  {s.warmup} full, ratio {s.ratio:g}{mean}, the last {s.final_full:.1%} of the passes full\n"
            f"images    {round(s.ratio * total)}{mean} or {total} of {total} a pass\n"
            f"passes    until {until}; how many there will be is estimated anew after each"
        )
    counts = [s.count_at(p, passes, total) for p in range(passes)]
    if budget is None:
        whole = selector.sampler.batch * selector.world_size
        budget = sum(-(-count // whole) * whole for count in counts) / (full_images or total * passes)
    return (
        f"strategy  {name}\n"
        f"schedule  {s.describe(passes)}\n"
        f"images    {' or '.join(map(str, sorted(set(counts))))} of {total} a pass\n"
        f"budget    about {budget:.0%} of the images of full training, padding included: saves {1 - budget:.0%}"
    )


def images_of(selector: Selector, full_images: int | None = None) -> dict[str, Any]:
    """Return budget and number of images of a run so far and of training on full data.

    `padding` is the number of images repeated to fill up last batches, over all passes.
    """
    history, total = selector.history, len(selector)
    images = int(history[-1]["images"]) if history else 0
    full = full_images or total * len(history)
    return {
        "strategy": selector.settings.strategy,
        "ratio": selector.settings.ratio,
        "passes": len(history),
        "images_trained": images,
        "full_images_trained": full,
        "padding": 0 if selector.selects_all else _padding(history),
        "budget": images / full if full else 0.0,
    }


def full_time_estimate(wall: float, samples: int, passes: Sequence[tuple[float, int]]) -> float:
    """Estimate the seconds for full data: `wall` plus the unselected images at this run's time per image.

    Args:
        wall: duration of the run in seconds.
        samples: number of samples in the training set.
        passes: seconds and number of selected samples of each pass in `wall`.
    """
    images = sum(count for _, count in passes)
    skipped = samples * len(passes) - images
    return wall + skipped * sum(seconds for seconds, _ in passes) / max(images, 1)


def closing_text(result: dict[str, Any], wall: float, resumed: bool, selects_all: bool) -> str:
    """Return a run's cost as one sentence; only runs of a minute or more have an estimate for full data.

    Args:
        result: `images_of` with `full_wall_time_s_estimate`, in seconds.
        wall: duration in seconds; of a resumed run since the resume.
        resumed: whether the run was resumed.
        selects_all: whether every pass had all samples.
    """
    text = (
        f"trained on {result['images_trained']} of the {result['full_images_trained']} images of full training (budget "
        f"{result['budget']:.0%}, padding included); {wall:.0f} s{' since the resume' if resumed else ''}"
    )
    if selects_all or resumed or wall < LONG_S:
        return text
    return f"{text}, full data about {result['full_wall_time_s_estimate']:.0f} s by this run's own time per image"


def _padding(history: list[dict[str, float]]) -> int:
    """Return the number of images trained on in excess of the selections."""
    before = [0.0, *(row["images"] for row in history)]
    return int(sum(max(0.0, row["images"] - b - row["selected"]) for b, row in zip(before, history, strict=False)))
