"""The settings of a run and how a wrong one is refused."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from det_seg_agent.errors import LIMIT, ConfigError, listed, shortened
from det_seg_agent.schedule import Schedule

M = TypeVar("M", bound=BaseModel)


class Settings(Schedule):
    """What a user sets for selection; the schedule's fields are part of it."""

    strategy: str = Field("agent", description="a registered name or 'package.module:Class'")
    seed: int | None = Field(None, ge=0, description="seed of everything that we draw; by default the host's seed")
    trace: bool = Field(True, description="write the Parquet trace, true or false")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategy, by name")


def parse(model: type[M], values: Mapping[str, Any], prefix: str = "") -> M:
    """Build `model` from `values`.

    Raises:
        ConfigError: naming every key (with `prefix`), its value and what is valid.
    """
    try:
        return model(**values)
    except ValidationError as error:
        lines = [_explain(model, item, prefix) for item in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def refuse_changes(given: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse settings that a resumed run was not started with.

    Args:
        given: what the user sets now, by field; None stands for what the run has.
        saved: all settings of the run.

    Raises:
        ConfigError: naming what differs and what the run has.
    """
    other = [key for key, value in given.items() if value is not None and value != saved.get(key)]
    if other:
        old = ", ".join(f"agent.{key}={saved.get(key)!r}" for key in other)
        raise ConfigError(f"agent.{', agent.'.join(other)} cannot change on resume: the run has {old}. Drop them.")


def _explain(model: type[BaseModel], item: Any, prefix: str) -> str:
    key = str(item["loc"][0]) if item["loc"] else ""
    if item["type"] == "extra_forbidden":
        return unknown_key(prefix + key, [prefix + name for name in model.model_fields])
    message = str(item["msg"]).removeprefix("Value error, ")
    if not key:
        return f"{prefix.rstrip('.') or 'settings'}: {message}"
    field = model.model_fields[key]
    valid = f" Valid: {field.description}." if field.description else ""
    return f"{prefix}{key}={shortened(repr(item['input']), LIMIT // 4)}: {message}.{valid}"


def unknown_key(key: str, valid: list[str]) -> str:
    """Return the message for a key that does not exist, with the nearest one that does, whatever its prefix."""
    prefix, _, name = key.rpartition(".")
    same_prefix_wins = sorted(valid, key=lambda other: other.rpartition(".")[0] == prefix)
    by_name = {other.rpartition(".")[2]: other for other in same_prefix_wins}
    near = difflib.get_close_matches(name, by_name, n=1)
    hint = f" Did you mean {by_name[near[0]]}?" if near else ""
    return f"{shortened(key, LIMIT // 3)} is not a setting.{hint} Valid: {listed(sorted(valid)) or 'none'}."
