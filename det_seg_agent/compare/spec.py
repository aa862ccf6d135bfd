"""The settings in the YAML of a comparison, and their validation. `compare.matrix` uses them."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from det_seg_agent.compare.cells import CONTROLS, FULL, SHORT
from det_seg_agent.compare.report import Report
from det_seg_agent.errors import ConfigError
from det_seg_agent.scenes import write_scenes
from det_seg_agent.schedule import Schedule
from det_seg_agent.settings import Settings, parse, unknown_key
from det_seg_agent.strategies import strategy_class

OURS: dict[str, tuple[str, ...]] = {
    "detection": ("project", "name", "exist_ok", "seed", "data", "resume", "mode", "task"),
    "segmentation": ("work_dir", "randomness.seed", "randomness", "experiment_name", "visualizer.name", "resume"),
}
OURS |= dict.fromkeys(("classification", "instruction"), ("task", "data", "resume", "train.output_dir", "train.seed"))
SCENES = [name for name in signature(write_scenes).parameters if name != "folder"]


class Block(BaseModel):
    """Settings that all tasks have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str | None = Field(None, description="'scenes' for the embedded data, or a path; --data gives one that lacks")
    scenes: dict[str, int] = Field(
        default_factory=dict, description="arguments of write_scenes: train, val, size, seed, long_tail, ..."
    )
    host: dict[str, Any] = Field(default_factory=dict, description="settings of the host, a mapping")
    agent: dict[str, Any] = Field(default_factory=dict, description="settings of ours for all, such as schedule")
    strategies: list[Any] = Field(
        description="names, or mappings with label, settings of ours, and ratios of its own", min_length=1
    )
    ratios: Any = Field(None, description="a list of ratios, or a mapping of ratio to seeds")
    seeds: list[int] = Field(default=[0], description="seeds of ratios given as a list", min_length=1)
    report: dict[str, Any] = Field(
        default_factory=dict, description="a mapping of what is compared and tested, see docs/compare.md"
    )


class Detection(Block):
    """A comparison of detectors; `host` has the keys of `yolo train`."""


class Segmentation(Block):
    """A comparison of segmenters; `host` has the keys of `--cfg-options`."""

    config: str = Field(description="an MMEngine config, relative to the YAML")
    iterations: int | None = Field(
        None, ge=1, description="of full training, with all that counts them; or the config's"
    )


class HuggingFace(Block):
    """A comparison of models of transformers; `host` has `epochs` and the words of `train-hf`."""

    config: str = Field(description="a recipe of train-hf, relative to the YAML, or one of ours")


class Comparison(BaseModel):
    """Settings of the whole YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field("Comparison", description="title of the page")
    detection: dict[str, Any] | None = Field(None, description="a mapping, see docs/compare.md")
    segmentation: dict[str, Any] | None = Field(None, description="a mapping, see docs/compare.md")
    classification: dict[str, Any] | None = Field(None, description="a mapping, see docs/compare.md")
    instruction: dict[str, Any] | None = Field(None, description="a mapping, see docs/compare.md")

    def report(self, task: str) -> Report:
        """Return what the tables of a task show and test.

        Raises:
            ConfigError: if a setting is invalid.
        """
        block: dict[str, Any] | None = getattr(self, task)
        return parse(Report, mapping((block or {}).get("report", {}), f"{task}.report"), f"{task}.report.")


def mapping(value: Any, name: str) -> dict[str, Any]:
    """Return `value` as a dict.

    Raises:
        ConfigError: if it is not a mapping with strings as keys.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name}={value!r}: a mapping of names to values is needed.")
    return dict(value)


@dataclass(frozen=True)
class Entry:
    """An entry of `strategies`.

    Attributes:
        label: name in the tables.
        agent: our settings.
        seeds_of: seeds of each ratio; empty for a control, which runs at every ratio and seed of another strategy.
        native: whether its rule determines the budget.
    """

    label: str
    agent: dict[str, Any]
    seeds_of: dict[float, list[int]]
    native: bool = False


def schedule_of(block: Block) -> dict[str, Any]:
    """Return the block's settings of the schedule, which all its strategies share."""
    return {k: v for k, v in block.agent.items() if k in Schedule.model_fields}


def entry_of(task: str, given: Any, block: Block) -> Entry:
    """Validate one item of `strategies`; it gets the block's ratios unless it has its own.

    Raises:
        ConfigError: if settings are invalid, or would give it a different budget than its controls.
    """
    own = {"strategy": given} if isinstance(given, str) else mapping(given, f"{task}.strategies")
    has_ratios, label = "ratios" in own, own.pop("label", None)
    ratios = own.pop("ratios", block.ratios)
    name = str(own.get("strategy", block.agent.get("strategy", "")))
    where = f"{task}.strategies: {label or name or given}"
    if not name:
        raise ConfigError(f"{task}.strategies: {given!r} has no strategy.")
    for key in {*own, *block.agent} & {"ratio", "seed"}:
        raise ConfigError(f"{where}: {key} is that of the matrix; remove it.")
    for key in own.keys() & Schedule.model_fields.keys():
        raise ConfigError(
            f"{where}: {key}={own[key]!r} would give it another budget than its controls; set it for all strategies, "
            f"under {task}.agent."
        )
    cls = strategy_class(name)
    if cls.selects_all:
        raise ConfigError(f"{where}: it selects nothing; {FULL!r} and {SHORT!r} are there anyway. Remove it.")
    is_control = (label or name) in CONTROLS
    agent = {**(schedule_of(block) if is_control else block.agent), **own, "strategy": name}
    settings = parse(Settings, {k: v for k, v in agent.items() if k not in Schedule.model_fields}, f"{where}.")
    options = parse(cls.Options, settings.options, f"{where}.options.")
    native = bool(getattr(cls.resolved(options), "native", False))
    if native and task != "detection":
        raise ConfigError(
            f"{where}: options.native: its rule sets its budget pass by pass, and iterations are set before training. "
            "Only detection can have it; remove native, for the rule at a fixed budget."
        )
    if label is None and "native" in cls.Options.model_fields:
        label = f"{name}, {'native' if native else 'fixed budget'}"
    label = str(label or name)
    if label in (FULL, SHORT) or (is_control and name != label):
        raise ConfigError(f"{where}: {label!r} is the name of a control; give it another label.")
    if is_control and has_ratios:
        raise ConfigError(f"{where} runs wherever another strategy does; remove its ratios.")
    if is_control:
        return Entry(label, agent, {})
    return Entry(
        label, agent, ratios_of(f"{where}.ratios" if has_ratios else f"{task}.ratios", ratios, block.seeds), native
    )


def data_of(task: str, block: Block, data: str | None) -> str:
    """Return the block's data, as an absolute path if it exists.

    Raises:
        ConfigError: if neither the block nor `data` names any.
    """
    given = block.data or data
    if given is None:
        raise ConfigError(f"{task}.data is missing; give --data PATH, or set it in the YAML.")
    path = Path(given).expanduser()
    return str(path.resolve()) if given != "scenes" and path.exists() else given


def check_host(task: str, host: Mapping[str, Any]) -> None:
    """Refuse settings of the host that the matrix sets, or that are ours.

    Raises:
        ConfigError: names the first such setting.
    """
    for key in host:
        if key in OURS[task]:
            raise ConfigError(f"{task}.host.{key}: it follows from the matrix; remove it.")
        if key.partition(".")[0] == "agent":
            raise ConfigError(f"{task}.host.{key}: settings of ours belong under {task}.agent.")


def check_scenes(task: str, scenes: Mapping[str, int]) -> None:
    """Refuse unknown settings of the embedded scenes.

    Raises:
        ConfigError: names the first unknown setting.
    """
    for key in scenes:
        if key not in SCENES:
            raise ConfigError(unknown_key(f"{task}.scenes.{key}", [f"{task}.scenes.{name}" for name in SCENES]))


def check_epochs(task: str, host: Mapping[str, Any]) -> None:
    """Refuse a block without the length of full training.

    Raises:
        ConfigError: names the setting.
    """
    if not isinstance(host.get("epochs"), int) or host["epochs"] < 1:
        raise ConfigError(f"{task}.host.epochs={host.get('epochs')!r}: the number of epochs of full training.")


def check_detection(host: Mapping[str, Any]) -> None:
    """Refuse settings that would silently make cells differ.

    Raises:
        ConfigError: if `epochs` is missing, the optimizer is automatic, or `time` or `patience` is set.
    """
    check_epochs("detection", host)
    if str(host.get("optimizer", "auto")).lower() == "auto":
        raise ConfigError(
            "detection.host.optimizer=auto picks by the number of iterations, which a shorter schedule changes. "
            "Set one, with lr0, such as optimizer: SGD and lr0: 0.01."
        )
    for key in ("time", "patience"):
        if host.get(key):
            raise ConfigError(
                f"detection.host.{key}={host[key]!r} ends cells before their budget is used, each at another one; "
                "remove it."
            )


def ratios_of(name: str, given: Any, seeds: list[int]) -> dict[float, list[int]]:
    """Return the seeds of each ratio; `seeds` apply if `given` is a list of ratios.

    Raises:
        ConfigError: if ratios or seeds are invalid; `name` is the key in the message.
    """
    seeds_of = dict.fromkeys(given, seeds) if isinstance(given, list) else given
    if not isinstance(seeds_of, Mapping) or not seeds_of:
        raise ConfigError(f"{name}={given!r}: a list of ratios, or a mapping of ratio to seeds, is needed.")
    for ratio, seeds in seeds_of.items():
        if not isinstance(ratio, int | float) or not 0 < ratio < 1:
            raise ConfigError(f"{name}: {ratio!r} does not lie between 0 and 1; full data is there anyway.")
        whole = isinstance(seeds, list) and seeds and all(isinstance(s, int) and s >= 0 for s in seeds)
        if not whole or len(set(seeds)) < len(seeds):
            raise ConfigError(f"{name}: {ratio!r}: {seeds!r} is not a list of different seeds, integers >= 0.")
    return {float(ratio): list(seeds) for ratio, seeds in seeds_of.items()}
