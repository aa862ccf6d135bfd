"""What is compared: the YAML of a comparison, and the cells that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from det_seg_agent.compare.cells import FULL, RANDOM, SHORT, Cell
from det_seg_agent.errors import ConfigError
from det_seg_agent.scenes import write_scenes
from det_seg_agent.schedule import Schedule
from det_seg_agent.settings import Settings, parse, unknown_key
from det_seg_agent.strategies import strategy_class

OURS = {
    "detection": ("project", "name", "exist_ok", "seed", "data", "resume", "mode", "task"),
    "segmentation": ("work_dir", "randomness.seed", "randomness", "experiment_name", "visualizer.name", "resume"),
}
SCENES = [name for name in signature(write_scenes).parameters if name != "folder"]


class Block(BaseModel):
    """What both tasks have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str | None = Field(None, description="'scenes' for the embedded data, or a path; --data gives one that lacks")
    scenes: dict[str, int] = Field(
        default_factory=dict, description="train, val, size, seed, mislabelled of the scenes"
    )
    host: dict[str, Any] = Field(default_factory=dict, description="settings of the host, a mapping")
    agent: dict[str, Any] = Field(default_factory=dict, description="settings of ours for all, such as schedule")
    strategies: list[Any] = Field(
        description="names, or mappings with label, settings of ours, and ratios of its own", min_length=1
    )
    ratios: Any = Field(None, description="a list of ratios, or a mapping of ratio to seeds")
    seeds: list[int] = Field(default=[0], description="seeds of ratios given as a list", min_length=1)


class Detection(Block):
    """A comparison of detectors; `host` has the keys of `yolo detect train`."""


class Segmentation(Block):
    """A comparison of segmenters; `host` has the keys of `--cfg-options`."""

    config: str = Field(description="an MMEngine config, relative to the YAML")
    iterations: int | None = Field(
        None, ge=1, description="of full training, with all that counts them; or the config's"
    )


class Comparison(BaseModel):
    """The YAML as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field("Comparison", description="title of the page")
    detection: dict[str, Any] | None = Field(None, description="a mapping, see docs/compare.md")
    segmentation: dict[str, Any] | None = Field(None, description="a mapping, see docs/compare.md")


def read(path: Path, data: str | None = None) -> tuple[Comparison, list[Cell]]:
    """Return a comparison and its cells, in the order in which they run.

    All cells of a seed come before those of the next, so that an interrupted matrix still compares.

    Args:
        path: of the YAML.
        data: for the blocks that name none.

    Raises:
        ConfigError: for a file that cannot be read, or settings that cannot work.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    comparison = parse(Comparison, mapping(content, str(path)))
    cells: list[Cell] = []
    if comparison.detection is not None:
        cells += expand("detection", parse(Detection, comparison.detection, "detection."), path.parent, data)
    if comparison.segmentation is not None:
        cells += expand(
            "segmentation", parse(Segmentation, comparison.segmentation, "segmentation."), path.parent, data
        )
    if not cells:
        raise ConfigError(f"{path}: detection: or segmentation: is needed, or both.")
    return comparison, sorted(cells, key=lambda cell: cell.seed)


def mapping(value: Any, name: str) -> dict[str, Any]:
    """Return `value` if it is a mapping with text for keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name}={value!r}: a mapping of names to values is needed.")
    return dict(value)


def expand(task: str, block: Block, folder: Path, data: str | None) -> list[Cell]:
    """Return the cells of a block: its strategies, and the controls that are always there."""
    shared: dict[str, Any] = {"task": task, "host": dict(block.host), "data": data_of(task, block, data)}
    for key in OURS[task]:
        if key in block.host:
            raise ConfigError(f"{task}.host.{key}: it follows from the matrix; remove it.")
    if shared["data"] == "scenes":
        for key in block.scenes:
            if key not in SCENES:
                raise ConfigError(unknown_key(f"{task}.scenes.{key}", [f"{task}.scenes.{name}" for name in SCENES]))
        shared["scenes"] = dict(block.scenes)
    if isinstance(block, Segmentation):
        config = (folder / block.config).resolve()
        if not config.is_file():
            raise ConfigError(f"segmentation.config={block.config}: there is no such file beside the YAML.")
        text = config.read_text(encoding="utf-8")
        shared.update(config=str(config), config_text=text, iterations=block.iterations)
    else:
        check_detection(block.host)
    entries = [entry_of(task, entry, block) for entry in block.strategies]
    labels = [entry.label for entry in entries]
    if twice := {label for label in labels if labels.count(label) > 1 or label in (FULL, SHORT)}:
        raise ConfigError(f"{task}.strategies: {sorted(twice)} twice, or a control that is there anyway; rename it.")
    if RANDOM not in labels:
        entries.insert(0, entry_of(task, RANDOM, block))
    shorter_agent = {k: v for k, v in block.agent.items() if k in Schedule.model_fields} | {"strategy": FULL}
    cells = []
    for seed in sorted({seed for entry in entries for seeds in entry.seeds_of.values() for seed in seeds}):
        cells.append(Cell(role="full", label=FULL, ratio=1.0, seed=seed, agent={"strategy": FULL}, **shared))
        ratios = dict.fromkeys(r for entry in entries for r, seeds in entry.seeds_of.items() if seed in seeds)
        for ratio in ratios:
            cells.append(Cell(role="short", label=SHORT, ratio=ratio, seed=seed, agent=shorter_agent, **shared))
            for entry in entries:
                if entry.label != RANDOM and seed not in entry.seeds_of.get(ratio, ()):
                    continue
                agent = {**entry.agent, "ratio": ratio}
                parse(Settings, agent, f"{task}.agent.")
                cells.append(Cell(role="selection", label=entry.label, ratio=ratio, seed=seed, agent=agent, **shared))
    return cells


@dataclass(frozen=True)
class Entry:
    """An entry of `strategies`: its label, settings of ours, and ratio -> seeds; the control has all of the others'."""

    label: str
    agent: dict[str, Any]
    seeds_of: dict[float, list[int]]


def entry_of(task: str, given: Any, block: Block) -> Entry:
    """Return an entry of `strategies`, with its options checked, and the block's ratios where it has none of its own.

    `random` beside others has none: it runs wherever they do.
    """
    own = {"strategy": given} if isinstance(given, str) else mapping(given, f"{task}.strategies")
    has_ratios = "ratios" in own
    ratios = own.pop("ratios", block.ratios)
    agent = {**block.agent, **own}
    if "strategy" not in agent:
        raise ConfigError(f"{task}.strategies: {given!r} has no strategy.")
    label = str(agent.pop("label", agent["strategy"]))
    if "ratio" in agent or "seed" in agent:
        raise ConfigError(f"{task}.strategies: {label}: ratio and seed are those of the matrix; remove them.")
    cls = strategy_class(str(agent["strategy"]))
    parse(cls.Options, agent.get("options", {}), f"{task}.{label}.options.")
    if label == RANDOM and has_ratios:
        raise ConfigError(f"{task}.strategies: {RANDOM} runs wherever another strategy does; remove its ratios.")
    if label == RANDOM and block.strategies != [given]:
        return Entry(label, agent, {})
    name = f"{task}.strategies: {label}.ratios" if has_ratios else f"{task}.ratios"
    return Entry(label, agent, ratios_of(name, ratios, block.seeds))


def data_of(task: str, block: Block, data: str | None) -> str:
    """Return the block's data, resolved where it is a path that is there."""
    given = block.data or data
    if given is None:
        raise ConfigError(f"{task}.data is missing; give --data PATH, or set it in the YAML.")
    path = Path(given).expanduser()
    return str(path.resolve()) if given != "scenes" and path.exists() else given


def check_detection(host: Mapping[str, Any]) -> None:
    """Refuse what would differ between cells without anybody having set it."""
    if not isinstance(host.get("epochs"), int) or host["epochs"] < 1:
        raise ConfigError(f"detection.host.epochs={host.get('epochs')!r}: the number of epochs of full training.")
    if str(host.get("optimizer", "auto")).lower() == "auto":
        raise ConfigError(
            "detection.host.optimizer=auto picks by the number of iterations, which a shorter schedule changes. "
            "Set one, with lr0, such as optimizer: SGD and lr0: 0.01."
        )


def ratios_of(name: str, given: Any, seeds: list[int]) -> dict[float, list[int]]:
    """Return ratio -> seeds; `seeds` are those of ratios given as a list."""
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
