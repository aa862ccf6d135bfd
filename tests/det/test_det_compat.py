"""What is found out about the installed version of Ultralytics, on the real one; tools/check_hosts.py has others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from det_runs import write_model
from torch.utils.data import RandomSampler
from ultralytics.cfg import get_cfg
from ultralytics.data import build_dataloader
from ultralytics.data.augment import Mosaic
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

from det_seg_agent.det import compat, credit, credit_methods, credit_params
from det_seg_agent.errors import HostError


@pytest.fixture(scope="module")
def criterion(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The criterion of a tiny YOLOv8 with five classes."""
    model = DetectionModel(write_model(tmp_path_factory.mktemp("model")), nc=5, verbose=False)
    model.args = get_cfg()
    return v8DetectionLoss(model)


def test_what_is_missing_is_optional_and_what_is_needed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compat.optional("data.augment", "Mosaic") is Mosaic
    assert compat.optional("data.augment", "Nothing") is None and compat.optional("no.module", "Mosaic") is None
    compat.check_needed()
    monkeypatch.setitem(compat.NEEDED, v8DetectionLoss, ("loss_of_tomorrow",))
    with pytest.raises(HostError, match="has no v8DetectionLoss.loss_of_tomorrow"):
        compat.check_needed()


def test_scores_are_those_of_the_output_whatever_its_form(criterion: Any) -> None:
    """Up to 8.3 the criterion gets the maps of the levels, with the classes behind the boxes."""
    sizes = ((4, 4), (2, 2))
    scores = torch.rand(2, 5, sum(h * w for h, w in sizes))
    whole = torch.cat([torch.zeros(2, 4 * criterion.reg_max, scores.shape[2]), scores], 1).split([16, 4], 2)
    levels = [level.unflatten(2, size) for level, size in zip(whole, sizes)]

    class Older:
        nc = 5

    assert torch.equal(compat.scores_of(Older(), levels), scores)
    assert torch.equal(compat.scores_of(Older(), (None, levels)), scores)
    assert compat.gives_parts_of_output(criterion) and not compat.gives_parts_of_output(Older())
    assert torch.equal(compat.scores_of(criterion, {"scores": scores}), scores)


def test_loss_items_are_named_whatever_their_form(criterion: Any) -> None:
    named = {"box_loss": 1.0, "cls_loss": 2.0, "dfl_loss": 3.0}
    assert compat.loss_names(criterion) == tuple(named) and compat.gives_named_items()
    assert compat.items_of(criterion, {name: torch.tensor(value) for name, value in named.items()}) == named
    assert compat.items_of(criterion, torch.tensor([1.0, 2.0, 3.0])) == named
    assert compat.items_of(criterion, torch.tensor(1.0)) == {}


def test_a_loader_that_has_started_is_rewound() -> None:
    """The versions up to 8.4.120 start it as they build it: here it is walked, so that its generator has moved."""
    stock = build_dataloader(torch.utils.data.TensorDataset(torch.arange(8)), 4, workers=0)
    assert isinstance(stock.sampler, RandomSampler)
    first = list(stock.sampler)
    stock.iterator = iter(())  # as there
    assert list(compat.rewound(stock).sampler) == first


def test_settings_of_the_trainer_are_told_by_any_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        args = get_cfg(overrides={"device": "0,1", "warmup_epochs": 3.0})

    trainer = Trainer()
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert compat.launches_processes(trainer) and compat.world_size(trainer) == 2
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not compat.launches_processes(trainer)
    assert compat.warmup_ends(trainer, 10) == 11 and compat.warmup_ends(trainer, 50) == 4
    trainer.world_size, trainer.ddp = 0, True  # type: ignore[attr-defined]
    assert compat.world_size(trainer) == 1 and compat.launches_processes(trainer)
    assert compat.setting(trainer.args, "epochs") == 100 and compat.setting(trainer.args, "nothing") is None


def test_optimizer_states_have_no_numbers_of_numpy() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    optimizer.param_groups[0]["lr"] = np.float64(0.2)
    rate = compat.optimizer_state(optimizer)["param_groups"][0]["lr"]
    assert type(rate) is float and rate == 0.2


def test_files_and_keys(tmp_path: Path) -> None:
    compat.save_yaml(tmp_path / "a.yaml", {"epochs": 3})
    assert compat.load_yaml(tmp_path / "a.yaml") == {"epochs": 3}
    assert compat.takes_save_dir()
    folder = compat.run_folder(get_cfg(overrides={"project": str(tmp_path), "name": "run", "mode": "train"}))
    assert folder == tmp_path / "run" and not folder.exists()
    rows = torch.tensor([[0.0, 1.0, 2.0, 3.0, 0.5, 4.0]])
    assert {key: value.tolist() for key, value in compat.prediction(rows).items()} == {
        "bboxes": [[0.0, 1.0, 2.0, 3.0]], "conf": [0.5], "cls": [4.0],
    }  # fmt: skip


# Composites ---------------------------------------------------------------------------------------------------------


def test_the_newest_way_of_crediting_is_taken() -> None:
    assert compat.tells_parameters() and credit.CREDITED is credit_params.CREDITED


def test_a_blend_and_a_cut_are_measured_in_the_pixels() -> None:
    draws = np.random.default_rng(0)
    one, two = draws.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for factor in (0.3, 0.5, 0.62):
        mixed = (one * factor + two * (1 - factor)).astype(np.uint8)
        assert credit_methods.factor_of(one, two, mixed) == pytest.approx(factor, abs=2e-3)
    assert credit_methods.factor_of(one, one, one) == 0.5
    after = one.copy()
    after[5:20, 30:50] = 255 - one[5:20, 30:50]
    box = credit_methods.box_of_changes(one, after)
    assert box is not None and box.tolist() == [[30, 5], [50, 5], [50, 20], [30, 20]]
    assert credit_methods.box_of_changes(one, one) is None
