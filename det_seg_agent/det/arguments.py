"""Parsing of the command line in the grammar of `yolo train`, with our settings under `agent.`. `det.cli` uses it."""

import datetime
from typing import Any

from det_seg_agent.det.settings import DetSettings
from det_seg_agent.errors import ConfigError
from det_seg_agent.hosts.input_errors import one_line
from det_seg_agent.hosts.recipes import found
from det_seg_agent.settings import unknown_key

# Words that the host accepts in addition to its defaults (8.4.190): flags without a value, and keys without a default.
FLAGS = ("half", "int8", "end2end", "nms")
MORE_KEYS = ("save_dir", "augmentations")
WRITE = "Write key=value, such as epochs=100; --help shows more."


def parse_arguments(arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (host arguments, agent settings) of a command line.

    As in `yolo`, command-line words override files regardless of position; the last of repeated words and the first of
    several `cfg=` win. The last of several `--config` wins, and `cfg=` overrides it.

    Raises:
        ConfigError: for a word that is not key=value, an unknown key, or a file that cannot be read.
    """
    from ultralytics.cfg import MODES, TASKS, merge_equals_args
    from ultralytics.utils.checks import check_yaml

    words, files = _configs(arguments)
    try:
        words = merge_equals_args(words)
    except SyntaxError as error:
        raise ConfigError(f"{one_line(error)} {WRITE}") from error
    except IndexError as error:
        raise ConfigError(f"a '=' has no key before it. {WRITE}") from error
    recipe: dict[str, Any] = {}
    for path in files:
        recipe.update(read_config("--config ", str(found(path))))
    given: dict[str, Any] = {}
    for word in words:
        word = word.removeprefix("--").removesuffix(",")
        if "=" in word:
            key, value = _pair(word)
            if key == "cfg" and value is not None:
                given = {**read_config("cfg=", value, check_yaml), **given}
            else:
                given.update(_flat(key, value))
        elif word in TASKS:
            given["task"] = word
        elif word in MODES:
            given["mode"] = word
        elif word in FLAGS or isinstance(_defaults().get(word), bool):
            given[word] = True
        elif word in _defaults():
            raise ConfigError(f"{word} needs a value. {WRITE}")
        else:
            raise ConfigError(f"{word!r} is not key=value. {WRITE}")
    return split({**recipe, **given})


def read_config(what: str, path: Any, find: Any = str) -> dict[str, Any]:
    """Return the flat keys of a YAML file as the host reads it; an `agent:` block becomes `agent.` keys.

    Args:
        what: prefix of the path in messages.
        path: path of the file, as the user gave it.
        find: function that locates the file.

    Raises:
        ConfigError: if the file cannot be read, is not a mapping or contains a date.
    """
    from det_seg_agent.det.compat import load_yaml

    try:
        content = load_yaml(find(path))
    except (OSError, ValueError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"{what}{path}: {one_line(error).rstrip('.')}. Give a YAML file with a mapping of keys to values."
        ) from error
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, datetime.date):
            raise ConfigError(f"{what}{path}: {key}: {value} is a date in YAML; put it in quotes.")
        if key != "cfg":
            flat.update(_flat(str(key), value, f"{what}{path}: "))
    return flat


def split(merged: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split flat keys into the host's and ours; check the host's and replace its deprecated names.

    Raises:
        ConfigError: for an unknown key, or a mode other than training.
    """
    from ultralytics.cfg import DEFAULT_CFG_DICT

    from det_seg_agent.det.compat import check_keys, takes_save_dir

    host: dict[str, Any] = {}
    agent: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in merged.items():
        name = key.removeprefix("agent.")
        if name == key:
            host[key] = value
        elif name.startswith("options."):
            options[name.removeprefix("options.")] = value
        else:
            agent[name] = value
    if options:
        agent.setdefault("options", options)
    try:
        check_keys(dict(DEFAULT_CFG_DICT), host)
    except TypeError as error:
        raise ConfigError(one_line(error)) from error
    if "save_dir" in host and not takes_save_dir():
        raise ConfigError("save_dir= is not known to this version of Ultralytics; give project= and name=.")
    for key in host:
        if key not in DEFAULT_CFG_DICT and key not in MORE_KEYS:
            raise ConfigError(unknown_key(key, list(_defaults())))
    if host.get("mode") not in (None, "train"):
        raise ConfigError(f"mode={host['mode']}: this command trains; use `yolo {host['mode']}` of the host.")
    return host, agent


def _configs(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the words without `--config FILE`, and the files of those options."""
    words: list[str] = []
    files: list[str] = []
    rest = iter(arguments)
    for word in rest:
        option, sign, path = word.partition("=")
        if option != "--config":
            words.append(word)
            continue
        files.append(path if sign else next(rest, ""))
        if not files[-1]:
            raise ConfigError("--config needs a YAML file or a recipe, such as --config det/yolov8n_coco.yaml.")
    return words, files


def _pair(word: str) -> tuple[str, Any]:
    """Return key and value of a word, by the host's rules; for our keys null means None."""
    from ultralytics.cfg import parse_key_value_pair

    try:
        key, value = parse_key_value_pair(word)
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"{word!r} is not key=value: {error}. {WRITE}") from error
    return key, None if key.startswith("agent.") and str(value).lower() == "null" else value


def _flat(key: str, value: Any, where: str = "") -> dict[str, Any]:
    """Return a key as flat keys: our mappings are flattened, and our tuples become lists, as in saved settings."""
    if key == "agent":
        value = {} if value is None else value
        if not isinstance(value, dict):
            raise ConfigError(f"{where}agent={value!r} is not a mapping; write agent: {{ratio: 0.6}}.")
    elif not key.startswith("agent."):
        return {key: value}
    elif key != "agent.options" or not isinstance(value, dict):
        return {key: list(value) if isinstance(value, tuple) else value}
    return {k: v for name, inner in value.items() for k, v in _flat(f"{key}.{name}", inner, where).items()}


def _defaults() -> dict[str, Any]:
    """Return all keys with their defaults, except the options of strategies."""
    from ultralytics.cfg import DEFAULT_CFG_DICT

    return {**DEFAULT_CFG_DICT, **{f"agent.{name}": field.default for name, field in DetSettings.model_fields.items()}}
