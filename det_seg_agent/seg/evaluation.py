"""`det-seg-agent evaluate` for MMSegmentation: judge the weights of a finished run again, also on another set."""

from pathlib import Path
from typing import Any

from det_seg_agent.errors import ConfigError
from det_seg_agent.files import write_json
from det_seg_agent.hosts.input_errors import input_errors
from det_seg_agent.seg.compat import prepare_host
from det_seg_agent.seg.words import read_words


def weights_of(folder: Path) -> Path:
    """Return the best checkpoint of a run, or else the last.

    Raises:
        ConfigError: if there is none.
    """
    from mmengine.runner import find_latest_checkpoint

    best = sorted(folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime)
    last = find_latest_checkpoint(str(folder))
    if not (best or last):
        raise ConfigError(f"evaluate {folder}: it has no checkpoint; give weights=FILE.pth.")
    return best[-1] if best else Path(last)


def config_of(folder: Path) -> Path:
    """Return the config that the host wrote to a run's folder.

    Raises:
        ConfigError: if there is not exactly one.
    """
    found = sorted(folder.glob("*.py"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ConfigError(f"evaluate {folder}: one config is needed and there are: {names}; give config=FILE.py.")
    return found[0]


def evaluate_run(folder: Path, words: list[str]) -> dict[str, Any]:
    """Judge a run by its `test_dataloader` and `test_evaluator`; return what `evaluation.json` then holds.

    Args:
        folder: folder of the run.
        words: key=value, settings of the config as in `--cfg-options`, `weights` and `config`.

    Raises:
        ConfigError: if run, weights, config or data are invalid.
    """
    prepare_host()
    from mmengine.config import Config
    from mmengine.runner import Runner

    own, options = read_words(words, ("weights", "config"))
    weights, path = Path(own.get("weights") or weights_of(folder)), Path(own.get("config") or config_of(folder))
    for key, file in (("weights", weights), ("config", path)):
        if not file.is_file():
            raise ConfigError(f"{key}={file}: there is no such file.")
    with input_errors(f"evaluate {folder}", "mmengine", "mmseg", "mmcv", kinds=(Exception,)):
        config = Config.fromfile(str(path))
        if options:
            config.merge_from_dict(options)
        for key in ("test_dataloader", "test_evaluator", "test_cfg"):
            if config.get(key) is None:
                raise ConfigError(f"evaluate {folder}: the config has no {key}.")
        config.load_from, config.resume, config.launcher = str(weights), False, "none"
        config.work_dir = str(folder / "evaluation")
        config.custom_hooks, config.train_dataloader, config.train_cfg = [], None, None
        config.optim_wrapper, config.param_scheduler = None, None
        config.experiment_name = f"evaluation_{abs(hash(str(folder)))}"  # the host keeps runners by name
        figures = {key: float(value) for key, value in Runner.from_cfg(config).test().items()}
    result = {"weights": str(weights), "config": str(path), "metrics": figures}
    write_json(folder / "evaluation.json", result)
    return result


def main(words: list[str]) -> int:
    """Judge the run `words[0]` and print the figures."""
    result = evaluate_run(Path(words[0]), words[1:])
    print("\n".join(f"  {key:<28}{value:8.2f}" for key, value in result["metrics"].items()))
    print(result["weights"])
    return 0
