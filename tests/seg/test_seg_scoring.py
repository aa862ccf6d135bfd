"""A data set of an MMEngine config is shown to trained weights once, without training, on the real toolbox."""

import re
from pathlib import Path
from typing import Any

from seg_runs import CONFIG, EPOCHS, config_of, fit  # first: it prepares the host

# isort: split
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import MODELS
from PIL import Image
from test_seg_styles import write
from torch import nn

from det_seg_agent.hosts.commands import main
from det_seg_agent.reporting.samples import read_samples
from det_seg_agent.seg.scoring import score
from det_seg_agent.seg.scoring_config import DIVISOR, plain_pipeline, set_pass

COUNT = 6
# A U-Net whose logits have the image's resolution, so that the loss of an image is the stock one.
UNET = """
_base_ = {base!r}
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        _delete_=True, type="UNet", base_channels=4, num_stages=3, strides=(1, 1, 1), enc_num_convs=(1, 1, 1),
        dec_num_convs=(1, 1), downsamples=(True, True), enc_dilations=(1, 1, 1), dec_dilations=(1, 1),
        norm_cfg=dict(type="BN"), init_cfg=dict(type="Pretrained", checkpoint="/nowhere/to/be/fetched.pth"),
    ),
    decode_head=dict(
        _delete_=True, type="FCNHead", in_channels=4, in_index=2, channels=4, num_convs=1, concat_input=False,
        dropout_ratio=0.5, num_classes=5, norm_cfg=dict(type="BN"), align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    ),
    auxiliary_head=None,
)
train_dataloader = dict(batch_size=4, dataset=dict(data_root={root!r}, img_suffix=".png"))
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"), dict(type="Resize", scale=(80, 80), keep_ratio=True),
            dict(type="LoadAnnotations"), dict(type="PackSegInputs"),
        ]
    )
)
work_dir = {trained!r}
"""  # fmt: skip


def weights_of(config: Config, file: Path) -> dict[str, torch.Tensor]:
    """Save random weights of a config's model, with statistics of batch norm that are not the first ones."""
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    torch.save({"meta": {}, "state_dict": model.state_dict()}, file)
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A config of its own images of several sizes, and weights in a folder that looks like a run's."""
    root = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        size = (40 + 7 * i, 70 - 5 * i)
        mask = rng.integers(0, 5, size, dtype=np.uint8)
        mask[:3] = 255
        for folder, pixels in (("train", rng.integers(0, 256, (*size, 3), dtype=np.uint8)), ("masks/train", mask)):
            (root / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / f"data/{folder}/{i}.png")
    (root / "run").mkdir()
    path = root / "unet.py"
    path.write_text(UNET.format(base=str(CONFIG), root=str(root / "data"), trained=str(root / "run")))
    config = Config.fromfile(path)
    config.model.backbone.init_cfg = None
    return {"root": root, "config": path, "weights": root / "run/iter_9.pth", "model": config.model} | {
        "state": weights_of(config, root / "run/iter_9.pth")
    }


def files_in(folder: Path) -> dict[Path, bytes]:
    """Return what the files of a folder hold."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.draws
@pytest.mark.slow
def test_scores_without_training(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each image has a row with the stock model's loss, twice the same, and nothing that was there changes."""
    monkeypatch.chdir(given["root"])
    before = {folder: files_in(given["root"] / folder) for folder in ("run", "data")}
    words = [f"weights={given['weights']}", f"data={given['config']}", "log_level=ERROR"]
    found = []
    for name in ("unet_score", "unet_score2"):
        assert main(["score", *words]) == 0
        assert f"work_dirs/{name} has samples.csv and data.html" in capsys.readouterr().out
        assert not [*Path("work_dirs", name).glob("*.pth")] and not Path("work_dirs", name, "trace").exists()
        found.append(read_samples(Path("work_dirs", name)))
    assert before == {folder: files_in(given["root"] / folder) for folder in before}
    assert found[0].equals(found[1])
    rows = found[0].to_pylist()
    assert [Path(row["file"]).name for row in rows] == [f"{i}.png" for i in range(COUNT)]
    assert all(np.isfinite(row[name]) for row in rows for name in ("loss", "entropy", "agreement", "sufficiency"))
    assert all(row["seen"] == 1 and row["loss"] == pytest.approx(stock_loss(given, row), rel=1e-4) for row in rows)
    page = (Path("work_dirs/unet_score") / "data.html").read_text(encoding="utf-8")
    assert (
        "<h2>Hardest</h2>" in page
        and "1 pass, nothing was trained; samples.csv" in page
        and len(re.findall("<img", page)) >= COUNT
    )


def stock_loss(given: dict[str, Any], row: dict[str, Any]) -> float:
    """Return the loss that the host's model in evaluation mode gives an image, loaded by the host."""
    model = MODELS.build(given["model"])
    model.load_state_dict(given["state"])
    model.eval()
    model.data_preprocessor.size, model.data_preprocessor.size_divisor = None, DIVISOR
    pipeline: list[dict[str, Any]] = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    pipeline += [{"type": "Resize", "scale": (80, 80), "keep_ratio": True}, {"type": "PackSegInputs"}]
    prefix = {"img_path": "train", "seg_map_path": "masks/train"}
    data = BaseSegDataset(
        data_root=str(given["root"] / "data"), data_prefix=prefix, img_suffix=".png", seg_map_suffix=".png",
        pipeline=pipeline,
    )  # fmt: skip
    sample = data[row["sample"]]
    assert sample["data_samples"].img_path == row["file"]
    batch = model.data_preprocessor({name: [value] for name, value in sample.items()}, True)
    with torch.no_grad():
        return float(model(**batch, mode="loss")["decode.loss_ce"])


@pytest.mark.slow
def test_no_weight_changes(given: dict[str, Any], tmp_path: Path) -> None:
    words = [f"weights={given['weights']}", f"data={given['config']}", f"work_dir={tmp_path / 'out'}"]
    runner = score([*words, "log_level=ERROR"])
    state = runner.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in given["state"].items()) and len(state) > 20
    assert all(each.grad is None for each in runner.model.parameters())


@pytest.mark.slow
def test_scores_of_a_run_start_another(scenes: Path, tmp_path: Path) -> None:
    """With the config that a run of the agent leaves in its folder; a list can be exported, too."""
    agent = {"agent": {"_delete_": True, "ratio": 0.5, "strategy": "loss"}, "train_cfg.max_epochs": 1}
    fit(config_of(scenes, tmp_path / "run", **{**EPOCHS, **agent}))
    before = files_in(tmp_path / "run")
    [config], weights = (tmp_path / "run").glob("*.py"), tmp_path / "run/epoch_1.pth"
    out = tmp_path / "out"
    assert main(["score", f"data={config}", f"weights={weights}", f"work_dir={out}", "log_level=ERROR"]) == 0
    assert files_in(tmp_path / "run") == before
    rows = read_samples(out)
    assert len(rows) == 48 and rows["loss"].null_count == 0 and rows["classes"].null_count == 0
    assert main(["export", str(out), "--where", "sample<9", "--out", str(tmp_path / "keep.txt")]) == 0
    kept = [Path(file).stem for file in rows["file"].to_pylist()[:9]]
    assert (tmp_path / "keep.txt").read_text().split() == kept, "names as ann_file has them"
    more = {**EPOCHS, **agent, "agent": {"_delete_": True, "ratio": 0.5, "strategy": "loss", "init": str(out)}}
    runner, _ = fit(config_of(scenes, tmp_path / "next", **more))
    hook = next(hook for hook in runner.hooks if hasattr(hook, "selector"))
    hardest = np.argsort(rows["loss"].to_numpy())[-12:]
    assert set(hardest.tolist()) <= set(np.flatnonzero(hook.selector.table.selected.numpy()).tolist())


@pytest.mark.slow
def test_a_config_of_classes_is_scored(scenes: Path, tmp_path: Path) -> None:
    """In MMEngine's newer style; and with a model of which only the auxiliary head's weights are missing."""
    path = write(
        scenes, tmp_path, "model.update(auxiliary_head=dict(model['decode_head'], in_channels=32, in_index=2))"
    )
    state = weights_of(Config.fromfile(path), tmp_path / "all.pth")
    kept = {key: value for key, value in state.items() if not key.startswith("auxiliary_head.")}
    torch.save({"state_dict": kept}, tmp_path / "w.pth")
    runner = score([f"data={path}", f"weights={tmp_path / 'w.pth'}", f"work_dir={tmp_path / 'out'}"])
    assert read_samples(tmp_path / "out")["loss"].null_count == 0 and len(kept) < len(state)
    now = runner.model.state_dict()
    assert all(torch.equal(now[key], value) for key, value in kept.items())


def test_the_pipeline_is_that_of_the_validation_on_both() -> None:
    train = [
        {"type": "LoadImageFromFile", "imdecode_backend": "pillow"}, {"type": "LoadAnnotations"},
        {"type": "RandomResize", "scale": (9, 9)}, {"type": "GenerateEdge", "edge_width": 4},
        {"type": "mmseg.PackSegInputs", "meta_keys": ("img_path",)},
    ]  # fmt: skip
    tested = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (7, 7)}, {"type": "LoadAnnotations"}]
    assert plain_pipeline(train, tested) == [train[0], train[1], tested[1], train[3], train[4]]
    assert plain_pipeline(train[:2], []) == [*train[:2], {"type": "PackSegInputs"}]


def test_wrapped_data_sets_lose_their_augmentation(tmp_path: Path) -> None:
    """Each part of a ConcatDataset; padding is that of the testing; nothing is fetched."""
    config = Config.fromfile(CONFIG)
    part = config.train_dataloader.dataset.to_dict()
    config.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": [part, dict(part)]}
    config.model.pretrained = "open-mmlab://resnet18_v1c"
    config.model.data_preprocessor.test_cfg = {"size_divisor": 64}
    set_pass(config, "x.py", "w.pth", str(tmp_path))
    names = [[step["type"] for step in each["pipeline"]] for each in config.train_dataloader.dataset.datasets]
    assert names == [["LoadImageFromFile", "LoadAnnotations", "PackSegInputs"]] * 2
    assert config.model.data_preprocessor.size is None and config.model.data_preprocessor.size_divisor == 64
    assert config.model.pretrained is None


BARE = "model = dict(type='EncoderDecoder')\ntrain_dataloader = dict(dataset=dict(pipeline=[dict(type='Own')]))\n"
WRONG = [
    (["data=CONFIG"], "weights=: there is no such file; give trained weights"),
    (["data=CONFIG", "weights=none.pth"], "weights=none.pth: there is no such file"),
    (["data=CONFIG", "weights=text.pth"], "weights=.*text.pth: it is no checkpoint, or is cut short"),
    (["data=CONFIG", "weights=list.pth"], "weights=.*list.pth: it holds no state_dict"),
    (["data=none.py", "weights=W"], "data=none.py: there is no such file; give an MMEngine config"),
    (["data=empty.py", "weights=W"], "data=.*empty.py: the config has no train_dataloader"),
    (["data=bare.py", "weights=W"], "has no step whose name begins with Load.*its steps: Own"),
    (
        ["data=CONFIG", "weights=W", "model.decode_head.num_classes=7"],
        r"iter_9.pth do not fit the model of data=.*unet.py: decode_head.conv_seg.weight is \(5, 4, 1, 1\) in the "
        r"weights and \(7, 4, 1, 1\) in the model \(2 differ\)",
    ),
    (
        ["data=CONFIG", "weights=W", "model.backbone.base_channels=8", "model.decode_head.in_channels=8"],
        "do not fit the model",
    ),
    (["data=CONFIG", "weights=W", "agent.ratio=0.5"], "agent.ratio=0.5 does not go with score"),
    (["data=CONFIG", "weights=W", "train_dataloader.batch_size=4"], "train_dataloader.batch_size=4 does not go with"),
    (["data=CONFIG", "weights=W", "train_cfg.max_iters=4"], "train_cfg.max_iters=4 does not go with score"),
    (["data=CONFIG", "weights=W", "fast"], "'fast' is not key=value"),
    (["data=CONFIG", "weights=W", "train_dataloader.dataset.data_root=none"], "none/train"),
    (["data=CONFIG", "weights=W", "train_dataloader.dataset.img_suffix=.bmp"], "train_dataloader: .*img_suffix"),
    (["data=CONFIG", "weights=W", "work_dir=RUN"], r"holds files already \(iter_9.pth\).* Give a new folder"),
    (["data=CONFIG", "weights=W", "model.type=DepthEstimator"], "model.type='DepthEstimator' is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_what_cannot_be_scored_is_named(
    given: dict[str, Any], tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "bare.py").write_text(BARE)
    out = tmp_path / "out"
    names = {"data=CONFIG": f"data={given['config']}", "weights=W": f"weights={given['weights']}"}
    names |= {"work_dir=RUN": f"work_dir={given['weights'].parent}"}
    for name in ("weights=text.pth", "weights=list.pth", "data=empty.py", "data=bare.py"):
        key, _, file = name.partition("=")
        names[name] = f"{key}={tmp_path / file}"
    assert main(["score", f"work_dir={out}", *(names.get(word, word) for word in words)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and re.search(message, said), said
    assert not out.exists()


def test_the_file_that_cannot_be_read_is_named(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("train", "masks/train"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for path in (given["root"] / "data" / folder).iterdir():
            (tmp_path / "data" / folder / path.name).write_bytes(path.read_bytes())
    (tmp_path / "data/masks/train/3.png").write_bytes(b"no image")
    words = [f"weights={given['weights']}", f"data={given['config']}", f"work_dir={tmp_path / 'out'}"]
    assert main(["score", *words, f"train_dataloader.dataset.data_root={tmp_path / 'data'}"]) == 2
    assert "data/train/3.png or " in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_help_names_both_toolboxes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--help"]) == 0
    said = capsys.readouterr().out
    assert "an Ultralytics data YAML" in said and "weights=FILE.pth  data=  an MMEngine config" in said
