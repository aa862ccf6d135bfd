"""Statistics of comparisons, as pure functions of arrays. `compare.summary` and `compare.images` use them.

Sources: Efron, "Better bootstrap confidence intervals", 1987 (BCa); Fisher, "The design of experiments", 1935 (the
sign-flip test); Holm, "A simple sequentially rejective multiple test procedure", 1979; Schuirmann, "A comparison of the
two one-sided tests procedure", 1987 (equivalence).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # confidence of all intervals
FEWEST = 3  # values; the interval of two would be the two themselves, which covers the mean half of the time
ENUMERATED = 16  # values up to which all 2^n flips of signs are counted
RESAMPLES = 9_999  # of an interval over seeds, and of the flips of more than `ENUMERATED` values

Interval = tuple[float, float]
Floats = NDArray[np.float64]


def mean_interval(values: Sequence[float], level: float = LEVEL, resamples: int = RESAMPLES) -> Interval | None:
    """Return the BCa bootstrap interval of the mean; the generator is seeded, so that it is always the same.

    Args:
        values: one value for each seed.
        level: confidence in (0, 1).
        resamples: number of bootstrap samples.

    Returns:
        (low, high), or None for fewer than `FEWEST` values. Equal values have an interval of no width.
    """
    given = np.asarray(values, np.float64)
    if len(given) < FEWEST:
        return None
    if np.ptp(given) == 0:
        return float(given[0]), float(given[0])
    from scipy.stats import bootstrap  # here, as the cells of a comparison need none of it: 0.7 s

    found = bootstrap(
        (given,), np.mean, confidence_level=level, n_resamples=resamples, method="BCa",
        random_state=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Return Student's interval of the mean of normal values; None for fewer than `FEWEST`."""
    if len(values) < FEWEST:
        return None
    given = np.asarray(values, np.float64)
    from scipy.stats import t as student

    half = float(student.ppf((1 + level) / 2, len(given) - 1) * given.std(ddof=1) / math.sqrt(len(given)))
    return float(given.mean()) - half, float(given.mean()) + half


def sign_flip_p(differences: Sequence[float], enumerated: int = ENUMERATED, samples: int = RESAMPLES) -> float | None:
    """Return the two-sided p of paired differences under the hypothesis that their signs are arbitrary.

    It is the fraction of all sign assignments whose absolute mean is at least the observed one. The smallest possible
    value is 2 / 2^n: five differences cannot have a p below 0.0625.

    Args:
        differences: one difference for each seed.
        enumerated: number of differences up to which all assignments are counted.
        samples: assignments drawn beyond that, seeded; then p = (hits + 1) / (samples + 1).

    Returns:
        p in (0, 1], or None without differences.
    """
    given = np.asarray(differences, np.float64)
    n = len(given)
    if n == 0:
        return None
    observed = abs(given.sum())
    edge = observed - 1e-9 * max(np.abs(given).sum(), 1e-300)  # sums in another order differ in the last bits
    if n <= enumerated:
        sums = np.zeros(1)
        for value in given:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= edge).mean())
    generator, hits = np.random.default_rng(0), 0
    for start in range(0, samples, 1000):
        signs = generator.choice([-1.0, 1.0], (min(1000, samples - start), n))
        hits += int((np.abs(signs @ given) >= edge).sum())
    return (hits + 1) / (samples + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p of each hypothesis of a family, in the order given."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def equivalent(values: Sequence[float], margin: float, level: float = LEVEL) -> bool | None:
    """Return whether the mean lies within +-margin: both intervals lie inside it; None for fewer than `FEWEST` values.

    Student's interval counts as well, because BCa intervals of a few values are too narrow. At 95 % this is a test at
    2.5 % on each side, stricter than the usual two tests at 5 %.
    """
    intervals = (mean_interval(values, level), t_interval(values, level))
    if any(found is None for found in intervals):
        return None
    return all(-margin < found[0] and found[1] < margin for found in intervals if found is not None)


def resampled_counts(images: int, resamples: int, seed: int = 0) -> NDArray[np.uint16]:
    """Return (resamples, images): how often each image is in each bootstrap sample of the test set.

    The same arguments give the same samples, so that results of different runs are paired.
    """
    generator = np.random.default_rng([seed, images])
    found = np.empty((resamples, images), np.uint16)
    for row in found:
        row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
    return found


def percentile_interval(resampled: Floats, level: float = LEVEL) -> Interval | None:
    """Return the percentile interval of a resampled figure; None if more than one in ten is undefined (NaN)."""
    known = resampled[~np.isnan(resampled)]
    if len(known) == 0 or len(known) < 0.9 * len(resampled):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


Points = Sequence[Sequence[float]]  # [[x, y], ...], x rising


def area_under(points: Points, start: float, end: float) -> float | None:
    """Return the mean height of a curve between two x, by linear interpolation; None if it does not span them."""
    xs, ys = (np.asarray(column, np.float64) for column in zip(*points)) if points else (np.empty(0), np.empty(0))
    if len(xs) < 2 or end <= start or xs[0] > start or xs[-1] < end:
        return None
    inner = (xs > start) & (xs < end)
    x = np.concatenate([[start], xs[inner], [end]])
    y = np.interp(x, xs, ys)
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / (end - start))


def first_reaching(points: Points, target: float) -> float | None:
    """Return the x at which a curve first has `target`, by linear interpolation; None if it never does."""
    before: Sequence[float] | None = None
    for point in points:
        x, y = point[0], point[1]
        if y >= target:
            if before is None or y == before[1]:
                return float(x)
            return float(before[0] + (x - before[0]) * (target - before[1]) / (y - before[1]))
        before = point
    return None


def band(curves: Sequence[Points], steps: int = 60) -> tuple[Floats, Floats, Floats, Floats] | None:
    """Return x, mean, lowest and highest of several curves, on a grid over the x that all of them span.

    Curves of different seeds have different x over seconds; there are no intervals here, as the points of a curve
    depend on each other.
    """
    filled = [np.asarray(points, np.float64) for points in curves if len(points)]
    if not filled:
        return None
    first, last = max(c[0, 0] for c in filled), min(c[-1, 0] for c in filled)
    if first > last:
        return None
    same = all(len(c) == len(filled[0]) and np.array_equal(c[:, 0], filled[0][:, 0]) for c in filled)
    x = filled[0][:, 0] if same else np.linspace(first, last, steps)
    y = np.stack([np.interp(x, c[:, 0], c[:, 1]) for c in filled])
    return x, y.mean(0), y.min(0), y.max(0)
