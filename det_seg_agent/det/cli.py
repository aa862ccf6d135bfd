"""The command line: the grammar of `yolo train`, with our settings under `agent.`."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from det_seg_agent.cli import check_folder, guarded, input_errors, tidied
from det_seg_agent.errors import ConfigError
from det_seg_agent.settings import parse, unknown_key

USAGE = """usage: train_det.py [--config FILE.yaml] key=value ...

Every key of `yolo train` works (model=yolov8n.yaml data=coco.yaml epochs=100 imgsz=640 ...); ours are under
agent. (agent.strategy=agent agent.ratio=0.6 agent.schedule=oscillating agent.options.lr=0.001 ...).
The model decides the task: detect, segment, pose, obb, classify, semantic. data= takes what the host's does, or the
folder of an MS-COCO download (detect, segment, semantic). resume=PATH/last.pt goes on with a run."""

TASKS = ("detect", "segment", "pose", "obb", "classify", "semantic")
FOLDER_TASKS = ("detect", "segment", "semantic")  # those that the labels of instances_*.json are enough for


def parse_arguments(arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (host arguments, agent settings) of a command line; later ones win over the config file.

    Raises:
        ConfigError: for a word that is not key=value, an unknown key, or an unreadable config.
    """
    merged: dict[str, Any] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--config" or word.startswith("--config="):
            path = word.partition("=")[2] or (words.pop(0) if words else "")
            merged.update(read_config(path))
            continue
        if word == "train":
            continue
        if word in TASKS:
            word = f"task={word}"
        if word == "resume":
            word = "resume=true"
        key, sign, text = word.partition("=")
        if not sign or not key or text == "":
            raise ConfigError(f"{word!r} is not key=value, such as epochs=100.\n{USAGE}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)  # YAML reads 1e-3 as text
        merged[key] = value
    return split(merged)


def read_config(path: str) -> dict[str, Any]:
    """Return the flat keys of a YAML recipe; an `agent:` block becomes `agent.` keys."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path}: a mapping of keys to values is needed.")
    agent = content.pop("agent", {}) or {}
    if not isinstance(agent, dict):
        raise ConfigError(f"--config {path}: agent={agent!r} is not a mapping; write agent: {{ratio: 0.6}}.")
    return {**content, **{f"agent.{key}": value for key, value in agent.items()}}


def split(merged: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split flat keys into the host's and ours, and check the names of both."""
    from ultralytics.cfg import DEFAULT_CFG_DICT

    host: dict[str, Any] = {}
    agent: dict[str, Any] = {}
    for key, value in merged.items():
        if key.startswith("agent.options."):
            agent.setdefault("options", {})[key.removeprefix("agent.options.")] = value
        elif key.startswith("agent."):
            agent[key.removeprefix("agent.")] = value
        elif key in DEFAULT_CFG_DICT:
            host[key] = value
        else:
            raise ConfigError(unknown_key(key, [*DEFAULT_CFG_DICT, "agent.ratio", "agent.strategy"]))
    return host, agent


def load_model(host: dict[str, Any]) -> Any:
    """Return the host's model for its arguments, and take `model` and `task` out of them.

    Raises:
        ConfigError: for a model of another task than the one asked for, or a resume without a checkpoint.
    """
    from ultralytics import RTDETR, YOLO

    resume = host.get("resume")
    if resume and not isinstance(resume, str):
        host["resume"] = resume = host.get("model")
        if not resume:
            raise ConfigError("resume=true needs model=PATH/weights/last.pt of the run, or give resume=PATH.")
    if resume and not Path(resume).is_file():
        raise ConfigError(f"resume={resume}: there is no such file; give PATH/weights/last.pt of a stopped run.")
    name = str(resume or host.pop("model", "yolov8n.yaml"))
    with input_errors(f"model={name}", "ultralytics"):
        model = RTDETR(name) if "rtdetr" in Path(name).stem.lower() else YOLO(name)  # as the host's command line
    task = host.pop("task", model.task)
    if task != model.task:
        raise ConfigError(f"task={task}: the model {name} is for {model.task}. Give a model of the task, or drop task.")
    return model


def train(
    host: dict[str, Any],
    agent: dict[str, Any],
    callbacks: Mapping[str, Callable[[Any], None]] | None = None,
    judged: Literal["best", "last"] = "best",
) -> dict[str, Any]:
    """Train, judge the best or the last weights, and return what `metrics.json` holds.

    Boxes and masks are judged by pycocotools, the rest by the host's own validator.

    Args:
        host: settings of the host.
        agent: settings of ours.
        callbacks: of the host, event -> function of the trainer.
        judged: the weights that are judged; of the last epoch those of the moving average.

    Raises:
        ConfigError: for settings, data or models that cannot work.
    """
    from ultralytics.utils import RANK, YAML

    from det_seg_agent.det.convert import prepare_data, read_json
    from det_seg_agent.det.settings import DetSettings
    from det_seg_agent.det.trainers import trainer_for
    from det_seg_agent.strategies import strategy_class

    settings = parse(DetSettings, agent, "agent.")
    parse(strategy_class(settings.strategy).Options, settings.options, "agent.options.")
    data = host.get("data")
    if data is None and not host.get("resume"):
        raise ConfigError("data= is missing; give an Ultralytics YAML or the folder of an MS-COCO download.")
    if settings.val_json is not None:
        read_json(Path(settings.val_json))
    model = load_model(host)
    trainer_class = trainer_for(model)
    if data is not None and model.task in FOLDER_TASKS:
        host["data"] = str(prepare_data(data, segments=model.task != "detect"))
    elif data is not None and model.task != "classify" and Path(data).is_dir():
        raise ConfigError(f"data={data}: a folder is no data for task={model.task}; give a data YAML of the task.")
    folder = check_host(host, model.task)
    for event, function in (callbacks or {}).items():
        model.add_callback(event, function)
    started = time.time()

    def begun() -> bool:
        return has_begun(model)

    with tidied(folder, begun), input_errors("ultralytics", "ultralytics", begun=begun):
        model.train(
            trainer=trainer_class.configured(**agent) if agent else trainer_class,
            **{k: v for k, v in host.items() if k not in ("model", "mode")},
        )
    trainer = model.trainer
    wall = time.time() - started
    if RANK not in {-1, 0} or trainer.selector is None or not trainer.best.exists():
        return {}
    YAML.save(trainer.save_dir / "agent.yaml", trainer.agent_settings.model_dump())
    result = {**judge(trainer, settings.val_json, getattr(trainer, judged)), **trainer.report.result(wall)}
    print(trainer.report.closing(wall))
    trainer.report.write_metrics(result)
    return result


def judge(trainer: Any, val_json: str | None, weights: Path | None = None) -> dict[str, Any]:
    """Return figures of weights, by default the best: `coco` (boxes), `coco_segm` (masks) or `host`, and `judged_on`.

    Of several processes rank 0 calls it alone, and the host's validator would wait for the others: the figures are
    those that all of them came to at the end.
    """
    from ultralytics.utils import RANK

    from det_seg_agent.det.coco import evaluate_kinds, find_val_json, format_table

    args = trainer.args
    if args.task not in ("detect", "segment") or RANK != -1:
        ours = trainer.report.scalars()
        figures = {key: float(value) for key, value in trainer.metrics.items() if key not in ours}
        print("\n" + "\n".join(f"  {key:<28}{value:8.4f}" for key, value in figures.items()))
        return {"host": figures, "judged_on": "the validation set, by the host's own validator"}
    found = val_json or trainer.agent_settings.val_json or find_val_json(trainer.data)
    judged = evaluate_kinds(
        weights or trainer.best,
        str(args.data),
        Path(found) if found else None,
        imgsz=args.imgsz,
        batch=args.batch,
        device=args.device,
        workers=args.workers,
        single_cls=args.single_cls,
    )
    for kind, figures in judged.items():
        print("\n" + format_table(figures, kind))
    names = {"bbox": "coco", "segm": "coco_segm"}
    judged_on = str(found) if found else "the labels of the validation set"
    return {**{names[kind]: figures for kind, figures in judged.items()}, "judged_on": judged_on}


def check_host(host: dict[str, Any], task: str) -> Path:
    """Have the host check its arguments and the data YAML, which its trainer does once it has made the run's folder.

    Returns:
        The run's folder.

    Raises:
        ConfigError: for what the host refuses, or a folder that cannot be made.
    """
    from ultralytics.cfg import get_cfg, get_save_dir
    from ultralytics.data.utils import check_det_dataset

    with input_errors("ultralytics", "ultralytics"):
        args = get_cfg(overrides={**host, "task": task})
        folder = Path(get_save_dir(args))
    if host.get("resume"):
        return Path(host["resume"]).parent
    data = str(host["data"])
    if task != "classify" and data.endswith((".yaml", ".yml")):
        with input_errors(f"data={data}", "ultralytics", remedy="Give an Ultralytics data YAML or a COCO folder."):
            check_det_dataset(data)
    check_folder("project", folder)
    return folder


def has_begun(model: Any) -> bool:
    """Return whether a model's training has come to its first pass, or is that of other processes."""
    trainer = getattr(model, "trainer", None)
    selector = getattr(trainer, "selector", None)
    if getattr(trainer, "ddp", False):
        return True  # what they leave is not ours to tidy
    return selector is not None and selector.pass_index >= 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 2 for input that cannot work, 130 after Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0

    def work() -> None:
        train(*parse_arguments(words))

    return guarded(work, "stopped; resume=RUN/weights/last.pt goes on from the last whole epoch")
