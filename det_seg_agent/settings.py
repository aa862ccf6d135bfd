"""The settings of a run, and their validation with messages for users. Every adapter parses them here."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from det_seg_agent.errors import LIMIT, ConfigError, listed, shortened
from det_seg_agent.schedule import Schedule

M = TypeVar("M", bound=BaseModel)


class Settings(Schedule):
    """Settings of the selection, including the fields of the schedule."""

    strategy: str = Field("agent", description="a registered name or 'package.module:Class'")
    seed: int | None = Field(None, ge=0, description="seed of everything that we draw; by default the host's seed")
    init: str | None = Field(
        None, description="folder of an earlier run, whose samples.parquet the first selections follow"
    )
    trace: bool = Field(True, description="write the Parquet trace, true or false")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the strategy, by name")

    @model_validator(mode="before")
    @classmethod
    def _an_earlier_run_replaces_the_first_full_pass(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("init") is not None and values.get("warmup") is None:
            return {**values, "warmup": 0}
        return values


def parse(model: type[M], values: Mapping[str, Any], prefix: str = "") -> M:
    """Validate `values` and build a `model` from them.

    Raises:
        ConfigError: one line per invalid key (with `prefix`), with its value and the valid ones.
    """
    try:
        return model(**values)
    except ValidationError as error:
        lines = [_explain(model, item, prefix) for item in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def refuse_changes(given: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse settings of a resumed run that differ from the original ones.

    Args:
        given: settings that the user gives now, by field; None means unchanged.
        saved: all settings of the original run.

    Raises:
        ConfigError: if any differs; names them and their original values.
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
    """Return the message for an unknown key; it suggests the most similar valid key, also under another prefix."""
    prefix, _, name = key.rpartition(".")
    same_prefix_wins = sorted(valid, key=lambda other: other.rpartition(".")[0] == prefix)
    by_name = {other.rpartition(".")[2]: other for other in same_prefix_wins}
    near = difflib.get_close_matches(name, by_name, n=1)
    hint = f" Did you mean {by_name[near[0]]}?" if near else ""
    return f"{shortened(key, LIMIT // 3)} is not a setting.{hint} Valid: {listed(sorted(valid)) or 'none'}."
