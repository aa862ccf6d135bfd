"""Bad and odd input to `AgentTrainer` and its recipes: each case is in docs/input.md with its whole message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from documented import check_case
from hf_runs import Images, Texts, llama, trainer_of, upernet, vit
from torch.utils.data import Dataset, IterableDataset

from det_seg_agent.errors import LIMIT, AgentError
from det_seg_agent.hf import AgentTrainer
from det_seg_agent.hf.cli import train as command


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from Images()


class Endless(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return Images()[index]


class Unlabelled(Images):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.images[index]}


class Vectors(Images):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "labels": torch.zeros(3)}


class Deaf(AgentTrainer):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **given: Any) -> Any:
        inputs = {key: value for key, value in inputs.items() if not key.startswith("det_seg_agent")}
        return model(**inputs).loss


def detr() -> Any:
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        num_detection_tokens=4,
    )  # fmt: skip
    return transformers.YolosForObjectDetection(config)


def masked() -> Any:
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=64
    )
    return transformers.BertForMaskedLM(config)


def trained(model: Any = vit, data: Any = None, agent: Any = None, **more: Any) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        trainer = trainer_of(model, Images() if data is None else data, folder, agent or {"ratio": 0.5}, **more)
        trainer.train()

    return work


def resumed(folder: Path, first: dict[str, Any], second: dict[str, Any], agent: Any = None) -> None:
    """Train a part of a run, and resume it otherwise."""
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}
    trainer_of(vit, Images(), folder, {"ratio": 0.5}, **{**options, **first}).train()
    again = trainer_of(vit, Images(), folder, {"ratio": 0.5, **(agent or {})}, **{**options, **second})
    again.train(resume_from_checkpoint=str(folder / "checkpoint-2"))


def recipe(content: Any = None, *words: str) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        base = {
            "model": {"model_type": "vit"},
            "data": str(folder / "images"),
            "train": {"output_dir": str(folder / "run")},
        }
        text = content if isinstance(content, str) else yaml.safe_dump({**base, **(content or {})})
        (folder / "recipe.yaml").write_text(text)
        command([str(folder / "recipe.yaml"), *words])

    return work


def lines(*rows: str) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        from recipes_hf import write_tokenizer

        write_tokenizer(folder / "tokenizer")
        (folder / "rows.jsonl").write_text("\n".join(rows))
        given = {"task": "instruct", "data": str(folder / "rows.jsonl"), "tokenizer": str(folder / "tokenizer")}
        recipe({**given, "model": {"model_type": "llama"}, "max_length": 16})(folder)

    return work


BAD: dict[str, Callable[[Path], None]] = {
    "agent is no dict": trained(agent="agent"),
    "unknown setting": trained(agent={"ratios": 0.5}),
    "unknown strategy": trained(agent={"strategy": "magic"}),
    "unknown head": trained(agent={"head": "neck"}),
    "strategy with a budget of its own": trained(agent={"strategy": "infobatch", "options": {"native": True}}),
    "strategy by classes without classes": trained(agent={"strategy": "repeat_factor"}),
    "data set without samples": trained(data=Images(0)),
    "data set that is read in one order": trained(data=Stream(), max_steps=4),
    "data set without length": trained(data=Endless(), max_steps=4),
    "no data set": lambda folder: trainer_of(vit, None, folder, {}).train(),
    "labels missing": trained(data=Unlabelled()),
    "labels of another form": trained(data=Vectors()),
    "collator without a dict": trained(trainer_given={"data_collator": lambda rows: [row["labels"] for row in rows]}),
    "object detection": trained(model=detr),
    "masked language model": trained(model=masked, data=Texts()),
    "regression": trained(model=lambda: vit(problem_type="regression")),
    "several labels": trained(model=lambda: vit(problem_type="multi_label_classification")),
    "plain module": trained(model=lambda: torch.nn.Linear(3, 3)),
    "compute_loss that does not call ours": trained(cls=Deaf),
    "weights with label smoothing": trained(agent={"strategy": "infobatch"}, label_smoothing_factor=0.1),
    "half an epoch": trained(num_train_epochs=2.5),
    "group_by_length": trained(train_sampling_strategy="group_by_length"),
    "dataloader_drop_last": trained(dataloader_drop_last=True),
    "auto_find_batch_size": trained(auto_find_batch_size=True),
    "torch_compile": trained(torch_compile=True),
    "split_batches": trained(accelerator_config={"split_batches": True}),
    "trial": lambda folder: trainer_of(vit, Images(), folder, {}).train(trial={"a": 1}),
    "resume without a checkpoint": lambda folder: trainer_of(vit, Images(), folder, {}).train(
        resume_from_checkpoint=True
    ),
    "resume from a folder that is not there": lambda folder: trainer_of(vit, Images(), folder, {}).train(
        resume_from_checkpoint=str(folder / "checkpoint-9")
    ),
    "recipe that is not there": lambda folder: command(["nothing.yaml"]),
    "recipe that is no mapping": recipe("- a"),
    "unknown key of a recipe": recipe({"modell": "x"}),
    "unknown key of the host": recipe(None, "train.epochs=3"),
    "word without a value": recipe(None, "data"),
    "key of a key": recipe(None, "data.train=x"),
    "model without a type": recipe({"model": {"hidden_size": 8}}),
    "folder without splits": recipe(),
    "row that is no row": lines('{"instruction": "a", "output": "b"}', '{"input": "b"}'),
    "row without room for an answer": lines(json.dumps({"instruction": "a " * 40, "output": "b"})),
    "unknown key of LoRA": recipe({"task": "instruct", "lora": {"rank": 4}, "model": {"model_type": "llama"}}),
}  # fmt: skip
RESUMES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "resume with another ratio": ({}, {}, {"ratio": 0.4}),
    "resume with another batch": ({}, {"per_device_train_batch_size": 4}, {}),
    "resume with more epochs": ({}, {"num_train_epochs": 3}, {}),
    "resume with ignore_data_skip": ({}, {"ignore_data_skip": True}, {}),
}
TITLE = "Hugging Face: refused"
CASES = [*BAD, *RESUMES]


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case: str, tmp_path: Path) -> None:
    with pytest.raises(AgentError) as error:
        BAD[case](tmp_path)
    assert all(len(line) <= LIMIT for line in str(error.value).splitlines()) or case.startswith("row")
    check_case(TITLE, case, str(error.value), FOLDER=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMES)
def test_a_resume_with_other_settings_is_refused(case: str, tmp_path: Path) -> None:
    with pytest.raises(AgentError) as error:
        resumed(tmp_path, *RESUMES[case])
    check_case(TITLE, case, str(error.value), FOLDER=tmp_path)


@pytest.mark.parametrize(("model", "data", "more", "reason"), [
    (lambda: upernet(3), "masks", {}, "auxiliary head"),
    (vit, "images", {"label_smoothing_factor": 0.1}, "label smoothing"),
])  # fmt: skip
def test_a_loss_of_more_parts_is_named(
    model: Any, data: str, more: dict[str, Any], reason: str, tmp_path: Path, messages: Any
) -> None:
    class Blank(Images):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"pixel_values": self.images[index], "labels": torch.full((32, 32), index % 3)}

    trainer_of(model, Blank() if data == "masks" else Images(), tmp_path, {"ratio": 0.5}, max_steps=1, **more).train()
    assert "first batch: the loss of the samples is" in messages.getvalue() and reason in messages.getvalue()


def test_a_stock_loss_is_not_warned_of(tmp_path: Path, messages: Any) -> None:
    for name, model, data in (("a", vit, Images()), ("b", llama, Texts())):
        more = {"gradient_accumulation_steps": 2} if name == "b" else {}
        trainer_of(model, data, tmp_path / name, {"ratio": 0.5}, max_steps=1, **more).train()
    assert "first batch" not in messages.getvalue()
