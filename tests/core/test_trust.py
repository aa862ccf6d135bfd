"""Trust in labels: the agent and its rule select doubtful samples less often, and scale their losses down."""

import io

import numpy as np
import pytest
import torch
from class_rows import NAMES
from signal_rows import sample_signals

from det_seg_agent import Selector
from det_seg_agent.classes import Classes, ClassShares
from det_seg_agent.strategies.trust import LEAST, Surprise

N, PASSES = 120, 12
WRONG = torch.arange(N) % 5 == 0  # their loss is high, and the model expects it to be low


def trained(strategy: str, until: int = PASSES, **given: object) -> Selector:
    """Return a selector after `until` passes and with the selection of the next one, if there is any."""
    draw = torch.Generator().manual_seed(0)
    selector = Selector(N, PASSES, strategy=strategy, ratio=0.5, **{"applies_weights": True, **given})
    for p in range(until):
        selector.begin_pass(p)
        for index in selector.selection.indices.split(20):
            noise = torch.rand(len(index), generator=draw)
            wrong = WRONG[index]
            features = torch.stack([wrong.float(), noise], 1)
            expected = 1 - 0.1 * noise
            selector.observe(index, wrong + expected, 0.5 + 0.1 * noise, features, expected_loss=expected)
        selector.end_pass()
    if until < PASSES:
        selector.begin_pass(until)
    return selector


def share_of_wrong(selector: Selector) -> float:
    """Return how often a wrong sample was selected, over a right one."""
    return float(selector.table.selected[WRONG].float().mean() / selector.table.selected[~WRONG].float().mean())


@pytest.mark.parametrize("strategy", ["agent", "quality"])
def test_doubtful_labels_are_selected_less_and_their_losses_scaled_down(strategy: str) -> None:
    selector = trained(strategy, 8)
    assert share_of_wrong(selector) < 0.6
    indices, weights = selector.selection.indices, selector.selection.weights
    assert weights is not None and (weights[~WRONG[indices]] == 1).all()
    everything = torch.arange(N)
    assert (selector.weights_of(everything[~WRONG]) == 1).all()
    doubting = selector.strategy.full_weights()
    assert doubting is not None and (doubting[WRONG] < 0.1).all() and (doubting >= LEAST).all()
    assert share_of_wrong(trained(strategy, 8, options={"trust": 0})) > 1, "without trust what is hard comes first"


def test_the_last_passes_over_all_samples_scale_losses_too() -> None:
    selector = trained("agent", PASSES - 1)
    assert len(selector.selection) == N and selector.selection.weights is not None
    assert (selector.weights_of(torch.arange(N)[WRONG]) < 0.1).all()


def test_a_first_pass_and_a_run_without_trust_scale_nothing() -> None:
    assert trained("agent", 0).selection.weights is None, "nothing is known yet"
    assert trained("agent", PASSES - 1, options={"trust": 0}).selection.weights is None


def test_a_loop_that_scales_no_losses_still_selects_doubtful_labels_less() -> None:
    selector = trained("agent", PASSES - 1, applies_weights=False)
    assert selector.selection.weights is None and share_of_wrong(selector) < 0.6


def test_a_loop_that_tells_no_expected_loss_trains_as_without_trust() -> None:
    one, two = (Selector(N, 6, ratio=0.5, applies_weights=True, options=given) for given in ({}, {"trust": 0}))
    for p in range(6):
        assert torch.equal(one.begin_pass(p).indices, two.begin_pass(p).indices), p
        assert one.selection.weights is None
        for selector in (one, two):
            for index in selector.selection.indices.split(20):
                value = index / N
                selector.observe(index, 1 + value, 0.5 + value / 3, torch.stack([value, value], 1))
            selector.end_pass()


def test_classes_that_cannot_be_read_are_named_and_gone_without(messages: io.StringIO) -> None:
    def broken() -> list[object]:
        raise OSError("3.png is missing")

    trained("agent", 2, classes=Classes(NAMES, broken), options={"trust": 0})
    assert not messages.getvalue(), "they are read for trust alone"
    selector = trained("agent", 8, classes=Classes(NAMES, broken))
    assert share_of_wrong(selector) < 0.6
    assert messages.getvalue().count("3.png is missing") == 1


def test_what_is_hard_is_expected_and_what_is_wrong_is_not() -> None:
    """A hard sample has a high loss, and is expected to; a wrong one has the loss alone."""
    surprise = Surprise(N)
    assert surprise.ratio(None).isnan().all()
    loss, expected = torch.full((2, N), 0.2)
    loss[:40] = 1.2
    expected[:20] = 1.2
    for _ in range(3):
        surprise.update(sample_signals(torch.arange(N), label_loss=loss, expected_loss=expected))
    ratio = surprise.ratio(None)
    assert ratio[:20].tolist() == pytest.approx([1] * 20, rel=1e-4) and (ratio[20:40] > 4).all()
    assert ratio[40:].tolist() == pytest.approx([1] * 80, rel=1e-4)


def test_a_class_that_is_not_learnt_yet_is_no_reason_to_doubt() -> None:
    rare = torch.arange(N) % 20 == 0
    shares = ClassShares.of([np.array([0, 9] if one else [9, 0]) for one in rare])
    surprise = Surprise(N)
    losses = {"label_loss": torch.where(rare, 3.0, 0.3), "expected_loss": torch.full((N,), 0.5)}
    surprise.update(sample_signals(torch.arange(N), **losses))
    assert (surprise.ratio(shares)[rare] < surprise.ratio(None)[rare]).all()
    assert torch.equal(surprise.ratio(shares)[~rare], surprise.ratio(None)[~rare])
