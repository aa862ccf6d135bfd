"""The command line of segmentation training, in OpenMMLab's grammar."""

import argparse
import os
from pathlib import Path
from typing import Any

from det_seg_agent.errors import ConfigError
from det_seg_agent.hosts.commands import guarded
from det_seg_agent.hosts.input_errors import check_folder, input_errors, tidied
from det_seg_agent.hosts.recipes import found
from det_seg_agent.seg.checks import check_config, use_amp


def arguments_parser() -> argparse.ArgumentParser:
    """Return the parser, with the options of mmseg's `tools/train.py`."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(
        prog="det-seg-agent train-seg",
        description="Train a segmenter on what the agent selects.",
        epilog="Settings of the agent: --cfg-options agent.ratio=0.5 agent.strategy=random",
    )
    parser.add_argument("config", help="an MMEngine config of yours, or a recipe's name (`det-seg-agent recipe`)")
    parser.add_argument("--work-dir", help="folder of the run; by default work_dirs/ and the config's name")
    parser.add_argument("--resume", action="store_true", help="go on from the latest checkpoint in the work dir")
    parser.add_argument("--amp", action="store_true", help="train with automatic mixed precision")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="override the config")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    return parser


def load_config(options: argparse.Namespace) -> Any:
    """Return the config of a run.

    Raises:
        ConfigError: if the config does not exist or cannot train with the agent.
    """
    from mmengine.config import Config

    from det_seg_agent.seg.heads import check_segmentor

    options.config = str(found(options.config))
    if not Path(options.config).is_file():
        raise ConfigError(f"config {options.config}: there is no such file.")
    with input_errors(f"config {options.config}", "mmengine", kinds=(Exception,)):
        config = Config.fromfile(options.config)
        if options.cfg_options:
            config.merge_from_dict(options.cfg_options)
    config.launcher = options.launcher
    if options.work_dir:
        config.work_dir = options.work_dir
    elif config.get("work_dir") is None:
        config.work_dir = str(Path("work_dirs") / Path(options.config).stem)
    if options.amp:
        use_amp(config)
    config.resume = options.resume
    check_config(config, options.config)
    check_segmentor(config.get("model") or {})
    check_folder("work_dir", Path(config.work_dir))
    return config


def train(options: argparse.Namespace) -> Any:
    """Train with the host's Runner and return it.

    Raises:
        ConfigError: if config or data are invalid.
    """
    from det_seg_agent.seg.compat import prepare_host

    prepare_host()
    config = load_config(options)
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from det_seg_agent.seg.hook import AgentHook

    runner: Any = None

    def begun() -> bool:
        hook = next((hook for hook in getattr(runner, "hooks", []) if isinstance(hook, AgentHook)), None)
        return hook is not None and hook.begun

    hosts = ("mmengine", "mmseg", "mmcv")
    with tidied(Path(config.work_dir), begun), input_errors(f"config {options.config}", *hosts, begun=begun):
        runner = Runner.from_cfg(config) if "runner_type" not in config else RUNNERS.build(config)
        runner.train()
    return runner


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 2 for invalid input, 130 after Ctrl-C."""

    def work() -> None:
        options = arguments_parser().parse_args(arguments)
        if options.launcher != "none":  # else what the process starts later would take itself for a rank
            os.environ.setdefault("LOCAL_RANK", str(options.local_rank))
        train(options)

    return guarded(work, "stopped; --resume goes on from the latest checkpoint in the work dir")
