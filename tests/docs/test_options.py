"""docs/options.md is made of the settings; `WRITE_OPTIONS_DOCS=1 python -m pytest tests/docs/test_options.py`."""

import os
import textwrap
import typing
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from det_seg_agent.det.settings import DetSettings
from det_seg_agent.hf.settings import HfSettings
from det_seg_agent.schedule import Schedule
from det_seg_agent.settings import Settings
from det_seg_agent.strategies import strategy_class, strategy_names

DOCS = Path(__file__).parents[2] / "docs/options.md"
FILL: dict[str, Any] = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}

HEAD = """# Settings and options

Every setting, with its type, default and range, as the code has them.

- Detection: `agent.ratio=0.5 agent.options.floor=0.3` on the command line, or
  `AgentDetectionTrainer.configured(ratio=0.5, options={"floor": 0.3})`.
- Segmentation: `agent = dict(ratio=0.5, options=dict(floor=0.3))` in the config, or
  `--cfg-options agent.ratio=0.5 agent.options.floor=0.3`.
- Hugging Face: `AgentTrainer(..., agent={"ratio": 0.5, "options": {"floor": 0.3}})`, or
  `agent.ratio=0.5` on the command line.
- A plain loop: `Selector(..., ratio=0.5, options={"floor": 0.3})`.

[strategies.md](strategies.md) says what each strategy does, [settings.md](settings.md) how to
choose.
"""


def type_of(annotation: Any) -> str:
    """Return a type as the table has it."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if NoneType in arguments:
        return " or ".join([*(type_of(a) for a in arguments if a is not NoneType), "null"])
    return {dict: "mapping", str: "text", bool: "true or false"}.get(
        typing.get_origin(annotation) or annotation, getattr(annotation, "__name__", str(annotation))
    )


def range_of(field: FieldInfo) -> str:
    """Return the bounds of a field, empty without any."""
    signs = ((Ge, ">=", "ge"), (Gt, ">", "gt"), (Le, "<=", "le"), (Lt, "<", "lt"))
    return ", ".join(f"{sign} {getattr(m, key)}" for m in field.metadata for c, sign, key in signs if isinstance(m, c))


def default_of(field: FieldInfo) -> str:
    """Return the default as YAML has it."""
    return yaml.safe_dump(field.get_default(call_default_factory=True)).removesuffix("...\n").strip()


def rows_of(model: type[BaseModel], without: type[BaseModel] = BaseModel) -> str:
    """Return a list of a model's own fields."""
    fields = {name: field for name, field in model.model_fields.items() if name not in without.model_fields}
    lines = []
    for name, field in fields.items():
        facts = [type_of(field.annotation), range_of(field), f"default `{default_of(field)}`"]
        meaning = (field.description or "").rstrip(".")
        lines.append(textwrap.fill(f"- `{name}` ({', '.join(filter(None, facts))}): {meaning}.", 98, **FILL))
    return "\n".join(lines or ["It has no options."]) + "\n"


def page() -> str:
    """Return docs/options.md."""
    parts = [HEAD, "## Schedule: `agent.*`\n", rows_of(Schedule), "## Run: `agent.*`\n", rows_of(Settings, Schedule)]
    parts += ["## Detection only: `agent.*`\n", rows_of(DetSettings, Settings)]
    parts += ["## Hugging Face only: `agent.*`\n", rows_of(HfSettings, Settings)]
    for name in strategy_names():
        parts += [f"## `agent.strategy={name}`: `agent.options.*`\n", rows_of(strategy_class(name).Options)]
    return "\n".join(parts)


def test_every_option_is_documented() -> None:
    if "WRITE_OPTIONS_DOCS" in os.environ:
        DOCS.write_text(page(), encoding="utf-8")
    assert DOCS.read_text(encoding="utf-8") == page()


def test_every_option_says_what_it_means() -> None:
    for name in strategy_names():
        assert all(field.description for field in strategy_class(name).Options.model_fields.values()), name
