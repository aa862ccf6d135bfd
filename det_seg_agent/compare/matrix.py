"""Expansion of the YAML of a comparison into cells. `compare.cli` uses it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from det_seg_agent.compare.cells import BY_EPOCHS, CONTROLS, FULL, SHORT, Cell, epochs_around
from det_seg_agent.compare.report import check
from det_seg_agent.compare.spec import (
    Block,
    Comparison,
    Detection,
    HuggingFace,
    Segmentation,
    check_detection,
    check_epochs,
    check_host,
    check_scenes,
    data_of,
    entry_of,
    mapping,
    ratios_of,
    schedule_of,
)
from det_seg_agent.errors import ConfigError
from det_seg_agent.hosts.recipes import found
from det_seg_agent.settings import Settings, parse

RATIOS = ("schedule", "low", "high", "period")  # settings that have no effect on a rule with its own budget


def read(path: Path, data: str | None = None) -> tuple[Comparison, list[Cell]]:
    """Return a comparison and its cells, in the order in which they run.

    Cells are sorted by seed, so that an interrupted matrix still allows comparisons.

    Args:
        path: path of the YAML.
        data: data for blocks that name none.

    Raises:
        ConfigError: if the file cannot be read or settings are invalid.
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
    for task in ("classification", "instruction"):
        if (given := getattr(comparison, task)) is not None:
            cells += expand(task, parse(HuggingFace, given, f"{task}."), path.parent, data)
    if not cells:
        raise ConfigError(
            f"{path}: detection:, segmentation:, classification: or instruction: is needed, or several of them."
        )
    for task in dict.fromkeys(cell.task for cell in cells):
        check(comparison.report(task), task, cells)
    return comparison, sorted(cells, key=lambda cell: cell.seed)


def expand(task: str, block: Block, folder: Path, data: str | None) -> list[Cell]:
    """Return the cells of a block: its strategies and all controls.

    Args:
        task: detection, segmentation, classification or instruction.
        block: settings of the task.
        folder: folder of the YAML.
        data: data if the block names none.

    Raises:
        ConfigError: if settings are invalid.
    """
    shared: dict[str, Any] = {"task": task, "host": dict(block.host), "data": data_of(task, block, data)}
    check_host(task, block.host)
    if shared["data"] == "scenes":
        check_scenes(task, block.scenes)
        shared["scenes"] = dict(block.scenes)
    if isinstance(block, HuggingFace):
        check_epochs(task, block.host)
        if shared["data"] == "scenes":
            raise ConfigError(f"{task}.data=scenes: the embedded scenes have no classes of images; give a path.")
        recipe = folder / block.config
        shared.update(config=str((recipe if recipe.is_file() else found(block.config)).resolve()))
        if not Path(shared["config"]).is_file():
            raise ConfigError(f"{task}.config={block.config}: there is no such file beside the YAML, and no recipe.")
    elif isinstance(block, Segmentation):
        config = (folder / block.config).resolve()
        if not config.is_file():
            raise ConfigError(f"segmentation.config={block.config}: there is no such file beside the YAML.")
        shared.update(config=str(config), iterations=block.iterations)
    else:
        check_detection(block.host)
        model = folder / str(block.host.get("model", ""))
        if model.is_file():  # a YAML of its own, relative to the comparison's
            shared["host"]["model"] = str(model.resolve())
    given = [entry_of(task, strategy, block) for strategy in block.strategies]
    labels = [entry.label for entry in given]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise ConfigError(f"{task}.strategies: {sorted(twice)} twice; give one of them another label.")
    entries = [entry_of(task, control, block) for control in CONTROLS if control not in labels] + given
    wanted = [entry.seeds_of for entry in given if entry.label not in CONTROLS]
    wanted = wanted or [ratios_of(f"{task}.ratios", block.ratios, block.seeds)]
    cells = []
    for seed in sorted({seed for seeds_of in wanted for seeds in seeds_of.values() for seed in seeds}):
        cells.append(Cell(role="full", label=FULL, ratio=1.0, seed=seed, agent={"strategy": FULL}, **shared))
        for entry in entries:
            if entry.native and any(seed in seeds for seeds in entry.seeds_of.values()):
                agent = {k: v for k, v in entry.agent.items() if k not in RATIOS}
                cells.append(Cell(role="native", label=entry.label, ratio=1.0, seed=seed, agent=agent, **shared))
        for ratio in dict.fromkeys(r for seeds_of in wanted for r, seeds in seeds_of.items() if seed in seeds):
            agent = schedule_of(block) | {"strategy": FULL}
            cells += shorter_cells(Cell(role="short", label=SHORT, ratio=ratio, seed=seed, agent=agent, **shared))
            for entry in entries:
                if entry.native or (entry.label not in CONTROLS and seed not in entry.seeds_of.get(ratio, ())):
                    continue
                agent = {**entry.agent, "ratio": ratio}
                parse(Settings, agent, f"{task}.agent.")
                cells.append(Cell(role="selection", label=entry.label, ratio=ratio, seed=seed, agent=agent, **shared))
    return cells


def shorter_cells(cell: Cell) -> list[Cell]:
    """Return the shorter schedule of a ratio and seed; possibly two, where there are only whole epochs."""
    if cell.task not in BY_EPOCHS:
        return [cell]
    return [replace(cell, epochs=epochs) for epochs in epochs_around(int(cell.host["epochs"]), cell.budget)]
