"""Sufficiency by hand, in both toolboxes, and AFSS which reads it."""

import pytest
import torch

from det_seg_agent import Selector
from det_seg_agent.det.losses.sufficiency import sufficiency as of_boxes
from det_seg_agent.pixels import pixel_counts
from det_seg_agent.pixels import sufficiency as of_pixels


def test_of_boxes_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 9], [50, 50, 60, 60]]]).repeat(4, 1, 1)
    scores = torch.zeros(4, 4, 2)
    scores[0, :, 0] = torch.tensor([0.9, 0.8, 0.7, 0.1])  # a hit, a miss, a second hit; the last is not confident
    scores[1, 0, 1] = 0.9  # the wrong class
    targets = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60]]]).repeat(4, 1, 1)
    classes = torch.zeros(4, 2, 1)
    valid = torch.tensor([[1, 1], [1, 0], [0, 0], [1, 0]])[..., None]
    got, _ = of_boxes(scores, boxes, classes, targets, valid)
    assert got.tolist() == pytest.approx([0.5, 0.0, 1.0, 0.0])  # 2 of 3 right and 1 of 2 found; nothing; nothing to do
    assert of_boxes(scores, boxes, classes[:, :0], targets[:, :0], valid[:, :0])[0].tolist() == [0, 0, 1, 1]


def test_of_pixels_by_hand() -> None:
    label = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 255]]])
    valid = label != 255
    predicted = torch.tensor([[[0, 0, 0, 1], [0, 0, 2, 2]]])
    # class 0: 4 of 5 right, 4 of 4 found; class 1: 1 of 1, 1 of 3; class 2: 0 of 1, not there
    got = of_pixels(pixel_counts(predicted, label, valid, 4))
    assert got.item() == pytest.approx(min((0.8 + 1 + 0) / 3, (1 + 1 / 3) / 2))


def test_afss_trains_on_what_is_not_sufficient_and_reviews_the_rest() -> None:
    n = 300
    level = torch.arange(n) % 3  # hard, moderate, easy
    enough = torch.tensor([0.1, 0.7, 0.95])[level]
    selector = Selector(n, 30, strategy="afss", ratio=0.5, final_full=0)
    times = torch.zeros(n)
    for p in range(30):
        chosen = selector.begin_pass(p).indices
        times[chosen] += p > 0
        for rows in chosen.split(50):
            ones = torch.ones(len(rows))
            selector.observe(rows, ones, ones, ones[:, None], sufficiency=enough[rows])
        selector.end_pass()
    hard, moderate, easy = (times[level == k] / 29 for k in range(3))
    assert hard.mean() > 0.95  # all, but for passes in which many reviews fall due at once
    assert 0.4 <= moderate.mean() < 0.5 and easy.mean() < 0.2
    assert bool((times > 0).all()), "everything is reviewed"
