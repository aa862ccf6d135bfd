"""Classes and agreement in both toolboxes: from the labels, and from the stock forward."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import ADAPTERS
from head_runs import CLASSES, batch_of, build, write_data
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules
from seg_runs import config_of
from test_adapters import same
from test_heads import step, tap
from torch.utils.data import ConcatDataset, Subset
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from undrawn import undrawn

from det_seg_agent.det.classes import classes_of as of_boxes
from det_seg_agent.det.losses.sufficiency import sufficiency
from det_seg_agent.errors import ConfigError
from det_seg_agent.reporting.trace import read
from det_seg_agent.seg.classes import counts_of

pytestmark = pytest.mark.slow  # it trains

HEADS = ("yolov8n", "yolov8n-seg", "yolov8n-pose", "yolo26n-obb", "yolov10n", "yolo26n")


LOGITS = torch.tensor([-2.0, -2.0, 1.0, -2.0, -2.0])


def prefer(model: Any) -> None:
    """Make the model give all places the same `LOGITS`."""
    head = model.model[-1]
    finals = [getattr(head, name) for name in ("cv3", "one2one_cv3") if hasattr(head, name)]
    for branch in [each for branches in finals for each in branches] or [head]:
        layers = [module for module in branch.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
        for final in layers[-1:] if finals else [each for each in layers if each.weight.shape[0] == CLASSES]:
            with torch.no_grad():
                final.weight.zero_()
                final.bias[:] = LOGITS


def losses_of(labels: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the cross-entropy of each label, and the one that the model expects."""
    log_p = LOGITS.log_softmax(0)
    return -log_p[labels], -float((log_p.exp() * log_p).sum())


@pytest.mark.parametrize("name", HEADS)
def test_an_object_agrees_where_the_model_prefers_its_class(name: str, tmp_path: Path) -> None:
    """Objects are in the images 0, 0, 2, 3, 3, 3; each is a credit of its own."""
    model = build(tmp_path, name)
    batch = batch_of(model)
    batch["cls"] = torch.tensor([1.0, 2, 2, 1, 2, 3])[:, None]
    image = torch.tensor([0, 0, 1, 2, 3, 3, 3])
    credits = {"credit_index": torch.arange(7), "credit_image": image, "credit_share": torch.ones(7) / 3}
    prefer(model)
    got = tap(model)
    step(model, {**batch, **credits, "credit_object": torch.tensor([0, 1, 3, 4, 5, 6])})
    found = got[2]["agreement"]
    assert found[2].isnan(), "an image without objects"
    expected = torch.tensor(
        [-3.0, 3, -3, 3, -3]
    ).sigmoid()  # not all objects get an anchor of the one-to-one assignment
    found = found[[0, 1, 4, 5, 6]]
    known = found.isfinite()
    assert int(known.sum()) >= 3 and torch.allclose(found[known], expected[known])
    loss, entropy = losses_of(torch.tensor([1, 2, 1, 2, 3]))
    own, hoped = (got[2][name][[0, 1, 4, 5, 6]][known] for name in ("label_loss", "expected_loss"))
    assert torch.allclose(own, loss[known]) and hoped.tolist() == pytest.approx([entropy] * len(hoped))
    assert got[2]["label_loss"][2].isnan() and got[2]["expected_loss"][2].isnan()
    whole = tap(model)
    own = {"credit_index": torch.arange(4), "credit_image": torch.arange(4), "credit_share": torch.ones(4)}
    step(model, {**batch, **own})
    mean, least = whole[2]["agreement"], whole[2]["least_agreement"]
    assert mean.shape == (4,), "without owners it is by image"
    shown = mean.isfinite()
    assert torch.equal(shown, least.isfinite()) and (least <= mean + 1e-6)[shown].all()
    assert least[3] < 0.06 and (mean[3] > 0.3 or not known.all()), "one wrong object is not hidden by a right one"


@pytest.mark.parametrize("name", ["rtdetr", "yolov8n-cls", "yolo26n-sem"])
def test_heads_without_anchors_tell_the_loss_of_the_labels_and_the_expected_one(name: str, tmp_path: Path) -> None:
    """Image 2 shows a label that the model prefers, or one object; the others show what it does not."""
    model = build(tmp_path, name)
    batch = batch_of(model)
    labels = torch.tensor([1, 3, 2, 0])  # of the images
    if name == "rtdetr":  # objects are in the images 0, 0, 2, 3, 3, 3
        batch["cls"] = labels[batch["batch_idx"].long()][:, None].float()
    elif name == "yolov8n-cls":
        batch["cls"] = labels
    else:
        batch["semantic_mask"] = labels[:, None, None].expand(4, 64, 64).clone()
    prefer(model)
    got = tap(model)
    own = {"credit_index": torch.arange(4), "credit_image": torch.arange(4), "credit_share": torch.ones(4)}
    step(model, {**batch, **own})
    loss, entropy = losses_of(labels)
    known = torch.tensor([True, name != "rtdetr", True, True])  # image 1 shows no object
    assert torch.allclose(got[2]["label_loss"][known], loss[known], atol=1e-5)
    assert got[2]["expected_loss"][known].tolist() == pytest.approx([entropy] * int(known.sum()), abs=1e-5)
    assert (got[2]["agreement"][known].argmax() == known.nonzero().squeeze(1).tolist().index(2)).item()
    assert all(got[2][key][~known].isnan().all() for key in ("label_loss", "expected_loss", "agreement"))


def test_counts_of_boxes_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 9]]])
    scores = torch.zeros(1, 3, 2)
    scores[0, :, 0] = torch.tensor([0.9, 0.8, 0.7])  # a hit, a false alarm, a second hit
    targets, classes = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 0, 0]]]), torch.tensor([[0, 1, 0]])
    right, predicted, labelled = sufficiency(scores, boxes, classes, targets, torch.tensor([[1, 1, 0]]))[1].tolist()
    assert (right, predicted, labelled) == ([1, 0], [2, 0], [1, 1])


def dataset_of(scenes: Path, task: str, folder: Path) -> tuple[dict[str, Any], Any]:
    cfg = get_cfg(overrides={"imgsz": 64, "task": task})
    data = check_det_dataset(write_data(scenes, task, folder))
    return data, build_yolo_dataset(cfg, data["train"], 8, data, mode="train", stride=32)


def test_classes_of_boxes_follow_parts_of_a_data_set(scenes: Path, tmp_path: Path) -> None:
    data, dataset = dataset_of(scenes, "detect", tmp_path)
    classes = of_boxes(data, dataset)
    assert classes is not None and classes.names == tuple(data["names"].values())
    shares = classes.read_shares(48)
    boxes = [np.bincount(label["cls"].reshape(-1).astype(int), minlength=len(classes)) for label in dataset.labels]
    assert shares.labels.tolist() == sum(boxes).tolist()
    both = of_boxes(data, ConcatDataset([Subset(dataset, [3, 1]), dataset]))
    assert both is not None and torch.equal(both.read_shares(50).index[:3], shares.index[[3, 1, 0]])


def test_classes_of_masks_are_those_that_the_host_loads(scenes: Path, tmp_path: Path) -> None:
    register_all_modules(init_default_scope=True)
    config = config_of(scenes, tmp_path)
    config.train_dataloader.dataset.reduce_zero_label = True  # what the host subtracts is not counted
    dataset = DATASETS.build(config.train_dataloader.dataset)
    load = next(step for step in dataset.pipeline.transforms if type(step).__name__ == "LoadAnnotations")
    found = list(counts_of(dataset, 5))
    masks = [load(dataset.get_data_info(index))["gt_seg_map"] for index in range(48)]
    assert [row.tolist() for row in found] == [[int((mask == c).sum()) for c in range(5)] for mask in masks]
    assert sum(row.sum() for row in found) < sum(mask.size for mask in masks), "ignored pixels do not count"
    dataset.pipeline.transforms.remove(load)
    with pytest.raises(ConfigError, match="its pipeline has no LoadAnnotations"):
        next(counts_of(dataset, 5))


@pytest.mark.draws
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_run_with_repeats_goes_on_exactly_after_a_stop(name: str, scenes: Path, tmp_path: Path) -> None:
    adapter = ADAPTERS[name](scenes, tmp_path)
    agent = {"ratio": 0.8, "strategy": "curated", "options": {"cap": 3, "trust": 8, "known": 0.1}}
    whole = adapter.train("whole", **agent)
    counts = [row["selected"] for row in whole.selector.history]
    assert counts == [48, *[38] * 6, 48] and int(whole.selector.table.selected.sum()) == sum(counts)
    with undrawn():
        adapter.train("cut", stop=True, **agent)
        again = adapter.train("cut", resume=True, **agent)
    one, two = read(whole.folder / "trace"), read(again.folder / "trace")
    assert one is not None and one.equals(two) and same(whole.weights, again.weights)
    assert max(one["times"].to_pylist()) > 1, "some sample was repeated"
    assert whole.selector.classes.passes == again.selector.classes.passes != {}
    assert (whole.folder / "classes.csv").read_bytes() == (again.folder / "classes.csv").read_bytes()
    assert (whole.folder / "classes.png").stat().st_size > 1000
