"""The Ultralytics adapter on the real toolbox: tiny model, tiny images."""

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from det_runs import TINY, Painted, fit, write_yolov8
from test_det_checkpoints import Stop, stopping
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import build_dataloader, build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

from det_seg_agent import ConfigError, Selector
from det_seg_agent.det.cli import main, parse_arguments
from det_seg_agent.det.coco_metrics import coco_metrics
from det_seg_agent.det.criterion import SignalCriterion
from det_seg_agent.det.dataset import IndexedDataset, seed_process
from det_seg_agent.det.loader import SelectionLoader
from det_seg_agent.det.trainer import AgentDetectionTrainer
from det_seg_agent.reporting.trace import read

pytestmark = pytest.mark.slow  # it trains


# Signals ------------------------------------------------------------------------------------------------------------


def detection_batch(empty: bool = True) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    where = torch.tensor([0, 0, 2, 3, 3, 3]) if empty else torch.arange(4)
    return {
        "img": torch.rand(4, 3, 64, 64, generator=g),
        "batch_idx": where.float(),
        "cls": torch.randint(0, 5, (len(where), 1), generator=g).float(),
        "bboxes": torch.cat([torch.rand(len(where), 2, generator=g) * 0.4 + 0.3, torch.full((len(where), 2), 0.3)], 1),
        "credit_index": torch.arange(4) + 10,
        "credit_image": torch.arange(4),
        "credit_share": torch.ones(4),
    }


@pytest.mark.parametrize("weighted_classes", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_signals_sum_to_the_stock_loss_and_leave_gradients_alone(
    model_yaml: str, weighted_classes: bool, autocast: bool
) -> None:
    torch.manual_seed(0)
    model = DetectionModel(model_yaml, nc=5, verbose=False).train()
    model.args = get_cfg()
    if weighted_classes:
        model.class_weights = torch.tensor([0.5, 1.0, 1.5, 0.7, 1.3])
    got: list[Any] = []
    results = []
    for criterion in (
        v8DetectionLoss(model),
        SignalCriterion(v8DetectionLoss(model), lambda **signals: got.append(signals)),
    ):
        model.criterion = criterion
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, items = model(detection_batch())
        loss.sum().backward()
        results.append((loss, items, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (loss_a, items_a, grads_a), (loss_b, items_b, grads_b) = results
    assert torch.equal(loss_a, loss_b) and list(items_a) == list(items_b)
    assert len(grads_a) == len(grads_b) and all(torch.equal(a, b) for a, b in zip(grads_a, grads_b, strict=True))
    index, loss, entropy, features = (got[0][name] for name in ("index", "loss", "entropy", "features"))
    assert index.tolist() == [10, 11, 12, 13]
    total = torch.stack(list(items_b.values())).sum()
    assert loss.mean().item() == pytest.approx(total.item(), rel=1e-4)
    assert ((entropy >= 0) & (entropy <= 1)).all() and features.shape[0] == 4 and features.isfinite().all()


def test_parts_sum_to_the_loss_items_and_an_empty_image_has_no_box_loss(model_yaml: str) -> None:
    model = DetectionModel(model_yaml, nc=5, verbose=False).train()
    model.args = get_cfg()
    seen: list[torch.Tensor] = []
    criterion = SignalCriterion(v8DetectionLoss(model), lambda **signals: None)
    inner = criterion._emit
    criterion._emit = lambda *a: (seen.append(criterion.parts()), inner(*a))  # type: ignore[method-assign]
    model.criterion = criterion
    _, items = model(detection_batch())
    assert torch.allclose(seen[0].sum(0), torch.stack(list(items.values())), rtol=1e-4)
    assert seen[0][1, 0] == 0 and seen[0][1, 2] == 0 and seen[0][1, 1] > 0


def test_weights_scale_each_images_loss(model_yaml: str) -> None:
    model = DetectionModel(model_yaml, nc=5, verbose=False).train()
    model.args = get_cfg()
    criterion = SignalCriterion(v8DetectionLoss(model), lambda **signals: None)
    parts: list[torch.Tensor] = []
    inner = criterion._emit
    criterion._emit = lambda *a: (parts.append(criterion.parts()), inner(*a))  # type: ignore[method-assign]
    model.criterion = criterion
    batch = detection_batch()
    weights = torch.tensor([2.0, 1.0, 0.5, 3.0])
    model.eval()
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    model(batch)
    loss, _ = model({**batch, "loss_weight": weights})
    assert loss.detach().sum().item() == pytest.approx(4 * (parts[0].sum(1) * weights).sum().item(), rel=1e-4)


# Data ---------------------------------------------------------------------------------------------------------------


def host_dataset(data_yaml: str, **hyp: Any) -> Any:
    data = check_det_dataset(data_yaml)
    cfg = get_cfg(overrides={"imgsz": 64, "task": "detect", **hyp})
    return build_yolo_dataset(cfg, data["train"], 8, data, mode="train", rect=bool(hyp.get("rect")), stride=32)


@pytest.mark.parametrize("cache", [False, "ram"])
@pytest.mark.parametrize("hyp", [{}, {"mixup": 1.0}, {"cutmix": 1.0}, {"mosaic": 0.0}])
def test_composites_show_selected_samples_only_and_credit_sums_to_one(data_yaml: str, hyp: dict, cache: Any) -> None:
    dataset = IndexedDataset(host_dataset(data_yaml, cache=cache, **hyp), 0, 0, fresh=True)
    chosen = torch.arange(0, 48, 3)
    dataset.set_pass(1, chosen, None, [], 8)
    mixed = 0
    for index in chosen.tolist():
        credits = dict(dataset[index]["credits"])
        assert sum(credits.values()) == pytest.approx(1)
        assert set(credits) <= set(chosen.tolist())
        mixed += len(credits) > 1
    assert mixed > 8 if hyp.get("mosaic", 1) else mixed == 0


@pytest.mark.parametrize("hyp", [{}, {"mixup": 1.0}, {"cutmix": 1.0}, {"mosaic": 0.0, "mixup": 1.0}])
def test_credit_is_the_share_of_pixels(data_yaml: str, hyp: dict) -> None:
    """One sample at a time is painted blue over the same random draws: its share is the share of blue."""
    host = host_dataset(data_yaml, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, **hyp)
    painted = Painted(host)
    dataset = IndexedDataset(host, 0, 0, fresh=True)
    passes = itertools.count()

    def draw(index: int) -> tuple[np.ndarray, dict[int, float]]:
        dataset.set_pass(next(passes), torch.arange(48), None, [], 8)  # forgets the images of earlier draws
        seed_process(0, index, 0, 0)
        item = dataset[index]
        return (item["img"].numpy().astype(float) - 114).mean((1, 2)), dict(item["credits"])

    blended = 0
    for index in range(0, 48, 8):
        painted.lit = -1
        _, credits = draw(index)
        blended += len(credits) > 4
        for sample, share in credits.items():
            painted.lit = sample
            (red, green, blue), again = draw(index)
            assert again == credits
            assert abs(red) < 3
            assert blue / green == pytest.approx(share, abs=0.04)
    assert blended or hyp != {"mixup": 1.0}


def test_indexing_draws_what_the_host_draws(data_yaml: str) -> None:
    import random

    items = []
    for wrap in (False, True):
        host = host_dataset(data_yaml, mixup=0.5, cutmix=0.5)
        dataset = IndexedDataset(host, 0, 0, fresh=False) if wrap else host
        random.seed(3)
        np.random.seed(3)
        items.append([dataset[i]["img"] for i in range(12)])
    assert all(torch.equal(a, b) for a, b in zip(*items, strict=True))


@pytest.mark.parametrize("rect", [False, True])
def test_each_pass_walks_its_selection_with_workers(data_yaml: str, rect: bool) -> None:
    host = host_dataset(data_yaml, rect=rect)
    stock = build_dataloader(host, 8, workers=2, shuffle=not rect, device="cpu")
    selector = Selector(48, 6, strategy="random", ratio=0.4, shuffle=not rect)
    dataset = IndexedDataset(host, 0, 0, fresh=True)
    loader = SelectionLoader(dataset, selector.sampler, stock)
    assert loader.num_workers == 2
    files = {file: i for i, file in enumerate(host.im_files)}
    workers = set()
    for p in range(6):
        selection = selector.begin_pass(p)
        dataset.set_pass(p, selection.indices, None, list(selector.sampler) if rect else [], 8)
        iter(loader)  # the host makes one that it never uses
        batches = list(loader)
        assert len(batches) == len(loader) == -(-len(selection) // 8)
        primary = [files[file] for batch in batches for file in batch["im_file"]]
        assert sorted(primary) == selection.indices.tolist()
        assert {int(i) for b in batches for i in b["credit_index"]} <= set(selection.indices.tolist())
        workers.add(tuple(w.pid for w in loader._iterator._workers))
    assert len(workers) == 1
    loader.close()


# Training -----------------------------------------------------------------------------------------------------------


def test_full_is_the_stock_trainer(data_yaml: str, tmp_path: Path) -> None:
    model_yaml = write_yolov8(tmp_path)
    ours = AgentDetectionTrainer.configured(strategy="full")
    runs = [
        fit(model_yaml, data_yaml, tmp_path, n, t, epochs=2) for n, t in (("stock", DetectionTrainer), ("full", ours))
    ]
    a, b = (r.ema.ema.state_dict() for r in runs)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert runs[0].tloss.keys() == runs[1].tloss.keys()
    assert all(torch.equal(runs[0].tloss[key], runs[1].tloss[key]) for key in runs[0].tloss)
    stock = {key: value for key, value in runs[1].metrics.items() if not key.startswith("agent/")}
    assert {k: v for k, v in runs[0].metrics.items()} == stock


@pytest.mark.draws
def test_a_run_counts_steps_and_leaves_everything(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    steps: list[int] = []
    headers: list[str] = []

    class Counting(AgentDetectionTrainer.configured(ratio=0.4)):  # type: ignore[misc]
        def optimizer_step(self) -> None:
            steps.append(self._batches)
            super().optimizer_step()

        def progress_string(self) -> str:
            headers.append(super().progress_string())
            return headers[-1]

    trainer = fit(model_yaml, data_yaml, tmp_path, "run", Counting, epochs=6, nbs=24, warmup_epochs=1, plots=True)
    assert trainer.accumulate == 3
    assert [header.split("(")[1] for header in headers] == [f"{n} batches)" for n in (6, 3, 3, 3, 3, 6)]
    assert set(steps[6:]) == {3}, "an optimizer step is made of three batches, across passes too"
    history = trainer.selector.history
    assert [row["selected"] for row in history] == [48, 19, 19, 19, 19, 48]
    table = read(trainer.save_dir / "trace")
    assert table is not None and len(table) == 6 * 48
    for name in (
        "agent.png",
        "most_selected.jpg",
        "least_selected.jpg",
        "weights/agent_last.pt",
        "weights/agent_best.pt",
    ):
        assert (trainer.save_dir / name).stat().st_size > 1000
    rows = (trainer.save_dir / "results.csv").read_text().splitlines()
    assert "agent/balance" in rows[0] and len(rows) == 7
    state = torch.load(trainer.save_dir / "weights/agent_last.pt", weights_only=True)
    assert "training" not in state and state["selector"]["pass_index"] == 5


def test_settings_cannot_change_on_resume(model_yaml: str, data_yaml: str, tmp_path: Path) -> None:
    first = stopping(AgentDetectionTrainer.configured(ratio=0.4), 1)
    with pytest.raises(Stop):
        fit(model_yaml, data_yaml, tmp_path, "run", first, epochs=3)
    last = tmp_path / "run/weights/last.pt"
    for changed in ({"ratio": 0.5}, {"strategy": "random"}, {"options": {"floor": 0.9}}):
        key = next(iter(changed))
        with pytest.raises(ConfigError, match=rf"agent.{key} cannot change on resume: the run has agent.{key}="):
            YOLO(last).train(trainer=AgentDetectionTrainer.configured(**changed), resume=True)
    YOLO(last).train(trainer=AgentDetectionTrainer.configured(ratio=0.4), resume=True)
    assert len((tmp_path / "run/results.csv").read_text().splitlines()) == 4


# Command line and judging -------------------------------------------------------------------------------------------


def test_the_command_line_trains_and_judges(model_yaml: str, scenes: Path, tmp_path: Path, log: io.StringIO) -> None:
    words = [f"{k}={v}" for k, v in {**TINY, "epochs": 2, "project": tmp_path, "name": "cli"}.items()]
    assert main([f"model={model_yaml}", f"data={scenes}", "agent.ratio=0.5", "agent.final_full=0", *words]) == 0
    result = json.loads((tmp_path / "cli/metrics.json").read_text())
    assert len(result["coco"]) == 12 and result["images_trained"] == 72 and result["full_images_trained"] == 96
    assert result["judged_on"].endswith("instances_val.json")
    assert "saves 25%" in log.getvalue() and "AR_100" in log.getvalue()


def test_recipes_parse_and_later_words_win() -> None:
    for path in Path(__file__).parents[2].glob("configs/det/*.yaml"):
        host, agent = parse_arguments(["--config", str(path), "epochs=7", "agent.ratio=0.3", "lr0=1e-3"])
        assert host["epochs"] == 7 and host["lr0"] == 0.001 and agent == {"strategy": "agent", "ratio": 0.3}


def test_pycocotools_judges_perfect_boxes_as_perfect(scenes: Path) -> None:
    truth = json.loads((scenes / "annotations/instances_val.json").read_text())
    perfect = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 1.0} for a in truth["annotations"]]
    ids = [image["id"] for image in truth["images"]]
    assert coco_metrics(truth, perfect, ids)["AP"] == pytest.approx(1.0)
    assert coco_metrics(truth, [], ids)["AP"] == 0.0


def test_the_converted_folder_links_images_and_is_made_once(scenes: Path, data_yaml: str) -> None:
    root = Path(data_yaml).parent
    assert (root / "images/train").is_symlink() and len(list((root / "images/train").iterdir())) == 48
    stamp = Path(data_yaml).stat().st_mtime_ns
    from det_seg_agent.det.coco_convert import prepare_data

    assert prepare_data(scenes) == data_yaml and Path(data_yaml).stat().st_mtime_ns == stamp
