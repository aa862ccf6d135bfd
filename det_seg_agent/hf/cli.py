"""The command line of the `Trainer`: a recipe, and words that change it."""

import sys
from pathlib import Path
from typing import Any

import yaml

from det_seg_agent.errors import ConfigError
from det_seg_agent.files import write_json
from det_seg_agent.hosts.commands import guarded
from det_seg_agent.hosts.input_errors import check_folder, input_errors, tidied
from det_seg_agent.hosts.recipes import found

USAGE = """usage: det-seg-agent train-hf RECIPE.yaml [key=value ...]

Train a model of transformers by a recipe of yours, or one of ours (`det-seg-agent recipe` lists them). Words change
the recipe: data=PATH model=NAME train.num_train_epochs=3 agent.ratio=0.5 resume=true ...; those under train. are the
host's TrainingArguments, those under agent. are ours. The end is an evaluation on the held-out data.
torchrun --nproc_per_node 2 tools/train_hf.py RECIPE.yaml ... trains in two processes."""

NESTED = ("train", "agent", "lora", "model")


def values_of(words: list[str]) -> dict[str, Any]:
    """Return the values of a recipe, changed by the words that follow its name.

    Raises:
        ConfigError: if the file cannot be read, or a word is not key=value.
    """
    path = found(words[0])
    if not path.is_file():
        raise ConfigError(f"recipe {words[0]}: there is no such file, and no recipe of that name.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"recipe {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"recipe {path}: a mapping of keys to values is needed.")
    for word in words[1:]:
        key, sign, text = word.removeprefix("--").partition("=")
        if not sign or not key:
            raise ConfigError(f"{word}: write key=value, such as train.num_train_epochs=3; --help shows more.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{word}: the value cannot be read; put it in quotes.") from error
        set_word(values, key.split("."), number_of(value))
    return values


def number_of(value: Any) -> Any:
    """Return 1e-4 as a number: YAML takes it for text, as it has no point."""
    try:
        return float(value) if isinstance(value, str) and "e" in value.lower() else value
    except ValueError:
        return value


def set_word(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a value of a recipe, by the parts of its key.

    Raises:
        ConfigError: if the first part has no keys of its own.
    """
    if len(keys) > 1 and keys[0] not in NESTED:
        raise ConfigError(f"{'.'.join(keys)}: only {', '.join(NESTED)} have keys of their own.")
    for key in keys[:-1]:
        inner = values.get(key)
        values[key] = dict(inner) if isinstance(inner, dict) else {}
        values = values[key]
    values[keys[-1]] = value


def train(words: list[str]) -> Any:
    """Train by a recipe, evaluate, and return the trainer.

    Raises:
        ConfigError: if recipe, model, data or settings are invalid.
    """
    values = values_of(words)
    import det_seg_agent.hf  # noqa: F401  (names a package that is missing)
    from det_seg_agent.hf.recipe import recipe_of, trainer_of

    recipe = recipe_of({**values, "train": numbers_of(values.get("train"))})
    folder = Path(str(recipe.train.get("output_dir", "")))
    check_folder("train.output_dir", folder)
    if not recipe.resume and any(folder.glob("checkpoint-*")):
        raise ConfigError(
            f"train.output_dir={str(folder)!r} holds a run already, which would be overwritten. Go on with it by "
            "resume=true, or give another folder."
        )
    trainer: Any = None

    def begun() -> bool:
        run = getattr(trainer, "run", None)
        return run is not None and run.selector.pass_index >= 0

    from transformers.utils import logging

    if not recipe.train.get("log_level"):
        logging.set_verbosity_info()
    with tidied(folder, begun), input_errors(f"recipe {words[0]}", "transformers", "accelerate", "peft", begun=begun):
        trainer = trainer_of(recipe)
        trainer.train(resume_from_checkpoint=recipe.resume or None)
    trainer.save_model()
    if trainer.eval_dataset is not None:
        figures = trainer.evaluate()
        if trainer.is_world_process_zero():
            write_json(folder / "evaluation.json", figures)
            print({key: round(value, 4) for key, value in figures.items() if isinstance(value, float)})
    return trainer


def numbers_of(given: Any) -> Any:
    """Return the host's arguments with numbers such as 1e-4 as numbers."""
    return {key: number_of(value) for key, value in given.items()} if isinstance(given, dict) else given or {}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 2 for invalid input, 130 after Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0

    def work() -> None:
        train(words)

    return guarded(work, "stopped; resume=true goes on from the newest checkpoint in train.output_dir")
