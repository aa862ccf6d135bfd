"""How the selection of a pass is chosen: the strategy of the settings, and what it knows before the first pass.

`Selector` uses it; on rank 0 alone for selections.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from det_seg_agent.earlier import earlier
from det_seg_agent.errors import ConfigError
from det_seg_agent.fingerprint import unpacked
from det_seg_agent.messages import LOGGER
from det_seg_agent.schedule import is_full
from det_seg_agent.settings import Settings
from det_seg_agent.strategies import Request, Selection, Strategy
from det_seg_agent.strategies.base import check_selection
from det_seg_agent.table import ScoreTable


def strategy_of(
    cls: type[Strategy], options: Any, settings: Settings, table: ScoreTable, applies_weights: bool
) -> Strategy:
    """Return the run's strategy, which scales no losses where the training loop does not.

    Args:
        cls: the strategy's class.
        options: its options in force, see `resolve`.
        settings: those of the run.
        table: the run's score table.
        applies_weights: whether the training loop scales losses.

    Raises:
        ConfigError: if the strategy cannot do without scaled losses, and the loop does not scale them.
    """
    strategy = cls(table, settings.seed or 0, options)
    if strategy.weighs and not applies_weights:
        if strategy.needs_weights:
            raise ConfigError(
                f"agent.strategy={settings.strategy!r} with these settings scales the losses of samples. "
                "Multiply each by `selector.weights_of(index)` and pass applies_weights=True, or take another "
                "strategy."
            )
        strategy.weighs = False
    return strategy


def read_classes(strategy: Strategy, table: ScoreTable) -> None:
    """Read the samples' classes before the first pass if the strategy does: errors in reading come early.

    A strategy that can do without them goes without if they cannot be read; a warning says so.
    """
    if table.classes is None or not (strategy.needs_classes or strategy.uses_classes):
        return
    try:
        table.classes.read_shares(len(table))
    except Exception as error:
        if strategy.needs_classes:
            raise
        table.classes = None
        LOGGER.warning(f"det_seg_agent: the samples' classes cannot be read; the strategy goes without. {error}")


def start_from(run: str, strategy: Strategy, table: ScoreTable, samples: Tensor | None, total_passes: int) -> None:
    """Take over what an earlier run knew of the samples.

    Args:
        run: folder of the earlier run.
        strategy: learns from it, unless it needs features, which an earlier run does not leave.
        table: the run's score table, which starts with its values.
        samples: image files of this run's samples, from `packed`; None if they are not known.
        total_passes: number of passes in this run.

    Raises:
        ConfigError: if the samples are not known, or for a folder that is of no such run.
    """
    if samples is None:
        raise ConfigError(f"agent.init={run}: this loop does not tell its image files; pass `samples` to `Selector`.")
    signals, score = earlier(Path(run), unpacked(samples))
    table.start(signals, score)
    if strategy.feature_dim == 0:  # an earlier run leaves no features
        strategy.observe(signals, 0, total_passes)


def choose(strategy: Strategy, settings: Settings, total: int, pass_index: int, total_passes: int) -> Selection:
    """Return the selection of pass `pass_index` (from 0) of `total` samples: all, or what the strategy selects.

    Raises:
        ConfigError: for a selection that is not valid, as of a strategy of one's own.
    """
    ratio = 1.0 if strategy.selects_all else settings.ratio_at(pass_index, total_passes)
    if is_full(ratio):
        selection = Selection(torch.arange(total), strategy.full_weights())
    else:
        count = settings.count_at(pass_index, total_passes, total)
        selection = strategy.select(Request(pass_index, total_passes, count, ratio))
    check_selection(selection, total, f"{type(strategy).__name__}: pass {pass_index + 1}", strategy.repeats)
    return selection
