"""Statistics of comparisons: against scipy, and against figures worked out by hand."""

import itertools
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats as scipy_stats

from det_seg_agent.compare.stats import (
    area_under,
    band,
    equivalent,
    first_reaching,
    holm,
    mean_interval,
    percentile_interval,
    resampled_counts,
    sign_flip_p,
    t_interval,
)

SKEWED = [0.1, 0.2, 0.4, 1.0, 2.6]


def exact_bca(values: list[float], level: float = 0.95) -> tuple[float, float]:
    """Return Efron's BCa interval of the mean from all n^n resamples, which so few values allow."""
    normal, mean, n = NormalDist(), np.mean(values), len(values)
    means = np.sort([np.mean(pick) for pick in itertools.product(values, repeat=n)])
    below = (np.mean(means < mean - 1e-12) + np.mean(means <= mean + 1e-12)) / 2
    bias = normal.inv_cdf(float(below))
    left_out = np.array([np.mean(np.delete(values, i)) for i in range(n)])
    apart = left_out.mean() - left_out
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal.inv_cdf(tail)
        ends.append(float(np.quantile(means, normal.cdf(bias + z / (1 - acceleration * z)))))
    return ends[0], ends[1]


def test_the_interval_is_bca() -> None:
    found, exact = mean_interval(SKEWED), exact_bca(SKEWED)
    assert found == pytest.approx(exact, abs=0.06) and found == mean_interval(SKEWED), "and the same each time"
    plain = scipy_stats.bootstrap((np.array(SKEWED),), np.mean, method="percentile", random_state=0)
    assert found is not None and found[1] > plain.confidence_interval.high + 0.05, "it leans to the long tail"


def test_few_or_equal_values() -> None:
    assert mean_interval([1.0]) is None and mean_interval([1.0, 2.0]) is None and t_interval([1.0, 2.0]) is None
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    found = mean_interval([1.0, 2.0, 4.0])
    assert found is not None and 1 <= found[0] < 7 / 3 < found[1] <= 4


def test_students_interval_by_hand() -> None:
    # mean 2, sd 1, t(2; .975) = 4.302653
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0], 1.0),
        ([1.0, 2.0, 3.0], 2 / 8),
        ([3.0, 1.0, -1.0], 6 / 8),  # sums 3+1+1=5, 3+1-1=3, 3-1+1=3, 3-1-1=1 and their negatives
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 2 / 64),
        ([0.0, 0.0], 1.0),
    ],
)
def test_sign_flips_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip_p(differences) == p


def test_sign_flips_are_scipys_paired_test() -> None:
    values = np.random.default_rng(3).normal(0.3, 1.0, 9)
    theirs = scipy_stats.permutation_test(
        (values, np.zeros(9)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(theirs.pvalue, abs=1e-12)
    assert sign_flip_p(values, enumerated=0, samples=20_000) == pytest.approx(theirs.pvalue, abs=0.01)
    assert sign_flip_p([]) is None
    assert sign_flip_p(np.full(20, 0.1), samples=999) == 1 / 1000, "drawn, it is never 0"
    sums = [0.1, 0.2, 0.3]  # their sum depends on the order in the last bit
    assert sign_flip_p(sums) == sign_flip_p(sums[::-1]) == 2 / 8


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.02]) == [0.02]


def test_equivalence_needs_both_intervals_inside_the_margin() -> None:
    close = [0.01, -0.02, 0.03, 0.0, -0.01]
    assert equivalent(close, 0.3) is True and equivalent(close, 0.01) is False
    assert equivalent([0.1, 0.1], 0.3) is None
    three = [-0.15, 0.0, 0.15]  # BCa has +-.15 at most, Student's +-.37
    found = mean_interval(three)
    assert found is not None and max(map(abs, found)) < 0.3 and equivalent(three, 0.3) is False
    assert equivalent([1.0, 1.1, 0.9, 1.0], 0.3) is False, "small spread, but far from 0"


def test_resampled_counts_are_of_the_same_samples_each_time() -> None:
    counts = resampled_counts(7, 50)
    assert counts.shape == (50, 7) and (counts.sum(1) == 7).all() and counts.std() > 0
    assert np.array_equal(counts, resampled_counts(7, 50))
    assert np.array_equal(counts[:10], resampled_counts(7, 10)), "fewer resamples are the first of more"


def test_percentile_interval() -> None:
    values = np.arange(101.0)
    assert percentile_interval(values) == pytest.approx((2.5, 97.5))
    assert percentile_interval(np.array([*values, np.nan])) == pytest.approx((2.5, 97.5))
    assert percentile_interval(np.array([1.0, np.nan])) is None and percentile_interval(np.array([])) is None


def test_curves_by_hand() -> None:
    curve = [[10, 0.0], [20, 10.0], [40, 30.0]]
    assert area_under(curve, 10, 40) == pytest.approx((10 * 5 + 20 * 20) / 30)
    assert area_under(curve, 15, 30) == pytest.approx((5 * 7.5 + 10 * 15) / 15), "ends are interpolated"
    assert area_under(curve, 0, 40) is None and area_under(curve, 10, 50) is None and area_under([], 0, 1) is None
    assert first_reaching(curve, 20.0) == 30 and first_reaching(curve, 10.0) == 20 and first_reaching(curve, 31) is None
    assert first_reaching(curve, -1.0) == 10 and first_reaching([], 1) is None
    assert first_reaching([[1, 5.0], [2, 3.0], [3, 6.0]], 5.5) == pytest.approx(2 + 2.5 / 3)


def test_bands() -> None:
    found = band([[[1, 1.0], [2, 3.0]], [[1, 3.0], [2, 5.0]]])
    assert found is not None and [list(column) for column in found] == [[1, 2], [2, 4], [1, 3], [3, 5]]
    other = band([[[0, 0.0], [10, 10.0]], [[2, 4.0], [8, 16.0]]], steps=3)
    assert other is not None and list(other[0]) == [2, 5, 8] and list(other[1]) == [3, 7.5, 12], "where both are"
    assert band([]) is None and band([[[0, 1.0], [1, 1.0]], [[2, 1.0], [3, 1.0]]]) is None
