"""Checks of a trainer's arguments before anything trains. `hf.run` calls them."""

from collections.abc import Mapping
from typing import Any

from torch.utils.data import IterableDataset

from det_seg_agent.errors import ConfigError
from det_seg_agent.hf.heads import head_of, kind_of
from det_seg_agent.hf.settings import HfSettings
from det_seg_agent.settings import parse
from det_seg_agent.strategies import resolve


def settings_of(agent: Any) -> HfSettings:
    """Return the settings of a run.

    Raises:
        ConfigError: if any is invalid.
    """
    given = {} if agent is None else agent
    if not isinstance(given, Mapping):
        raise ConfigError(f"agent={given!r} is not a dict; write agent={{'strategy': 'agent', 'ratio': 0.6}}.")
    settings = parse(HfSettings, given, "agent.")
    resolve(settings)
    return settings


def check_data(dataset: Any) -> None:
    """Refuse a training set that has no length or no indices.

    Raises:
        ConfigError: names the remedy.
    """
    if dataset is None:
        raise ConfigError("train_dataset is missing; give a data set with __len__ and __getitem__.")
    name = type(dataset).__name__
    if isinstance(dataset, IterableDataset) or (not hasattr(dataset, "__getitem__") and hasattr(dataset, "__iter__")):
        raise ConfigError(
            f"train_dataset={name}: it is read in one order only, and selections need samples by index. Give a data "
            "set with __len__ and __getitem__ (with datasets: streaming=False)."
        )
    try:
        length = len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise ConfigError(f"train_dataset={name}: it has no length. Give it a __len__.") from error
    if length < 1:
        raise ConfigError(f"train_dataset={name}: it has no samples; check the path of the data.")


def check_host(trainer: Any) -> None:
    """Refuse what keeps signals from being read, or batches from being known, with any strategy.

    Raises:
        ConfigError: names the argument, its value and the remedy.
    """
    args = trainer.args
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled or trainer.is_fsdp_xla_enabled:
        name = "deepspeed" if trainer.is_deepspeed_enabled else "fsdp"
        raise ConfigError(
            f"{name}: the host splits the model by it, which was not tried. Train with DDP (torchrun) or on one GPU."
        )
    if args.parallelism_config is not None:
        raise ConfigError(
            "parallelism_config: tensor, context and sequence parallelism split the samples. Leave it out; train with "
            "DDP (torchrun) or on one GPU."
        )
    if args.n_gpu > 1:
        raise ConfigError(
            f"{args.n_gpu} GPUs are visible to one process, and the host would copy the model to each. Start with "
            f"torchrun --nproc_per_node {args.n_gpu}, or set CUDA_VISIBLE_DEVICES=0."
        )
    for name in ("torch_compile", "use_liger_kernel", "auto_find_batch_size"):
        if getattr(args, name, False):
            raise ConfigError(f"{name}=True: {WHY[name]}. Set {name}=False.")
    head_of(trainer.model, kind_of(trainer.model), trainer.agent_settings.head)


WHY = {
    "torch_compile": "compiled models do not call the hook that reads the features",
    "use_liger_kernel": "its loss makes no logits, and so there are no signals",
    "auto_find_batch_size": "the length of the run follows from the batch size, which it changes",
}


def check_selecting(trainer: Any) -> None:
    """Refuse what would train on other samples than those selected.

    Raises:
        ConfigError: names the argument, its value and the remedy.
    """
    args = trainer.args
    strategy = getattr(args, "train_sampling_strategy", "random")
    if getattr(args, "group_by_length", False) or strategy not in ("random", "sequential"):
        raise ConfigError(
            f"train_sampling_strategy={str(strategy)!r}: it orders samples by itself, not by a selection. Set 'random' "
            "or 'sequential', or take agent strategy 'full'."
        )
    if args.dataloader_drop_last:
        raise ConfigError(
            "dataloader_drop_last=True: samples that are selected would be left out. Set it to False, or take agent "
            "strategy 'full'."
        )
    config = args.accelerator_config
    for name, wrong in (("split_batches", True), ("dispatch_batches", True), ("even_batches", False)):
        if getattr(config, name) is wrong:
            raise ConfigError(
                f"accelerator_config.{name}={wrong}: batches would not be those of the selection. Set it to "
                f"{not wrong}, or take agent strategy 'full'."
            )


def check_resume(args: Any, saved: Mapping[str, Any], layout: Mapping[str, int]) -> None:
    """Refuse to resume with other batches.

    Raises:
        ConfigError: names what has changed.
    """
    if args.ignore_data_skip:
        raise ConfigError(
            "ignore_data_skip=True: the pass would begin again, and some samples be trained on twice. Set it to False."
        )
    for key, then in saved.items():
        if layout[key] != then:
            raise ConfigError(
                f"the run was started with {key}={then}, this one has {key}={layout[key]}, so that its passes would "
                f"not be walked as they were begun. Resume with {key}={then}."
            )
