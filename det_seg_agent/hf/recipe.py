"""Recipes: a YAML with model, data and settings, and the trainer that it describes. `hf.cli` and `compare` use it."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from det_seg_agent.errors import ConfigError
from det_seg_agent.hf.signals import terms
from det_seg_agent.hosts.input_errors import input_errors
from det_seg_agent.settings import parse, unknown_key


class Recipe(BaseModel):
    """What a recipe's YAML says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["classify", "instruct"] = Field("classify", description="classify or instruct")
    model: str | dict[str, Any] = Field(
        description="a name or folder for from_pretrained, or a mapping with model_type and keys of its configuration"
    )
    data: str | None = Field(
        None, description="classify: a folder with train/CLASS/ and val/CLASS/; instruct: a file of JSON lines"
    )
    validation: str | None = Field(None, description="instruct: a file of JSON lines that is held out")
    tokenizer: str | None = Field(None, description="instruct: a name or folder; by default the model's")
    image_size: int = Field(224, ge=8, description="classify: side of the images in pixels, an integer >= 8")
    max_length: int = Field(512, ge=8, description="instruct: most tokens of prompt and answer, an integer >= 8")
    lora: dict[str, Any] | None = Field(None, description="instruct: keys of peft.LoraConfig, such as r: 16")
    train: dict[str, Any] = Field(default_factory=dict, description="a mapping of keys of TrainingArguments")
    agent: dict[str, Any] = Field(default_factory=dict, description="a mapping of our settings")
    resume: bool | str = Field(False, description="true for the newest checkpoint in output_dir, or a checkpoint")


def arguments_of(recipe: Recipe) -> Any:
    """Return the host's arguments.

    Raises:
        ConfigError: if a key is unknown or refused by the host.
    """
    from transformers import TrainingArguments

    known = [field.name for field in dataclasses.fields(TrainingArguments) if field.init]
    for key in recipe.train:
        if key not in known:
            raise ConfigError(unknown_key(f"train.{key}", [f"train.{name}" for name in known]))
    if not recipe.train.get("output_dir"):
        raise ConfigError("train.output_dir is missing; give the folder of the run.")
    with input_errors("train", "transformers", "accelerate"):
        return TrainingArguments(**{"report_to": "none", **recipe.train})


def trainer_of(recipe: Recipe, trainer: Any = None) -> Any:
    """Return a trainer with the recipe's model and data.

    Args:
        recipe: the recipe.
        trainer: the class, by default `AgentTrainer`.

    Raises:
        ConfigError: if model, data or settings are invalid.
    """
    from transformers import set_seed

    from det_seg_agent.hf.checks import settings_of
    from det_seg_agent.hf.trainer import AgentTrainer

    settings_of(recipe.agent)
    if isinstance(recipe.model, dict) and "model_type" not in recipe.model:
        raise ConfigError(f"model={recipe.model!r}: a mapping needs model_type, such as vit, swin, resnet or llama.")
    if recipe.lora is not None:
        check_lora(recipe.lora)
    if recipe.data is None:
        raise ConfigError("data is missing; give data=PATH, a folder of images or a file of JSON lines.")
    args = arguments_of(recipe)
    set_seed(args.seed)
    made = _classifier(recipe) if recipe.task == "classify" else _causal(recipe)
    return (trainer or AgentTrainer)(args=args, agent=recipe.agent, **made)


def _classifier(recipe: Recipe) -> dict[str, Any]:
    from transformers import AutoModelForImageClassification

    from det_seg_agent.hf.folder import Folder

    for key in ("validation", "tokenizer", "lora"):
        if getattr(recipe, key) is not None:
            raise ConfigError(f"{key}={getattr(recipe, key)!r} belongs to task: instruct. Remove it.")
    root = Path(str(recipe.data)).expanduser()
    data, held_out = (Folder(root, split, recipe.image_size) for split in ("train", "val"))
    if data.classes != held_out.classes:
        other = sorted(set(data.classes) ^ set(held_out.classes))
        raise ConfigError(f"data={str(root)!r}: train/ and val/ have other classes ({', '.join(other[:5])}).")
    names = dict(enumerate(data.classes))
    more = {"num_labels": len(names), "id2label": names, "label2id": {name: i for i, name in names.items()}}
    if isinstance(recipe.model, dict):
        if recipe.model.get("model_type") in ("vit", "swin"):
            more["image_size"] = recipe.image_size
        model = _model(recipe, AutoModelForImageClassification, **more)
    else:
        model = _model(recipe, AutoModelForImageClassification, **more, ignore_mismatched_sizes=True)
    return {"model": model, "train_dataset": data, "eval_dataset": held_out, "compute_metrics": accuracy}


def _causal(recipe: Recipe) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

    from det_seg_agent.hf.instructions import Instructions

    name = recipe.tokenizer or (recipe.model if isinstance(recipe.model, str) else None)
    if name is None:
        raise ConfigError("tokenizer is missing; a model from configuration has none of its own. Give tokenizer=NAME.")
    with input_errors(f"tokenizer={name}", "transformers", "huggingface_hub"):
        tokenizer = AutoTokenizer.from_pretrained(name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    more = {"vocab_size": len(tokenizer)} if isinstance(recipe.model, dict) else {}
    data, held_out = (
        None if path is None else Instructions(Path(path).expanduser(), tokenizer, recipe.max_length)
        for path in (recipe.data, recipe.validation)
    )
    model = _model(recipe, AutoModelForCausalLM, **more)  # after the data, which is read sooner
    if recipe.lora is not None:
        model = _with_lora(model, recipe.lora)
    return {
        "model": model,
        "train_dataset": data,
        "eval_dataset": held_out,
        "data_collator": DataCollatorForSeq2Seq(tokenizer),
        "compute_metrics": perplexity,
        "preprocess_logits_for_metrics": token_losses,
    }


def _model(recipe: Recipe, auto: Any, **more: Any) -> Any:
    from transformers import AutoConfig

    given = recipe.model
    if isinstance(given, str):
        with input_errors(f"model={given}", "transformers", "huggingface_hub"):
            return auto.from_pretrained(given, **more)
    with input_errors(f"model={given}", "transformers"):
        return auto.from_config(AutoConfig.for_model(**{**more, **given}))


def check_lora(given: Mapping[str, Any]) -> None:
    """Refuse unknown keys of LoRA.

    Raises:
        ConfigError: names the key.
    """
    import peft

    known = [field.name for field in dataclasses.fields(peft.LoraConfig) if field.init]
    for key in given:
        if key not in known:
            raise ConfigError(unknown_key(f"lora.{key}", [f"lora.{name}" for name in known]))


def _with_lora(model: Any, given: Mapping[str, Any]) -> Any:
    import peft

    with input_errors("lora", "peft"):
        return peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **given))


def accuracy(prediction: Any) -> dict[str, float]:
    """Return the share of images whose class is predicted."""
    return {"accuracy": float((np.argmax(prediction.predictions, 1) == prediction.label_ids).mean())}


def token_losses(logits: Any, labels: Tensor) -> Tensor:
    """Return (B, 2) float32: the sum of the cross-entropy of a text's labelled tokens, and their number."""
    given = logits[0] if isinstance(logits, tuple) else logits
    return torch.stack([part.float() for part in terms("tokens", given, labels, -100)], 1)


def perplexity(prediction: Any) -> dict[str, float]:
    """Return the perplexity over all labelled tokens, from `token_losses`."""
    total, count = np.asarray(prediction.predictions, dtype=np.float64).sum(0)
    return {"perplexity": math.exp(min(total / max(count, 1), 700))}


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """Return a recipe.

    Raises:
        ConfigError: names invalid keys.
    """
    return parse(Recipe, values)
