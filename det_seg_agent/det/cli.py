"""The command line of detection training: `yolo train` with our settings, then evaluation of the best weights."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from det_seg_agent.det.arguments import parse_arguments
from det_seg_agent.errors import ConfigError
from det_seg_agent.hosts.commands import guarded
from det_seg_agent.hosts.input_errors import check_folder, input_errors, tidied
from det_seg_agent.settings import parse

USAGE = """usage: det-seg-agent train-det [--config FILE.yaml] key=value ...

Every word of `yolo train` works and means the same (model=yolov8n.yaml data=coco.yaml epochs=100 imgsz=640 exist_ok
cfg=FILE.yaml ...; `yolo cfg` lists them); ours are under agent. (agent.strategy=agent agent.ratio=0.6
agent.schedule=oscillating agent.options.lr=0.001 ...), and as a mapping under agent: in a FILE.yaml.
The model decides the task: detect, segment, pose, obb, classify, semantic. data= takes what the host's does, or the
folder of an MS-COCO download (detect, segment, semantic). resume=PATH/last.pt goes on with a run."""

FOLDER_TASKS = ("detect", "segment", "semantic")  # tasks that instances_*.json has the labels for


def load_model(host: dict[str, Any]) -> Any:
    """Build the host's model; removes `model` and `task` from `host`. Both default as in `yolo`.

    Raises:
        ConfigError: if the model or the checkpoint to resume does not exist, or the task is unknown.
    """
    from ultralytics import RTDETR, YOLO
    from ultralytics.cfg import TASK2MODEL

    from det_seg_agent.det.messages import LOGGER

    resume = host.get("resume")
    if resume and not isinstance(resume, str):
        host["resume"] = resume = host.get("model")
        if not resume:
            raise ConfigError("resume=true needs model=PATH/weights/last.pt of the run, or give resume=PATH.")
    if resume and not os.path.isfile(resume):
        raise ConfigError(f"resume={resume}: there is no such file; give PATH/weights/last.pt of a stopped run.")
    task, model = host.pop("task", None), host.pop("model", None)
    if task not in (None, *TASK2MODEL):
        raise ConfigError(f"task={task} is not known. Valid: {', '.join(TASK2MODEL)}; or drop task.")
    name = str(resume or model or TASK2MODEL[task or "detect"])
    if not (resume or model):
        LOGGER.warning(f"model= is missing; the default is {name}.")
    remedy = "" if os.path.exists(name) else "Give a model YAML or a checkpoint that is there."
    if task is not None:
        remedy = f"Give a model for task={task}, or drop task."
    with input_errors(f"model={name}", "ultralytics", remedy=remedy):
        loaded = RTDETR(name) if "rtdetr" in Path(name).stem.lower() else YOLO(name, task=task)
    if task not in (None, loaded.task):
        LOGGER.warning(f"task={task} is ignored: the model {name} is for {loaded.task}.")
    return loaded


def train(
    host: dict[str, Any],
    agent: dict[str, Any],
    callbacks: Mapping[str, Callable[[Any], None]] | None = None,
    judged: Literal["best", "last"] = "best",
) -> dict[str, Any]:
    """Train, evaluate the best or the last weights, and return the content of `metrics.json`.

    Boxes and masks are evaluated by pycocotools, other tasks by the host's validator.

    Args:
        host: the host's settings.
        agent: our settings.
        callbacks: host callbacks, from event to a function of the trainer.
        judged: which weights to evaluate; "last" means the EMA weights of the last epoch.

    Raises:
        ConfigError: if settings, data or model are invalid.
    """
    from ultralytics.utils import RANK

    from det_seg_agent.det.coco_convert import prepare_data
    from det_seg_agent.det.instances import read_coco
    from det_seg_agent.det.judge import conclude, prepare
    from det_seg_agent.det.settings import DetSettings
    from det_seg_agent.det.trainers import trainer_for
    from det_seg_agent.strategies import resolve

    settings = parse(DetSettings, agent, "agent.")
    resolve(settings)
    data = host.get("data")
    if data is None and not host.get("resume"):
        raise ConfigError("data= is missing; give an Ultralytics YAML or the folder of an MS-COCO download.")
    if isinstance(data, (list, tuple)):
        raise ConfigError(f"data={data}: a run has one data set; start one for each.")
    if data is not None:
        data = host["data"] = str(data)  # a folder's name may be a number
    if settings.val_json is not None:
        read_coco(Path(settings.val_json))
    model = load_model(host)
    trainer_class = trainer_for(model)
    if trainer_class.task != model.task:
        raise ConfigError(
            f"task={model.task}: the model is for {trainer_class.task}. Give one of the task, or drop task."
        )
    is_folder = os.path.isdir(data or "")  # not Path.is_dir: it raises for a name that is too long
    if is_folder and model.task in FOLDER_TASKS:
        host["data"] = prepare_data(str(data), segments=model.task != "detect")
    elif is_folder and model.task != "classify":
        raise ConfigError(f"data={data}: a folder is no data for task={model.task}; give a data YAML of the task.")
    folder = check_host(host, model.task)
    for event, function in (callbacks or {}).items():
        model.add_callback(event, function)
    model.add_callback("on_pretrain_routine_end", lambda trainer: prepare(trainer, settings.val_json))
    started = time.time()

    def begun() -> bool:
        return has_begun(model)

    with tidied(folder, begun), input_errors("ultralytics", "ultralytics", begun=begun):
        model.train(
            trainer=trainer_class.configured(**agent) if agent else trainer_class,
            **{k: v for k, v in host.items() if k not in ("model", "mode")},
        )
    trainer = model.trainer
    if RANK not in {-1, 0} or trainer.selector is None:
        return {}
    return conclude(trainer, time.time() - started, judged)


def check_host(host: dict[str, Any], task: str) -> Path:
    """Let the host check its arguments and the data YAML; its trainer would do so only after creating the folder.

    Returns:
        The run's folder.

    Raises:
        ConfigError: if the host refuses its arguments, or the folder cannot be created or contains another run.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.utils import RANK

    from det_seg_agent.det.compat import run_folder

    with input_errors("ultralytics", "ultralytics"):
        args = get_cfg(overrides={**host, "task": task})
        folder = run_folder(args)
    if host.get("resume"):
        return Path(host["resume"]).parent
    data = str(host["data"])
    if task != "classify" and data.endswith((".yaml", ".yml")):
        with input_errors(f"data={data}", "ultralytics", remedy="Give an Ultralytics data YAML or a COCO folder."):
            check_det_dataset(data)
    check_folder("save_dir" if args.get("save_dir") else "project", folder)
    # A run's args.yaml contains its save_dir: training with cfg= that file would overwrite the run.
    if args.get("save_dir") and not args.exist_ok and RANK in {-1, 0} and (folder / "args.yaml").exists():
        raise ConfigError(f"save_dir={folder} holds a run; give another, or exist_ok=True to write over it.")
    return folder


def has_begun(model: Any) -> bool:
    """Return whether training has reached its first pass, or runs in child processes."""
    trainer = getattr(model, "trainer", None)
    selector = getattr(trainer, "selector", None)
    if getattr(trainer, "ddp", False):
        return True  # files of child processes must not be removed
    return selector is not None and selector.pass_index >= 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 2 for invalid input, 130 after Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or {"-h", "--help", "help"} & set(words):
        print(USAGE)
        return 0

    def work() -> None:
        train(*parse_arguments(words))

    return guarded(work, "stopped; resume=RUN/weights/last.pt goes on from the last whole epoch")
