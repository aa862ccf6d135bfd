"""`det-seg-agent evaluate` for Ultralytics: judge the weights of a finished run again, also on another set."""

import os
from pathlib import Path
from typing import Any

from det_seg_agent.det.arguments import parse_arguments
from det_seg_agent.det.coco_convert import prepare_data
from det_seg_agent.det.compat import load_yaml
from det_seg_agent.det.judge import RESULT, TASKS, figures_text, validate
from det_seg_agent.det.judge import evaluate as judged
from det_seg_agent.errors import ConfigError
from det_seg_agent.files import write_json
from det_seg_agent.hosts.input_errors import input_errors

# Settings of the run that its judging takes over, as the host's own final validation does.
KEPT = ("data", "imgsz", "batch", "device", "classes", "single_cls", "max_det", "workers", "rect", "overlap_mask")


def evaluate_run(folder: Path, words: list[str]) -> dict[str, Any]:
    """Judge a run and return what `evaluation.json` then holds.

    Args:
        folder: folder of the run.
        words: key=value, settings of the host's validation, `weights` and `agent.val_json`.

    Raises:
        ConfigError: if run, weights, data or a setting are invalid.
    """
    chosen = [word.partition("=")[2] for word in words if word.startswith("weights=")]
    host, agent = parse_arguments([word for word in words if not word.startswith("weights=")])
    if unknown := agent.keys() - {"val_json"}:
        raise ConfigError(f"agent.{sorted(unknown)[0]}: evaluate takes agent.val_json alone.")
    best, last = folder / "weights/best.pt", folder / "weights/last.pt"
    weights = Path(chosen[-1]) if chosen else best if best.is_file() else last
    if not weights.is_file():
        raise ConfigError(f"weights={weights}: there is no such file; give one of the run's checkpoints.")
    given = load_yaml(folder / "args.yaml") if (folder / "args.yaml").is_file() else {}
    settings = {**{key: given[key] for key in KEPT if given.get(key) is not None}, **host}
    data, task = settings.pop("data", None), settings.pop("task", None) or given.get("task", "detect")
    if data is None:
        raise ConfigError(f"data= is missing, and {folder} has no args.yaml that names it; give the data.")
    if os.path.isdir(str(data)) and task in TASKS:
        data = prepare_data(str(data), segments=task == "segment")
    chosen_json = agent.get("val_json")
    with input_errors(f"evaluate {folder}", "ultralytics"):
        if task in TASKS:
            path = Path(chosen_json) if chosen_json else None
            figures = {RESULT[kind]: values for kind, values in judged(weights, str(data), path, **settings).items()}
        elif chosen_json:
            raise ConfigError(f"agent.val_json={chosen_json}: task={task} is judged by the host alone; drop it.")
        else:
            found = validate(weights, str(data), keeps=False, **settings).metrics.results_dict
            figures = {"host": {key: float(value) for key, value in found.items() if key != "fitness"}}
    result = {"weights": str(weights), "data": str(data), **figures}
    write_json(folder / "evaluation.json", result)
    return result


def main(words: list[str]) -> int:
    """Judge the run `words[0]` and print the figures."""
    result = evaluate_run(Path(words[0]), words[1:])
    print(figures_text(result))
    print(f"{result['weights']} on {result['data']}")
    return 0
