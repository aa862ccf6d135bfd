"""The signals of each kind of model are what their definitions say, and the stock loss is theirs."""

import math
from typing import Any

import pytest
import torch
from hf_runs import MODELS, Images, Texts, llama, resnet, segformer, swin, upernet, vit
from torch.nn import functional as F

from det_seg_agent.hf.heads import head_of, kind_of
from det_seg_agent.hf.plan import Layout, passes_of, plan
from det_seg_agent.hf.signals import of_classes, of_tokens
from det_seg_agent.hf.tap import SignalTap
from det_seg_agent.schedule import Schedule


def test_signals_of_classes() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    found = of_classes(logits, torch.tensor([0, 2]))
    p = logits.softmax(1)
    assert torch.allclose(found.loss, torch.tensor([-math.log(p[0, 0]), math.log(3)]))
    assert torch.allclose(found.entropy, -(p * p.log()).sum(1) / math.log(3)) and found.entropy[1] == 1
    assert torch.allclose(found.expected, -(p * p.log()).sum(1))
    assert torch.allclose(found.agreement, p[[0, 1], [0, 2]]) and found.sufficiency.tolist() == [1, 0]
    assert found.counts is not None and found.counts.tolist() == [[1, 0, 0], [2, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize("rows", [2**22, 64])
def test_signals_of_tokens_are_of_the_answers_alone(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("det_seg_agent.hf.signals.ROWS", rows)
    logits = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(0))
    labels = torch.full((3, 7), -100)
    labels[0, 3:6], labels[1, 1:] = torch.tensor([4, 5, 6]), torch.arange(6)
    found = of_tokens(logits, labels)
    for row, places in ((0, range(3, 6)), (1, range(1, 7))):
        p = logits[row].softmax(1)
        loss = [-math.log(p[t - 1, labels[row, t]]) for t in places]
        entropy = [float(-(p[t - 1] * p[t - 1].log()).sum()) / math.log(11) for t in places]
        assert float(found.loss[row]) == pytest.approx(sum(loss) / len(loss), rel=1e-5)
        assert float(found.entropy[row]) == pytest.approx(sum(entropy) / len(entropy), rel=1e-5)
        assert float(found.expected[row]) == pytest.approx(float(found.entropy[row]) * math.log(11), rel=1e-5)
        assert float(found.agreement[row]) == pytest.approx(math.exp(-sum(loss) / len(loss)), rel=1e-5)
        right = [float(p[t - 1].argmax() == labels[row, t]) for t in places]
        assert float(found.sufficiency[row]) == pytest.approx(sum(right) / len(right))
    assert math.isnan(found.loss[2]) and math.isnan(found.entropy[2])  # no answer


BATCHES: dict[str, Any] = {
    "images": {
        "pixel_values": torch.stack([Images()[i]["pixel_values"] for i in range(4)]),
        "labels": torch.tensor([Images()[i]["labels"] for i in range(4)]),
    },
    "texts": {key: torch.stack([Texts()[i][key] for i in range(4)]) for key in Texts()[0]},
}
BATCHES["masks"] = {
    "pixel_values": BATCHES["images"]["pixel_values"],
    "labels": torch.randint(0, 3, (4, 32, 32), generator=torch.Generator().manual_seed(0)),
}
CASES = [
    (vit, "images", 16), (swin, "images", 16), (resnet, "images", 16), (llama, "texts", 16),
    (segformer, "masks", 8 + 16), (lambda: upernet(auxiliary=False), "masks", 8 + 8 + 16 + 16),
]  # fmt: skip


@pytest.mark.parametrize(("build", "kind", "width"), CASES)
def test_the_terms_of_the_samples_are_the_stock_loss(build: Any, kind: str, width: int, messages: Any) -> None:
    """And with weights, the loss is their weighted mean, with its gradient."""
    torch.manual_seed(0)
    model, batch = build().train(), BATCHES[kind]
    tap = SignalTap(model, None, True, 1)
    outputs = model(**batch)
    weights = torch.tensor([0.0, 1.0, 2.0, 0.5])
    found, features, loss = tap.read(batch["labels"], outputs, outputs.loss, None, weights)
    tap.remove()
    assert features.shape == (4, width) and features.dtype == torch.float32 and not features.requires_grad
    assert "first batch" not in messages.getvalue()  # a difference would have been an error
    for each in (found.loss, found.entropy, found.agreement, found.sufficiency):
        assert each.shape == (4,) and bool(each.isfinite().all())
    if kind == "images":
        each = F.cross_entropy(outputs.logits, batch["labels"], reduction="none")
        wanted = (each * weights).mean()
    elif kind == "texts":
        target = F.pad(batch["labels"][:, 1:], (0, 1), value=-100)
        each = F.cross_entropy(outputs.logits.transpose(1, 2), target, reduction="none")
        wanted = (each * weights[:, None]).sum() / (target >= 0).sum()
    else:
        logits = F.interpolate(outputs.logits, size=(32, 32), mode="bilinear", align_corners=False)
        each = F.cross_entropy(logits, batch["labels"], reduction="none")
        wanted = (each * weights[:, None, None]).mean()
    assert torch.allclose(loss, wanted, rtol=1e-4)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(wanted, parameters, allow_unused=True)
    for one, two in zip(ours, theirs, strict=True):
        assert (one is None) == (two is None) and (one is None or torch.allclose(one, two, atol=1e-5, rtol=1e-3))


def test_features_of_a_text_are_those_of_its_answer() -> None:
    model, batch = llama().eval(), BATCHES["texts"]
    tap = SignalTap(model, None, False, 1)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    outputs = model(**batch, output_hidden_states=True)
    _, features, _ = tap.read(batch["labels"], outputs, outputs.loss, None, None)
    tap.remove()
    mask = F.pad(batch["labels"][:, 1:], (0, 1), value=-100) >= 0
    hidden = outputs.hidden_states[-1]
    wanted = torch.stack([hidden[i, mask[i]].mean(0) for i in range(4)])
    assert torch.allclose(features, wanted.detach(), atol=1e-6)


def test_heads_are_found_and_can_be_named() -> None:
    for build in MODELS.values():
        model = build()
        assert isinstance(head_of(model, kind_of(model), None), torch.nn.Module)
    assert head_of(vit(), "classes", "vit.layernorm").__class__ is torch.nn.LayerNorm


def test_the_plan_of_a_run() -> None:
    layout = Layout(batch=4, processes=2, accumulation=3)
    made = plan(Schedule(ratio=0.5), 4, -1, 50, layout)
    assert made.batches == (7, 4, 4, 7) and [made.steps_of(p) for p in range(4)] == [3, 2, 2, 3]
    assert made.images == 8 * 22 and made.full_images == 4 * 56 and made.steps == 10
    assert [made.place_of(step) for step in (0, 2, 3, 4, 7, 10)] == [(0, 0), (0, 6), (1, 0), (1, 3), (3, 0), (4, 0)]
    assert passes_of(3.0, -1, 50, layout) == 3 and passes_of(3.0, 10, 50, layout) == 5
    one = plan(Schedule(ratio=0.5), 5, 10, 50, Layout(4, 1, 3))
    assert one.steps == 10 and one.limit == 10
