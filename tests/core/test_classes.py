"""Classes of the samples, repeats, trust, and the strategies that read them."""

import io

import numpy as np
import pytest
import torch
from class_rows import NAMES, rows, some_classes
from signal_rows import sample_signals

from det_seg_agent import ConfigError, Selector, StateError
from det_seg_agent.classes import Classes, ClassShares
from det_seg_agent.strategies.classwise import factors
from det_seg_agent.strategies.trust import Trust
from det_seg_agent.strategies.weights_to_selection import RoundRobin, rates

NAN = float("nan")


def shares_of(*counts: list[int]) -> ClassShares:
    return ClassShares.of([np.array(row) for row in counts])


def test_shares_are_those_of_the_labels_and_take_24_bytes_a_sample() -> None:
    found = shares_of([3, 0, 1], [0, 0, 0], [0, 5, 5])
    assert found.index[:, :3].tolist() == [[0, 2, -1], [-1, -1, -1], [1, 2, -1]]
    assert found.share[:, :3].tolist() == [[191, 64, 0], [0, 0, 0], [128, 128, 0]]
    assert found.labels.tolist() == [3, 5, 6] and found.images().tolist() == [1, 1, 2]
    assert (found.index.numel() * 2 + found.share.numel()) / len(found) == 24
    values = torch.tensor([1.0, 2.0, 5.0])
    assert found.of_sample(values, 7.0).tolist() == pytest.approx([2.0, 7.0, 3.5], abs=0.01)
    assert found.largest(values, 7.0).tolist() == [5.0, 7.0, 5.0]
    sums, weight = found.take(torch.tensor([0, 2])).of_class(torch.tensor([1.0, 3.0]))
    assert weight.tolist() == pytest.approx([0.75, 0.5, 0.75], abs=0.01)
    assert sums.tolist() == pytest.approx([0.75, 1.5, 0.25 + 1.5], abs=0.02)
    many = shares_of(list(range(40)))
    assert many.index[0].tolist() == list(range(39, 31, -1)), "the largest of more than eight"


def test_levels_of_a_pass_are_of_its_counts_alone() -> None:
    classes = some_classes(20)
    selector = Selector(20, 4, strategy="random", warmup=0, ratio=0.5, classes=classes)
    none = torch.zeros(2)
    selector.begin_pass(0)
    for _ in range(2):
        counts = torch.tensor([[4.0, 0, 1, 0, 0], [5, 1, 1, 0, 3], [6, 2, 4, 0, 0]])
        selector.observe(torch.tensor([0, 1]), none, none, torch.zeros(2, 4), class_counts=counts)
    selector.end_pass()
    assert classes.level.nan_to_num(nan=-1).tolist() == pytest.approx([4 / 7, 0, 1 / 4, -1, -1])
    selector.begin_pass(1)
    selector.end_pass()
    assert list(classes.passes) == [0]


def test_a_state_within_a_pass_holds_its_counts_and_other_classes_are_refused() -> None:
    def make(classes: Classes) -> Selector:
        return Selector(20, 4, strategy="random", ratio=0.5, classes=classes)

    one = make(some_classes(20))
    one.begin_pass(0)
    none = torch.zeros(2)
    counts = torch.tensor([[1.0] * 5, [2.0] * 5, [4.0] * 5])
    one.observe(torch.tensor([0, 1]), none, none, torch.zeros(2, 4), class_counts=counts)
    one.gather()
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    two = make(some_classes(20))
    two.load_state_dict(state)
    two.end_pass()
    assert two.classes is not None and two.classes.level.tolist() == pytest.approx([0.2] * 5)
    with pytest.raises(StateError, match="of the classes sky, road"):
        make(Classes(("cat", *NAMES[1:]), lambda: rows(20))).load_state_dict(state)


def test_what_selects_by_classes_needs_them() -> None:
    with pytest.raises(ConfigError, match="selects by classes, and this loop tells none"):
        Selector(20, 4, strategy="repeat_factor")
    selector = Selector(20, 4, strategy="repeat_factor", classes=some_classes(19))
    with pytest.raises(ConfigError, match="classes of 19 samples were given, there are 20"):
        selector.begin_pass(0)


def test_rates_above_one_are_kept_over_passes_up_to_the_cap() -> None:
    weight = torch.tensor([8.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    rate = rates(weight, 6, 0.0, cap=3)
    assert rate[0] == 3 and float(rate.sum()) == pytest.approx(6)
    round_robin, draw, first = RoundRobin(6, 0), torch.Generator(), torch.zeros(6, dtype=torch.bool)
    times = torch.zeros(6)
    for _ in range(50):
        chosen = round_robin.take(weight, 6, 0.0, first, draw, cap=3)
        assert len(chosen) == 6 and bool((chosen.diff() >= 0).all()) and int(torch.bincount(chosen).max()) <= 3
        times += torch.bincount(chosen, minlength=6)
    assert (times - 50 * rate).abs().max() <= 2


def test_repeat_factors_are_those_of_the_publications() -> None:
    shares = shares_of(*[[1, 0]] * 15, *[[0, 4]])
    assert factors(shares, 0.25, "images", 0.5).tolist() == pytest.approx([1.0, (0.25 / (1 / 16)) ** 0.5])
    by_labels = factors(shares, 0.25, "labels", 0.5)
    assert by_labels[1].item() == pytest.approx((0.25 / (1 / 16 * 4 / 19) ** 0.5) ** 0.5)
    assert factors(shares, None, "images", 0.5)[0] == 1


@pytest.mark.parametrize("cap", [1, 3])
def test_repeat_factor_selects_rare_classes_more_often(cap: int) -> None:
    given = {"strategy": "repeat_factor", "warmup": 0, "final_full": 0, "ratio": 0.5, "options": {"cap": cap}}
    selector = Selector(128, 40, classes=some_classes(128), **given)
    held = []
    for p in range(40):
        held.append(selector.begin_pass(p).indices.tolist())
        selector.end_pass()
    times = selector.table.selected.float()
    rare, common = times[::16].mean(), times[1::2].mean()
    assert rare > 1.5 * common and int(times.sum()) == 40 * 64
    more = max(len(ids) > len(set(ids)) for ids in held)
    assert more == (cap > 1), "a sample more than once in a pass only with repeats"


def test_trust_finds_wrong_labels_in_rare_and_common_classes_alike() -> None:
    """Rare classes are disagreed with more, as they are learned late; they are compared with themselves."""
    n = 400
    g = torch.Generator().manual_seed(0)
    rare = torch.arange(n) % 10 == 0
    wrong = torch.rand(n, generator=g) < 0.2
    shares = ClassShares.of([np.array([0, 1]) if one else np.array([1, 0]) for one in rare])
    trust = Trust(n)
    index = torch.arange(n)
    for _ in range(4):
        agreement = (1.0 - 2 * rare.float() - 2 * wrong.float() + torch.randn(n, generator=g)).sigmoid()
        trust.update(sample_signals(index, agreement=agreement), shares)
    weight = trust.weights(2, 1)
    for part in (rare, ~rare):
        assert weight[part & wrong].mean() < 0.4 < 0.7 < weight[part & ~wrong].mean()
    assert bool((trust.weights(0, 1) == 1).all())


def test_what_is_known_best_counts_less_and_what_was_never_seen_counts_fully() -> None:
    trust = Trust(5)
    shares = ClassShares.of([np.array([1])] * 5)
    agreement = torch.tensor([0.5, 0.7, 0.8, 0.9])
    trust.update(sample_signals(torch.arange(4), agreement=agreement), shares)
    assert trust.weights(0, 0.2).tolist() == pytest.approx([1.0, 0.8, 0.6, 0.4, 1.0])
    assert trust.weights(1, 1)[0] == pytest.approx(0.5 / 0.725) and bool((trust.weights(1, 1)[2:] == 1).all())


def test_curated_selects_wrong_labels_less_and_weak_classes_more() -> None:
    n, passes = 200, 30
    g = torch.Generator().manual_seed(0)
    wrong = torch.rand(n, generator=g) < 0.2
    counts = torch.tensor([[9.0, 9, 9, 1, 9], [10, 10, 10, 10, 10], [10, 10, 10, 10, 10]])
    times = {}
    for name, options in {"both": {}, "trust": {"rarity": 0, "deficit": 0}, "need": {"trust": 0, "known": 1}}.items():
        selector = Selector(
            n, passes, strategy="curated", ratio=0.5, final_full=0, options=options, classes=some_classes(n)
        )
        for p in range(passes):
            chosen = selector.begin_pass(p).indices.unique()
            noise = torch.randn(len(chosen), generator=g)
            loss, agreement = torch.ones(len(chosen)), (noise + 1 - 4 * wrong[chosen].float()).sigmoid()
            more = {"agreement": agreement, "class_counts": counts}
            selector.observe(chosen, loss, loss, torch.zeros(len(chosen), 4), **more)
            selector.end_pass()
        times[name] = selector.table.selected.float()
    assert times["trust"][wrong].mean() < 0.5 * times["trust"][~wrong].mean()
    assert times["both"][wrong].mean() < 0.6 * times["both"][~wrong].mean()
    weak = torch.arange(n) % 8 == 0
    assert times["need"][weak].mean() > 1.2 * times["need"][~weak].mean()
    assert times["both"][weak & ~wrong].mean() > 1.2 * times["both"][~weak & ~wrong].mean()
