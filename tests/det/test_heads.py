"""Every head of the real Ultralytics: its images' losses, their weights, and short trainings."""

import io
import itertools
import json
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import ultralytics
from det_runs import TINY, Painted
from head_runs import batch_of, build, host_of, write_data, write_head
from pycocotools.mask import frPyObjects, merge
from ultralytics.cfg import get_cfg
from ultralytics.data import ClassificationDataset, build_dataloader, build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss

from det_seg_agent import ConfigError, Selector
from det_seg_agent.det import heads, trainers
from det_seg_agent.det.cli import main
from det_seg_agent.det.coco_metrics import coco_metrics, truth_of_labels
from det_seg_agent.det.criterion import SignalCriterion
from det_seg_agent.det.dataset import IndexedDataset, seed_process
from det_seg_agent.det.heads import HEADS
from det_seg_agent.det.loader import SelectionLoader
from det_seg_agent.det.trainers import AgentDetectionTrainer, trainer_for

pytestmark = pytest.mark.slow  # it trains

DOCS = Path(__file__).parents[2] / "docs/heads.md"
SUPPORTED = [head for head in HEADS if not head.reason]
MODELS = [model for head in SUPPORTED for model in head.models]


def credited(batch: dict[str, Any]) -> dict[str, Any]:
    images = len(batch["img"])
    index = torch.arange(images)
    return {**batch, "credit_index": index + 10, "credit_image": index, "credit_share": torch.ones(images)}


def step(model: Any, batch: dict[str, Any], autocast: bool = False) -> tuple[Any, dict[str, Any], list[Any]]:
    """Return loss, items and gradients of a training step."""
    torch.manual_seed(3)  # RT-DETR draws its denoising queries
    if isinstance(getattr(model, "criterion", None), SignalCriterion):
        model.criterion.carry(batch)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, items = model(batch)
    loss.sum().backward()
    return loss.detach(), items, [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def tap(model: Any) -> list[Any]:
    """Give a model our criterion; return the list that its parts, totals and signals go to."""
    if hasattr(model, "criterion"):
        del model.criterion
    got: list[Any] = []
    model.criterion = SignalCriterion(model.init_criterion(), lambda **signals: got.append(signals), model.model[-1])
    emit = model.criterion._emit

    def spying(*args: Any) -> None:
        got[:] = [model.criterion.parts(), model.criterion.split.total()]
        emit(*args)

    model.criterion._emit = spying
    return got


def scale_of(model: Any) -> int:
    """Return what the host multiplies a batch's loss of four images by."""
    return 1 if type(model).__name__ in ("RTDETRDetectionModel", "ClassificationModel") else 4


CASES = [
    *((name, {}) for name in MODELS),
    *((head.models[-1], {"autocast": True}) for head in SUPPORTED),
    *((head.models[-1], {"where": ()}) for head in SUPPORTED if len(head.parts) > 1 and head.name != "Semantic"),
    ("yolov8n-seg", {"overlap_mask": False}),
    ("yolo26n-seg", {"overlap_mask": False}),
    ("yolo26n-sem", {"classes": 1}),
    ("yolo26n-sem", {"class_weights": True}),
    ("yolo26n-obb", {"class_weights": True}),
]


@pytest.mark.parametrize("name", ["yolov8n", "yolov8n-seg", "yolo26n-pose", "yolov8n-cls"])
def test_a_difference_from_the_hosts_loss_is_named_once(name: str, tmp_path: Path, log: io.StringIO) -> None:
    model = build(tmp_path, name)
    tap(model)
    step(model, credited(batch_of(model)))
    assert "add up" not in log.getvalue()
    model.criterion.checked = False
    parts = model.criterion.split.parts
    model.criterion.split.parts = lambda: parts() * torch.tensor([2.0] + [1.0] * (parts().shape[1] - 1))
    for _ in range(2):
        _, items, _ = step(model, credited(batch_of(model)))
    first = next(iter(items))
    assert log.getvalue().count("do not add up to the host's loss") == 1
    assert f"{first} " in log.getvalue() and not any(f"{other} " in log.getvalue() for other in list(items)[1:])


@pytest.mark.parametrize(("name", "case"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_images_losses_sum_to_the_stock_loss_with_its_gradients(name: str, case: dict, tmp_path: Path) -> None:
    options = {key: value for key, value in case.items() if key in ("overlap_mask", "classes")}
    model = build(tmp_path, name, **options)
    if "class_weights" in case:
        model.class_weights = torch.tensor([0.5, 1.0, 1.5, 0.7, 1.3])
    where = {"where": case["where"]} if "where" in case else {}
    autocast = "autocast" in case
    stock_loss, stock_items, stock_grads = step(model, credited(batch_of(model, **where)), autocast)
    got = tap(model)
    loss, items, grads = step(model, credited(batch_of(model, **where)), autocast)
    assert torch.equal(stock_loss, loss) and stock_items == items
    assert sum(g is not None for g in grads) > 20
    for a, b in zip(stock_grads, grads, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
    parts, total, signals = got
    index, signal, entropy, features = (signals[key] for key in ("index", "loss", "entropy", "features"))
    assert torch.allclose(parts.sum(0), torch.stack(list(items.values())).float(), rtol=1e-4, atol=1e-6)
    assert total.sum().item() * scale_of(model) == pytest.approx(loss.sum().item(), rel=1e-4)
    assert torch.equal(signal, total * 4) and index.tolist() == [10, 11, 12, 13] and signal.std() > 0
    assert ((entropy >= 0) & (entropy <= 1)).all() and entropy.std() > 0
    assert features.shape[0] == 4 and features.isfinite().all() and features.std(0).max() > 0
    assert all(not t.requires_grad for t in (parts, signal, entropy, features))


@pytest.mark.parametrize("head", SUPPORTED, ids=lambda head: head.models[-1])
def test_weights_scale_each_images_loss_and_gradient(head: Any, tmp_path: Path) -> None:
    model = build(tmp_path, head.models[-1])
    got = tap(model)
    _, _, stock = step(model, credited(batch_of(model)))
    total = got[1].clone()
    factors = torch.tensor([2.0, 1.0, 0.5, 3.0])
    loss, _, weighted = step(model, {**credited(batch_of(model)), "loss_weight": factors})
    assert loss.sum().item() == pytest.approx(scale_of(model) * (total * factors).sum().item(), rel=1e-4)
    assert torch.allclose(got[1], total, rtol=1e-4), "the signals are those of the plain loss"
    alone = [step(model, {**credited(batch_of(model)), "loss_weight": row}) for row in torch.eye(4)]
    for i, (whole, mix) in enumerate(zip(stock, weighted, strict=True)):
        if whole is None:
            continue
        scale = sum(gradients[i].abs() for _, _, gradients in alone).max() * 1e-4 + 1e-9
        assert (sum(gradients[i] for _, _, gradients in alone) - whole).abs().max() <= scale
        mixed = sum(f * gradients[i] for f, (_, _, gradients) in zip(factors, alone, strict=True))
        assert (mixed - mix).abs().max() <= 3 * scale


@pytest.mark.parametrize("head", SUPPORTED, ids=lambda head: head.models[-1])
def test_two_epochs_train_on_selections(head: Any, scenes: Path, tmp_path: Path) -> None:
    model = host_of(write_head(tmp_path, head.models[-1]))
    cls = trainer_for(model)
    assert cls.__name__ == head.trainer
    data = write_data(scenes, model.task, tmp_path)
    more = {"data": data, "epochs": 2, "project": str(tmp_path), "name": "run", "workers": 0}
    model.train(trainer=cls.configured(ratio=0.5, final_full=0), **{**TINY, **more})
    trainer = model.trainer
    assert tuple(trainer.loss_names) == head.parts
    assert [row["selected"] for row in trainer.selector.history] == [48, 24]
    assert sum(row["dropped"] for row in trainer.selector.history) == 0, "all signals are finite"
    assert (trainer.wdir / "last.pt").exists() and (trainer.wdir / "agent_last.pt").exists()


@pytest.mark.parametrize("name", ["rtdetr", "yolov8n-cls"])
def test_weights_reach_the_criterion_in_a_run(name: str, scenes: Path, tmp_path: Path) -> None:
    model = host_of(write_head(tmp_path, name))
    cls: Any = trainer_for(model).configured(strategy="infobatch", ratio=0.7, final_full=0)
    seen: list[list[float]] = []

    class Watching(cls):  # type: ignore[misc]
        def optimizer_step(self) -> None:
            split = self.model.criterion.split
            weights = split.weights if name.endswith("cls") else split.terms.weights
            seen.append([1.0] if weights is None else weights.tolist())
            super().optimizer_step()

    more = {"data": write_data(scenes, model.task, tmp_path), "epochs": 2, "workers": 0, "nbs": 8, "val": False}
    model.train(trainer=Watching, **{**TINY, **more, "project": str(tmp_path), "name": "run"})
    assert set(sum(seen[:6], [])) == {1.0} and max(sum(seen[6:], [])) > 1.1


@pytest.mark.parametrize("name", ["yolov8n-seg", "rtdetr", "yolov8n-cls"])
def test_full_is_the_stock_trainer(name: str, scenes: Path, tmp_path: Path) -> None:
    states = []
    for ours in (False, True):
        model = host_of(write_head(tmp_path, name))
        cls = trainer_for(model).configured(strategy="full") if ours else model.task_map[model.task]["trainer"]
        more = {"data": write_data(scenes, model.task, tmp_path / str(ours)), "epochs": 1, "val": False, "workers": 0}
        model.train(trainer=cls, **{**TINY, **more, "project": str(tmp_path), "name": f"run{ours}"})
        states.append((model.trainer.model.state_dict(), model.trainer.tloss))
    (a, loss_a), (b, loss_b) = states
    assert loss_a == loss_b and all(torch.equal(a[key], b[key]) for key in a)


def test_an_end_to_end_run_goes_on_as_if_it_had_not_been_stopped(scenes: Path, tmp_path: Path) -> None:
    """The branches' shares of the loss change with the epochs."""
    base: Any = AgentDetectionTrainer.configured(ratio=0.5)
    file, data = write_head(tmp_path, "yolo26n"), write_data(scenes, "detect", tmp_path)
    more = {"data": data, "epochs": 4, "workers": 0, "nbs": 8, "close_mosaic": 1, "project": str(tmp_path)}
    whole = host_of(file)
    whole.train(trainer=base, **{**TINY, **more, "name": "whole"})

    class Stopping(base):  # type: ignore[misc]
        def optimizer_step(self) -> None:
            super().optimizer_step()
            if self.epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host_of(file).train(trainer=Stopping, **{**TINY, **more, "name": "stopped"})
    resumed = host_of(str(tmp_path / "stopped/weights/last.pt"))
    resumed.train(trainer=AgentDetectionTrainer, resume=True)
    a, b = (model.trainer.ema.ema.state_dict() for model in (whole, resumed))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert resumed.trainer.model.criterion.o2m == whole.trainer.model.criterion.o2m < 0.8


@pytest.mark.parametrize("name", ["yolo26n", "rtdetr", "yolov8n-cls", "yolo26n-sem"])
def test_copies_of_a_model_hold_nothing_of_ours(name: str, tmp_path: Path) -> None:
    model = build(tmp_path, name)
    tap(model)
    step(model, credited(batch_of(model)))
    copy = deepcopy(model)
    assert copy.criterion is None
    copy(torch.rand(2, 3, 64, 64))
    for each in (model, copy):
        each.criterion = None
        assert b"det_seg_agent" not in pickle.dumps(each)


# Data ---------------------------------------------------------------------------------------------------------------


def host_dataset(scenes: Path, task: str, folder: Path, **hyp: Any) -> Any:
    data = check_det_dataset(write_data(scenes, task, folder))
    cfg = get_cfg(overrides={"imgsz": 64, "task": task, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, **hyp})
    return build_yolo_dataset(cfg, data["train"], 8, data, mode="train", stride=32)


@pytest.mark.parametrize(
    ("task", "hyp"),
    [
        ("segment", {"mixup": 0.5, "degrees": 20.0}),
        ("segment", {"copy_paste": 0.5}),
        ("pose", {"mixup": 0.5}),
        ("obb", {"cutmix": 0.5, "degrees": 20.0}),
        ("semantic", {"mixup": 0.0}),
    ],
    ids=str,
)
def test_credit_is_the_share_of_pixels_in_every_task(task: str, hyp: dict, scenes: Path, tmp_path: Path) -> None:
    """One sample at a time is painted blue over the same random draws: its share is the share of blue."""
    host = host_dataset(scenes, task, tmp_path, **hyp)
    painted = Painted(host)
    dataset = IndexedDataset(host, 0, 0, fresh=True)
    passes = itertools.count()
    chosen = torch.arange(0, 48, 2)

    def draw(index: int) -> tuple[np.ndarray, dict[int, float]]:
        dataset.set_pass(next(passes), chosen, None, [], 8)  # forgets the images of earlier draws
        seed_process(0, index, 0, 0)
        item = dataset[index]
        image = item["img"].numpy().astype(float)
        return (image - 114).clip(min=0).mean((1, 2)), dict(item["credits"])

    tolerance = 0.1 if hyp.get("copy_paste") else 0.05  # pasted objects are not credited
    composites = 0
    for index in (0, 16, 32):
        painted.lit = -1
        _, credits = draw(index)
        assert sum(credits.values()) == pytest.approx(1) and set(credits) <= set(chosen.tolist())
        composites += len(credits) > 1
        for sample, share in credits.items():
            painted.lit = sample
            (_, green, blue), again = draw(index)
            assert again == credits and blue / green == pytest.approx(share, abs=tolerance)
    assert composites


def test_classification_walks_its_selections_with_workers(scenes: Path, tmp_path: Path) -> None:
    folder = Path(write_data(scenes, "classify", tmp_path)) / "train"
    host = ClassificationDataset(str(folder), get_cfg(overrides={"task": "classify", "imgsz": 64}), augment=True)
    stock = build_dataloader(host, 8, workers=2, device="cpu")
    selector = Selector(48, 4, strategy="random", ratio=0.4)
    dataset = IndexedDataset(host, 0, 0, fresh=True)
    loader = SelectionLoader(dataset, selector.sampler, stock)
    for p in range(4):
        selection = selector.begin_pass(p)
        dataset.set_pass(p, selection.indices, None, [], 8)
        batches = list(loader)
        assert sorted(int(i) for b in batches for i in b["credit_index"]) == selection.indices.tolist()
        for batch in batches:
            assert batch["cls"].tolist() == [host.samples[i][1] for i in batch["credit_index"].tolist()]
    loader.close()


def test_masks_are_judged_by_outlines(scenes: Path, tmp_path: Path) -> None:
    truth = json.loads((scenes / "annotations/instances_val.json").read_text())
    size = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    perfect = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "segmentation": merge(frPyObjects(a["segmentation"], *size[a["image_id"]])),
            "score": 1.0,
        }
        for a in truth["annotations"]
    ]
    assert coco_metrics(truth, perfect, size, "segm")["AP"] == pytest.approx(1.0)
    host = host_dataset(scenes, "segment", tmp_path)
    labels = truth_of_labels(host, host.data["names"])
    assert all(len(a["segmentation"][0]) >= 6 for a in labels["annotations"])
    boxes = [np.reshape(a["segmentation"][0], (-1, 2)) for a in labels["annotations"]]
    for a, points in zip(labels["annotations"], boxes, strict=True):
        assert np.allclose([*points.min(0), *np.ptp(points, 0)], a["bbox"], atol=0.01)


# Command line, refusals, documentation --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolov8n-cls", "rtdetr"])
def test_the_command_line_picks_the_trainer_and_judges(
    name: str, scenes: Path, tmp_path: Path, log: io.StringIO
) -> None:
    file = write_head(tmp_path, name)
    data = write_data(scenes, "classify", tmp_path) if name.endswith("cls") else scenes
    words = [f"{k}={v}" for k, v in {**TINY, "epochs": 1, "project": tmp_path, "name": "cli"}.items()]
    assert main([f"model={file}", f"data={data}", "agent.ratio=0.5", "workers=0", *words]) == 0
    result = json.loads((tmp_path / "cli/metrics.json").read_text())
    if name.endswith("cls"):
        assert "metrics/accuracy_top1" in result["host"] and "coco" not in result and "accuracy_top1" in log.getvalue()
    else:
        assert len(result["coco"]) == 12 and result["judged_on"].endswith("instances_val.json")
        assert ("coco_segm" in result) == name.endswith("seg") == ("pycocotools, segm" in log.getvalue())


@pytest.mark.parametrize("head", [head for head in HEADS if head.reason], ids=lambda head: head.name)
def test_heads_that_are_not_supported_are_refused_with_the_reason(head: Any, scenes: Path, capsys: Any) -> None:
    assert main([f"model={head.models[0]}.yaml", f"data={scenes}", "epochs=1", "device=cpu"]) == 2
    assert head.reason in capsys.readouterr().err


def test_a_trainer_of_another_head_is_refused_before_training(scenes: Path, tmp_path: Path, capsys: Any) -> None:
    model, more = host_of(write_head(tmp_path, "rtdetr")), {**TINY, "epochs": 1, "project": str(tmp_path)}
    data = write_data(scenes, "detect", tmp_path)
    with pytest.raises(ConfigError, match="trainer=AgentRTDETRTrainer"):
        model.train(trainer=AgentDetectionTrainer, data=data, **more)
    with pytest.raises(ConfigError, match="valid: detect"):
        host_of(write_head(tmp_path, "yolov8n-seg")).train(trainer=AgentDetectionTrainer, data=data, **more)
    with pytest.raises(ConfigError, match="distill_model is not supported"):
        host_of(write_head(tmp_path, "yolov8n")).train(
            trainer=AgentDetectionTrainer, data=data, distill_model="yolov8n.pt", **more
        )
    assert main([f"model={tmp_path / 'yolov8n-seg.yaml'}", "task=pose", f"data={data}"]) == 2
    assert "Give a model for task=pose, or drop task" in capsys.readouterr().err
    assert main([f"model={write_head(tmp_path, 'yolov8n-obb')}", f"data={scenes}"]) == 2
    assert "give a data YAML" in capsys.readouterr().err


def test_losses_and_heads_that_are_not_known_are_refused_by_name(tmp_path: Path) -> None:
    class Own(v8DetectionLoss):
        """A loss whose terms may be others."""

    model = build(tmp_path, "yolo26n")
    with pytest.raises(ConfigError, match="its loss is Own"):
        SignalCriterion(E2ELoss(model, Own), lambda **signals: None)
    with pytest.raises(ConfigError, match="the head Conv2d is not known"):
        heads.find_head(torch.nn.Conv2d(1, 1, 1))


def test_the_documented_table_is_what_the_code_says() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert heads.table() in text
    assert ultralytics.__version__ == heads.TESTED and f"ultralytics {heads.TESTED}" in text
    assert set(trainers.TRAINERS) == {head.trainer for head in SUPPORTED}
    assert all(getattr(trainers, name) is cls for name, cls in trainers.TRAINERS.items())
    for name in trainers.TRAINERS:
        assert f"`{name}`" in text


@pytest.mark.parametrize(
    ("name", "settings"), [("yolov8n-obb", "agent.strategy=afss"), ("yolov8n-cls", "insufficiency")]
)
def test_what_needs_sufficiency_is_refused_where_none_is_told(
    name: str, settings: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [settings if "=" in settings else f"agent.options.difficulty={settings}"]
    task = "obb" if "obb" in name else "classify"
    words += [f"model={write_head(tmp_path, name)}", f"data={write_data(scenes, task, tmp_path)}", "epochs=1"]
    words += [f"{key}={value}" for key, value in {**TINY, "project": tmp_path, "name": "run"}.items()]
    assert main(words) == 2
    assert "needs the sufficiency of images" in capsys.readouterr().err
