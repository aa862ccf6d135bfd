"""`det-seg-agent train-hf` and its recipes, on an image folder and on a file of instructions."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from recipes_hf import write_images, write_rows, write_tokenizer

from det_seg_agent.hf import cli
from det_seg_agent.hf.cli import values_of
from det_seg_agent.hf.instructions import Instructions
from det_seg_agent.hf.recipe import arguments_of, perplexity, recipe_of
from det_seg_agent.hf.settings import HfSettings
from det_seg_agent.settings import parse

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs/hf").glob("*.yaml"))
QUIET = ["train.use_cpu=true", "train.disable_tqdm=true", "train.log_level=error", "train.dataloader_pin_memory=false"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_have_keys_and_values_that_the_host_takes(path: Path, tmp_path: Path) -> None:
    values = values_of([str(path), f"train.output_dir={tmp_path}", "train.use_cpu=true"])
    recipe = recipe_of({**values, "train": cli.numbers_of(values["train"])})
    args = arguments_of(recipe)
    assert isinstance(args.learning_rate, float)
    parse(HfSettings, recipe.agent, "agent.")
    if "tiny" not in path.stem:
        assert "Not run here" in path.read_text()


@pytest.mark.parametrize(
    ("name", "kind", "millions"), [("resnet50", "ResNet", 25.6), ("vit_b16", "ViT", 86.6), ("swin_t", "Swin", 28.3)]
)
def test_models_of_recipes_are_the_published_ones(name: str, kind: str, millions: float) -> None:
    from transformers import AutoConfig, AutoModelForImageClassification

    given = yaml.safe_load((ROOT / f"configs/hf/{name}_imagenet.yaml").read_text())["model"]
    with torch.device("meta"):
        model = AutoModelForImageClassification.from_config(AutoConfig.for_model(**given, num_labels=1000))
    assert type(model).__name__ == f"{kind}ForImageClassification"
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.slow
def test_a_classifier_trains_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_images(tmp_path / "images")
    words = [str(ROOT / "configs/hf/vit_tiny.yaml"), f"data={data}", f"train.output_dir={tmp_path / 'run'}", *QUIET]
    assert cli.main([*words, "train.num_train_epochs=4", "agent.strategy=repeat_factor"]) == 0
    run = tmp_path / "run"
    assert 0 <= json.loads((run / "evaluation.json").read_text())["eval_accuracy"] <= 1
    assert json.loads((run / "metrics.json").read_text())["budget"] == pytest.approx((30 + 18 + 18 + 30) / 120)
    for name in ("agent.png", "most_selected.jpg", "samples.parquet", "data.html", "classes.csv", "model.safetensors"):
        assert (run / name).is_file(), name
    assert cli.main([*words, "train.num_train_epochs=4"]) == 2 and "holds a run already" in capsys.readouterr().err
    assert cli.main([*words, "train.num_train_epochs=4", "agent.strategy=repeat_factor", "resume=true"]) == 2
    assert "its run is finished" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_a_causal_model_is_tuned_on_instructions(lora: bool, tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    rows, held_out = write_rows(tmp_path / "rows.jsonl", 24, 0), write_rows(tmp_path / "held.jsonl", 6, 1)
    words = [str(ROOT / "configs/hf/llama_tiny.yaml"), f"data={rows}", f"validation={held_out}", *QUIET]
    words += [f"tokenizer={tokenizer}", f"train.output_dir={tmp_path / 'run'}", "train.num_train_epochs=3"]
    words += ["agent.ratio=0.5", "agent.final_full=0"]
    words += ["lora={r: 2, target_modules: all-linear}"] if lora else []
    trainer = cli.train(words)
    figures = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert 1 < figures["eval_perplexity"] < 2 * len(trainer.processing_class or [0] * 40)
    assert [row["selected"] for row in trainer.run.selector.history] == [24, 12, 12]
    assert (tmp_path / "run/adapter_model.safetensors").is_file() == lora
    if lora:  # from a checkpoint of adapters
        newest = max((tmp_path / "run").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
        (newest / "det_seg_agent.pt").stat()
        frozen = [p for n, p in trainer.model.named_parameters() if "lora" not in n]
        assert not any(p.requires_grad for p in frozen)


def test_only_answers_are_labelled(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(write_tokenizer(tmp_path / "tokenizer"))
    (tmp_path / "rows.jsonl").write_text('{"instruction": "reverse a b", "output": "b a"}\n')
    row = Instructions(tmp_path / "rows.jsonl", tokenizer, 128)[0]
    labelled = [token for token in row["labels"] if token != -100]
    assert tokenizer.convert_ids_to_tokens(labelled) == ["b", "a", "</s>"]
    assert row["input_ids"][-3:] == labelled and len(row["labels"]) == len(row["input_ids"])


def test_perplexity_is_over_all_tokens() -> None:
    class Prediction:
        predictions = [[2.0, 1.0], [1.0, 2.0]]

    assert perplexity(Prediction())["perplexity"] == pytest.approx(math.e)


def test_the_command_names_itself() -> None:
    code = "from det_seg_agent.hosts.commands import main; import sys; sys.exit(main(['train-hf', '--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("usage: det-seg-agent train-hf")
