"""`det-seg-agent score` for MMSegmentation: a full pass with trained weights and without training.

The Runner makes one epoch of `strategy=full` by our loop and hook; `ScoringOptimWrapper` takes no step and
`ScoringHook` has the model compute as in prediction.
"""

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from det_seg_agent.errors import ConfigError, shortened
from det_seg_agent.hosts.input_errors import check_folder, input_errors, one_line, tidied
from det_seg_agent.hosts.recipes import found
from det_seg_agent.messages import LOGGER
from det_seg_agent.seg.checkpoints import bare
from det_seg_agent.seg.checks import type_name
from det_seg_agent.seg.heads import check_segmentor, heads_of, seen_head
from det_seg_agent.seg.hook import AgentHook
from det_seg_agent.seg.scoring_config import check_options, leaves, set_pass
from det_seg_agent.seg.words import read_words

OWN_WORDS = ("weights", "data", "work_dir")  # the others are options of the config
HOSTS = ("mmengine", "mmseg", "mmcv")
ROOM = 40  # characters of a path in a message that has two of them
IGNORED = ("num_batches_tracked", "auxiliary_head.")  # parts of names of weights that no prediction depends on


@OPTIM_WRAPPERS.register_module()
class ScoringOptimWrapper(OptimWrapper):
    """An `OptimWrapper` that changes no weight: the forward pass makes no graph, and no step is taken."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute the losses without a graph, in the precision of the weights."""
        with torch.no_grad():
            yield

    def update_params(self, loss: Tensor, step_kwargs: Any = None, zero_kwargs: Any = None) -> None:
        """Do nothing."""


@HOOKS.register_module()
class ScoringHook(Hook):
    """Has the model compute its losses as in prediction, once the host has put it into training mode."""

    def before_train(self, runner: Any) -> None:
        """Say that nothing is trained, and by which steps images are loaded."""
        AgentHook.of(runner).run.report.trains = False
        steps = next(leaves(runner.cfg.train_dataloader.dataset))["pipeline"]
        LOGGER.info("nothing is trained; images are shown by %s", ", ".join(type_name(step["type"]) for step in steps))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the modes at the first batch of the epoch."""
        if batch_idx == 0:
            compute_as_in_prediction(bare(runner.model))


def compute_as_in_prediction(model: Any) -> None:
    """Put all of a segmentor into evaluation mode but the parts that give the outputs which its losses need.

    These are the segmentor, its backbone, neck and heads, and the seen `conv_seg`, themselves and not what is in them:
    `DDRNet` and `PIDNet` and their heads have outputs in training that the losses take, and `SignalTap` reads modules
    in training mode. Dropout, batch norm and moving averages are in modules of their own.
    """
    model.eval()
    parts = (model, model.backbone, getattr(model, "neck", None), *heads_of(model), seen_head(model).conv_seg)
    for part in parts:
        if part is not None:
            part.training = True


def read_weights(weights: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a checkpoint's weights by name.

    Raises:
        ConfigError: if there is no such file, or it is no checkpoint.
    """
    if not os.path.isfile(weights):
        raise ConfigError(f"weights={weights}: there is no such file; give trained weights (.pth).")
    remedy = "Give a checkpoint of an MMEngine training (.pth)."
    try:
        saved = CheckpointLoader.load_checkpoint(weights, map_location="cpu")
    except Exception as error:  # of a file that may hold anything
        said = one_line(error).split(". ")[0]
        raise ConfigError(f"weights={weights}: it is no checkpoint, or is cut short ({said}). {remedy}") from error
    state = saved.get("state_dict", saved) if isinstance(saved, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"weights={weights}: it holds no state_dict. {remedy}")
    return {
        key.removeprefix("module."): tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)
    }


def check_weights(weights: str, saved: Mapping[str, tuple[int, ...]], model: nn.Module, data: str) -> None:
    """Refuse weights that are not all of the model's; the host would leave out those that do not fit.

    Args:
        weights: file of the checkpoint, for messages.
        saved: see `read_weights`.
        model: the segmentor, not its distributed wrapper.
        data: name of the config, for messages.

    Raises:
        ConfigError: names the file, the first key that does not fit, and both shapes.
    """
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    keys = [key for key in dict.fromkeys((*wanted, *saved)) if wanted.get(key) != saved.get(key)]
    keys = [key for key in keys if not any(part in key for part in IGNORED)]
    if keys:
        first, given, name = keys[0], shortened(weights, ROOM), shortened(data, ROOM)
        there, wanted_ = saved.get(first, "missing"), wanted.get(first, "missing")
        raise ConfigError(
            f"weights={given} do not fit the model of data={name}: {first} is {there} in the weights and {wanted_} in "
            f"the model ({len(keys)} differ). Give the config that the weights were trained with."
        )


def folder_of(given: str | None, config: Path) -> Path:
    """Return the folder for the results: the one given, or work_dirs/NAME_score, _score2 and so on.

    Raises:
        ConfigError: if the given one holds files, or it cannot be written to.
    """
    if given:
        check_folder("work_dir", Path(given))
        if os.path.isdir(given) and (there := sorted(os.listdir(given))):
            raise ConfigError(
                f"work_dir={given}: it holds files already ({there[0]}), and a training's are not to be overwritten. "
                "Give a new folder."
            )
        return Path(given)
    names = (f"{config.stem}_score{number if number > 1 else ''}" for number in itertools.count(1))
    folder = next(path for path in (Path("work_dirs") / name for name in names) if not path.exists())
    check_folder("work_dir", folder)
    return folder


def score(words: list[str]) -> Any:
    """Score the training set of a config and return the Runner.

    Args:
        words: key=value: `weights`, `data` (the config), `work_dir`, and settings of the config as in `--cfg-options`.

    Raises:
        ConfigError: if weights, config, data or a setting are invalid.
    """
    own, options = read_words(words, OWN_WORDS)
    check_options(options)
    weights, data = own.get("weights", ""), own.get("data", "")
    path = Path(found(data))
    saved = read_weights(weights)
    if not path.is_file():
        raise ConfigError(f"data={data}: there is no such file; give an MMEngine config.")
    folder = folder_of(own.get("work_dir"), path)
    with input_errors(f"data={data}", *HOSTS, kinds=(Exception,)):
        config = Config.fromfile(str(path))
        if options:
            config.merge_from_dict(options)
    set_pass(config, data, weights, str(folder))
    check_segmentor(config.model)
    with tidied(folder, lambda: False), input_errors(f"data={data}", *HOSTS):
        runner = Runner.from_cfg(config)
        check_weights(weights, saved, bare(runner.model), data)
        runner.train()
    return runner


def main(words: list[str]) -> int:
    """Score, and say where the rows are."""
    print(f"{score(words).work_dir} has samples.csv and data.html")
    return 0
