"""What the signals of segmentation cost: memory beside the logits, and nothing that waits for the device."""

import math
from typing import Any

import pytest
import torch
from cuda_runs import needs_cuda, synchronizations
from mmengine.config import Config
from mmseg.registry import MODELS
from seg_runs import CONFIG
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from det_seg_agent.pixels import image_signals, nearest
from det_seg_agent.seg.signals import SignalTap, pooled

WAITS = ("nonzero", "_local_scalar_dense", "masked_select", "is_nonzero", "equal", "unique", "repeat_interleave")


def batch_of(images: int, classes: int, size: int, dtype: torch.dtype, label: int = 128) -> tuple[Tensor, Tensor]:
    """Return logits (B, C, size, size) and labels (B, label, label), a fifth of them 255."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(images, classes, size, size, generator=draw) * 4
    labels = torch.randint(0, max(classes, 2), (images, label, label), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.2] = 255
    return logits.to(dtype), labels


def peak(work: Any) -> int:
    """Return the most bytes that tensors made in `work` took at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("images", "classes", "size"), [(4, 150, 32), (1, 150, 64), (4, 19, 64), (3, 2, 64)])
def test_signals_take_less_memory_than_a_copy_of_the_logits(
    images: int, classes: int, size: int, dtype: torch.dtype
) -> None:
    """At stride 4 and 2, for one image and several, in the dtypes of mixed precision."""
    logits, labels = batch_of(images, classes, size, dtype)
    image_signals(logits, labels, 255)
    assert peak(lambda: image_signals(logits, labels, 255)) <= 1.2 * logits.numel() * 4


def test_pooling_is_exact_in_any_dtype() -> None:
    levels = [torch.randn(2, 8, 64, 64).bfloat16() + 3, torch.randn(2, 8, 16, 16).bfloat16()]
    got = pooled(levels, [0, 1])
    assert got.dtype == torch.float32 and torch.allclose(got[:, :8], levels[0].double().mean((2, 3)).float())


@pytest.mark.parametrize("classes", [1, 2, 19])
@pytest.mark.parametrize(("size", "label"), [(32, 128), (13, 57), (64, 64), (1, 9)])
def test_parts_add_up_to_the_plain_formula(classes: int, size: int, label: int) -> None:
    logits, labels = batch_of(3, classes, size, torch.float32, label)
    labels[2] = 255
    found = image_signals(logits, labels, 255)
    loss, entropy, enough = found.loss, found.entropy, found.sufficiency
    wide = logits.double()
    p = torch.cat([torch.zeros_like(wide), wide], 1) if classes == 1 else wide
    small = nn.functional.interpolate(labels[:, None].float(), (size, size), mode="nearest-exact")[:, 0].long()
    p = p.log_softmax(1)
    for i in range(3):
        valid = small[i] != 255
        if not valid.any():
            assert loss[i].isnan() and entropy[i].isnan() and enough[i] == 0 and found.agreement[i].isnan()
            continue
        picked = p[i][:, valid]
        assert loss[i].item() == pytest.approx(
            -picked.gather(0, small[i][valid][None]).mean().item(), rel=1e-5, abs=1e-6
        )
        expected = -(picked.exp() * picked).sum(0).mean().item() / math.log(max(classes, 2))
        assert entropy[i].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert found.expected[i].item() == pytest.approx(expected * math.log(max(classes, 2)), rel=1e-5, abs=1e-6)
        own = picked.gather(0, small[i][valid][None])[0]
        by_class = [own[small[i][valid] == c].mean().exp() for c in small[i][valid].unique()]
        assert found.agreement[i].item() == pytest.approx(sum(by_class).item() / len(by_class), rel=1e-5)
        guess = picked.argmax(0)
        means = [
            [(guess[of == c] == small[i][valid][of == c]).double().mean() for c in of.unique()]
            for of in (guess, small[i][valid])
        ]
        assert enough[i].item() == pytest.approx(min(sum(row).item() / len(row) for row in means), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("size", "wanted"), [(512, 128), (513, 129), (57, 13), (13, 57), (1, 4)])
def test_the_nearest_label_is_the_hosts(size: int, wanted: int) -> None:
    label = torch.arange(size).repeat(size, 1)[None]
    whole = nn.functional.interpolate(label[:, None].float(), (wanted, wanted), mode="nearest-exact")[0, 0, 0]
    assert nearest(size, wanted, torch.device("cpu")).tolist() == whole.tolist()


def test_large_logits_stay_exact() -> None:
    logits = torch.tensor([1e4, 1e4 - 1, 0.0]).view(1, 3, 1, 1)
    found = image_signals(logits, torch.ones(1, 1, 1, dtype=torch.int64), 255)
    loss, entropy = found.loss, found.entropy
    p = torch.tensor([1.0, math.exp(-1)]) / (1 + math.exp(-1))
    assert loss.item() == pytest.approx(-math.log(p[1]), rel=1e-5, abs=1e-6)
    assert entropy.item() == pytest.approx(-(p * p.log()).sum().item() / math.log(3), rel=1e-5, abs=1e-6)


class Waits(TorchDispatchMode):
    """Notes what waits for a device, or moves a tensor to another one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        name = op._schema.name.split("::")[1]
        devices = {value.device for value in (*args, result) if isinstance(value, Tensor)}
        masks = isinstance(args[1], list | tuple) if name.startswith("index") and len(args) > 1 else False
        by_mask = masks and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
        if name.startswith(WAITS) or by_mask or (name in ("_to_copy", "copy_") and len(devices) > 1):
            self.found.append(name)
        return result


def light_model() -> Any:
    """Return the light UperNet in training mode."""
    return MODELS.build(Config.fromfile(CONFIG, format_python_code=False).model).train()


def test_signals_wait_for_nothing() -> None:
    logits, labels = batch_of(2, 5, 16, torch.bfloat16)
    with Waits() as waits:
        image_signals(logits, list(labels), 255)
        pooled([logits], 0)
    assert not waits.found
    with Waits() as waits:
        assert logits.sum().item() and logits[logits > 0].numel()
    assert waits.found, "the test sees what waits"


def test_weights_are_moved_once_a_step_and_not_in_the_forward() -> None:
    """The meta device stands for any other than the CPU: tensors on it hold no values to wait for."""
    model = light_model()
    tap = SignalTap(model, weighted=True)
    model.to("meta")
    logits, label = torch.zeros(2, 5, 16, 16, device="meta"), torch.zeros(2, 16, 16, dtype=torch.int64, device="meta")
    with Waits() as waits:
        tap.weights = torch.tensor([2.0, 0.5])
    assert waits.found == ["_to_copy"]
    with Waits() as waits:
        for head in (model.decode_head, model.auxiliary_head):
            assert head.loss_decode(logits, label, ignore_index=255).device.type == "meta"
    assert not waits.found


@needs_cuda
def test_on_a_device_nothing_of_ours_waits() -> None:
    """The host's own accuracy figure waits, so that ours is run without it."""
    model = light_model().cuda()
    tap = SignalTap(model, weighted=True)
    logits, labels = (part.cuda() for part in batch_of(2, 5, 16, torch.float16))
    image_signals(logits, labels, 255)
    signals: list[torch.Tensor] = []

    def ours() -> None:
        tap.weights = torch.tensor([2.0, 0.5])
        for head in (model.decode_head, model.auxiliary_head):
            head.loss_decode(logits, labels[:, ::8, ::8].contiguous(), ignore_index=255)
        signals.extend([*vars(image_signals(logits, labels, 255)).values(), pooled([logits], 0)])

    assert synchronizations(ours) == 0
    assert len(signals) == 6 and all(signal.isfinite().all() for signal in signals)
