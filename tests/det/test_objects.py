"""Objects know their sample: the loss of an object is that of the image which it comes from, also in composites."""

from pathlib import Path
from typing import Any

import pytest
import torch
from head_runs import batch_of, build, write_data
from test_heads import step, tap
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset

from det_seg_agent.det.dataset import IndexedDataset
from det_seg_agent.det.heads import HEADS
from det_seg_agent.features import Projector
from det_seg_agent.signals import SignalBuffer
from det_seg_agent.sums import Drift, SampleSums

pytestmark = pytest.mark.slow  # it trains

PASTED = {"task": "segment", "mosaic": 0.5, "copy_paste": 1.0}
CASES: dict[str, dict[str, Any]] = {
    "mosaic": {},
    "no mosaic": {"mosaic": 0.0},
    "mixup": {"mixup": 1.0},
    "cutmix": {"cutmix": 1.0},
    "pasted flipped": {**PASTED, "copy_paste_mode": "flip"},
    "pasted from others": {**PASTED, "copy_paste_mode": "mixup", "overlap_mask": False},
    "pasted from others, mixed and sorted": {**PASTED, "copy_paste_mode": "mixup", "mixup": 1.0},
    "pose": {"task": "pose"},
    "obb": {"task": "obb", "mixup": 1.0},
}


def named_objects(scenes: Path, folder: Path, hyp: dict[str, Any]) -> IndexedDataset:
    """Return a data set in which the class of each object is the index of its image."""
    cfg = get_cfg(overrides={"imgsz": 64, "task": "detect", **hyp})
    data = check_det_dataset(write_data(scenes, cfg.task, folder))
    host = build_yolo_dataset(cfg, data["train"], 8, data, mode="train", stride=32)
    for index, label in enumerate(host.labels):
        label["cls"][:] = index
    return IndexedDataset(host, 0, 0, fresh=True)


@pytest.mark.parametrize("case", CASES)
def test_an_object_in_a_composite_knows_its_image(case: str, scenes: Path, tmp_path: Path) -> None:
    dataset = named_objects(scenes, tmp_path, CASES[case])
    chosen = list(range(0, 48, 3))
    dataset.set_pass(1, torch.tensor(chosen), None, [], 8)
    items = [dataset[index] for index in chosen]
    foreign = 0
    for asked, item in zip(chosen, items, strict=True):
        classes = item["cls"].flatten()
        assert torch.equal(item["object_samples"], classes.long()) and torch.equal(classes, classes.floor())
        assert "sem_masks" not in item or torch.equal(item["sem_masks"], item["sem_masks"].floor())
        foreign += int((classes != asked).sum())
    assert foreign > 20 or case in ("no mosaic", "pasted flipped")
    batch = dataset.collate(items)
    credit = batch["credit_object"]
    known = credit >= 0
    assert known.float().mean() > 0.9 or "pasted" in case, "an object is visible where its image is"
    assert torch.equal(batch["credit_index"][credit[known]], batch["cls"].flatten()[known].long())
    assert torch.equal(batch["credit_image"][credit[known]].float(), batch["batch_idx"][known])


def test_objects_are_not_marked_where_a_users_transform_would_see_it(scenes: Path, tmp_path: Path) -> None:
    dataset = named_objects(scenes, tmp_path, {})
    seen = []

    class Watching:
        def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
            seen.append(labels["cls"].copy())
            return labels

    dataset.transforms.insert(1, Watching())
    dataset.set_pass(1, torch.arange(48), None, [], 8)
    items = [dataset[index] for index in range(4)]
    assert all((classes == classes.astype(int)).all() for classes in seen) and len(seen) == 4
    assert "credit_object" not in dataset.collate(items)


SHARED = ("Semantic", "Classify", "RT-DETR")  # heads whose losses are shared by area


@pytest.mark.parametrize("name", [h.models[-1] for h in HEADS if not h.reason and h.name not in SHARED])
def test_an_objects_loss_is_its_samples_and_the_rest_is_shared_by_area(name: str, tmp_path: Path) -> None:
    model = build(tmp_path, name)
    share = torch.tensor([0.25, 0.75]).repeat(4)
    image = torch.arange(4).repeat_interleave(2)

    def losses_of(owner: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images' losses (4,) and the samples' losses (8,); `owner` has the credit of each object."""
        credits = {"credit_index": torch.arange(8), "credit_image": image, "credit_share": share}
        got = tap(model)
        step(model, {**batch_of(model), **credits, "credit_object": torch.tensor(owner)})
        return got[2]["loss"], got[2]["sample_loss"]

    # Objects are in the images 0, 0, 2, 3, 3, 3.
    loss, samples = losses_of([0, 1, 4, 6, 6, 7])
    assert torch.allclose(torch.zeros(4).index_add(0, image, samples * share), loss, rtol=1e-4)
    assert torch.allclose(samples[2:4], loss[1].expand(2)), "an image without objects"
    assert samples[4] > samples[5], "the object is the first sample's"
    swapped = losses_of([1, 0, 5, 7, 7, 6])[1]
    own = (samples - swapped) * share  # differs by the objects' losses, of which the two add up to the same
    assert torch.allclose(own[0::2], -own[1::2], rtol=1e-3, atol=1e-4) and own[4] > 0
    _, unknown = losses_of([-1] * 6)
    assert torch.allclose(unknown, loss[image]), "without owners all is shared by area"


@pytest.mark.parametrize("name", [h.models[-1] for h in HEADS if not h.reason and h.name not in SHARED])
def test_an_objects_loss_has_its_samples_weight_and_the_rest_that_of_the_image(name: str, tmp_path: Path) -> None:
    """In a mosaic a doubtful sample's objects count less, and those of its neighbours as ever."""
    model = build(tmp_path, name)
    owner = torch.tensor([0, 1, 4, 6, -1, 7])  # of the objects in the images 0, 0, 2, 3, 3, 3; one is not known
    credits = {
        "credit_index": torch.arange(8), "credit_image": torch.arange(4).repeat_interleave(2),
        "credit_share": torch.full((8,), 0.5), "credit_object": owner,
    }  # fmt: skip
    got = tap(model)
    step(model, {**batch_of(model), **credits})
    total, own = got[1].clone(), model.criterion.split.objects().clone()
    weight = torch.tensor([2.0, 0.1, 1.0, 1.0, 0.5, 1.5, 0.2, 3.0])
    of_image = weight.view(4, 2).mean(1)
    loss, _, _ = step(model, {**batch_of(model), **credits, "credit_weight": weight, "loss_weight": of_image})
    rest = total - own.view(4, 2).sum(1)
    expected = (own * weight).sum() + (rest * of_image).sum()
    assert loss.sum().item() == pytest.approx(4 * expected.item(), rel=1e-4)
    assert torch.allclose(got[1], total, rtol=1e-4), "the signals are those of the plain loss"


def test_a_rtdetr_loss_is_shared_by_area(tmp_path: Path) -> None:
    model = build(tmp_path, "rtdetr")
    got = tap(model)
    credits = {"credit_index": torch.arange(4), "credit_image": torch.arange(4), "credit_share": torch.ones(4)}
    step(model, {**batch_of(model), **credits, "credit_object": torch.tensor([0, 0, 2, 3, 3, 3])})
    assert got[2]["sample_loss"] is None


def test_a_samples_loss_in_the_table_is_its_own_and_not_its_neighbours() -> None:
    """A hard and an easy sample share each image; only the losses of the objects tell them apart."""
    buffer, sums = SignalBuffer(Projector(None, 0)), SampleSums(2, None)
    loss = torch.linspace(6, 4, 100) + 0.1 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    index, image, share = (
        torch.tensor([0, 1]).repeat(100),
        torch.arange(100).repeat_interleave(2),
        torch.full((200,), 0.5),
    )
    samples = loss[image] + torch.tensor([1.0, -1.0]).repeat(100)
    buffer.add(loss, torch.rand(100), torch.zeros(100, 2), index, image, share, None, samples)
    sums.add(*Drift().push(buffer.drain(), last=True))
    found = sums.samples()
    assert torch.allclose(found.loss, loss.mean() + torch.tensor([1.0, -1.0]), atol=1e-4)
    assert found.relative[0, 0] > 3 and torch.allclose(found.relative[0, 0], -found.relative[1, 0], atol=0.1)
