"""Evaluation of a run: COCO metrics of its final validation by pycocotools. The command line and `compare` use it."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any, Literal

from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import RANK

from det_seg_agent.det.coco_metrics import MOST_DETECTIONS, coco_metrics, format_table, most_objects
from det_seg_agent.det.compat import save_yaml
from det_seg_agent.det.keeping import keeping
from det_seg_agent.det.messages import LOGGER
from det_seg_agent.det.truth import Truth, choose_json, load_truth
from det_seg_agent.errors import ConfigError
from det_seg_agent.hosts.input_errors import one_line

TASKS = ("detect", "segment")  # tasks that pycocotools evaluates
KINDS = {"bbox": "bbox", "segm": "segmentation"}  # kind of evaluation -> key of an object
RESULT = {"bbox": "coco", "segm": "coco_segm"}  # kind of evaluation -> key of metrics.json
HOST = {"bbox": "metrics/mAP50-95(B)", "segm": "metrics/mAP50-95(M)"}
# Tolerances between our AP and the host's, measured on small sets of large objects; see docs/judging.md.
TOLERANCE, FEW_OBJECTS, COARSE_MASKS = 0.02, 0.5, 0.15


def prepare(trainer: Any, val_json: str | None) -> None:
    """Choose the ground truth before training, and make the final validation store its predictions.

    This is a callback for `on_pretrain_routine_end`.

    Raises:
        ConfigError: if `val_json` is unusable, or `classes` leaves no object to train on.
    """
    check_objects(trainer)
    args, named = trainer.args, val_json or trainer.agent_settings.val_json
    if args.task not in TASKS:
        if named:
            raise ConfigError(f"agent.val_json={named}: task={args.task} is judged by the host alone; drop it.")
    elif RANK == -1:
        chosen = choose_json(trainer.test_loader.dataset, class_names(trainer), args, trainer.data, named)
        stock = trainer.validator
        trainer.validator = keeping(type(stock))(
            stock.dataloader, save_dir=stock.save_dir, args=stock.args, _callbacks=stock.callbacks
        )
        trainer.validator.val_json = chosen
    elif named and RANK == 0:
        LOGGER.warning(f"agent.val_json={named} is not used: in several processes the host's validator alone judges.")


def check_objects(trainer: Any) -> None:
    """Warn if the training or validation images have no objects.

    Raises:
        ConfigError: if no training image has an object of `classes`.
    """
    if RANK not in {-1, 0} or trainer.args.task not in (*TASKS, "pose", "obb"):
        return
    wanted = trainer.args.classes
    of = "" if wanted is None else f" of classes={wanted}"
    for name, loader in (("training", trainer.train_loader), ("validation", trainer.test_loader)):
        labels = loader.dataset.labels
        if any(len(label["cls"]) for label in labels):
            continue
        text = f"none of the {len(labels)} {name} images has an object{of}"
        if wanted is not None and name == "training":
            raise ConfigError(f"{text}; the classes are {dict(list(class_names(trainer).items())[:10])}.")
        LOGGER.warning(f"{text}; nothing can be {'learned from' if name == 'training' else 'judged on'} them.")


def class_names(trainer: Any) -> dict[int, str]:
    """Return the data's class names by index, also with `single_cls`, where the host overwrites them."""
    if trainer.args.single_cls:
        return dict(check_det_dataset(str(trainer.args.data))["names"])
    return dict(trainer.data["names"])


def figures(kept: dict[str, list[dict[str, Any]]], truth: Truth, max_det: int) -> dict[str, dict[str, float]]:
    """Return the 12 COCO metrics for `bbox`, and for `segm` if masks are predicted and all objects have outlines."""
    results = {}
    objects = truth.content["annotations"]
    masks = any("segmentation" in row for rows in kept.values() for row in rows)
    for kind, key in KINDS.items():
        if kind == "segm" and not (masks and all(a.get(key) for a in objects)):
            continue
        results[kind] = coco_metrics(truth.content, truth.results(kept, key), truth.ids.values(), kind, max_det)
    return results


def tolerance(kind: str, truth: Truth) -> float:
    """Return the allowed difference between our AP and the host's; it grows with fewer objects per class."""
    objects = [a["category_id"] for a in truth.content["annotations"] if not a["iscrowd"]]
    allowed = TOLERANCE + FEW_OBJECTS * len(set(objects)) / max(len(objects), 1)
    return allowed + (COARSE_MASKS if kind == "segm" else 0)


def difference(judged: dict[str, dict[str, float]], host: dict[str, float], truth: Truth, max_det: int) -> str | None:
    """Return one line on a large difference between our AP and the host's with possible reasons; None if small."""
    far = []
    for kind, values in judged.items():
        ap, theirs, allowed = values["AP"], host.get(HOST[kind], values["AP"]), tolerance(kind, truth)
        if ap >= 0 and abs(ap - theirs) > allowed:
            far.append(f"{kind} AP {ap:.3f} is more than {allowed:.3f} from the host's mAP50-95 {theirs:.3f}")
    if not far:
        return None
    notes = list(truth.notes)
    if max_det > MOST_DETECTIONS:
        most = most_objects(truth.content["annotations"], truth.ids.values())
        limit = max_det if most > MOST_DETECTIONS else MOST_DETECTIONS
        notes.append(f"AP counts {limit} detections of a class in an image, the host {max_det} of all")
    if any("segm" in text for text in far):
        notes.append("the host compares masks at a quarter of the size")
    notes.append("the host interpolates precision otherwise")
    return f"{'; '.join(far)}. What can make the difference: {'; '.join(notes)}."


def host_figures(trainer: Any) -> dict[str, float]:
    """Return the host's metrics of its last validation, which is that of the best weights."""
    ours, figures = trainer.report.scalars(), {}
    for key, value in (trainer.metrics or {}).items():
        if key not in ours:
            with contextlib.suppress(TypeError, ValueError):
                figures[key] = float(value)
    return figures


def judge(trainer: Any, weights: Literal["best", "last"] = "best") -> dict[str, Any]:
    """Evaluate the best weights (from the final validation) or the last ones; return the entries for `metrics.json`.

    The keys are `coco` (boxes), `coco_segm` (masks), `host`, `judged_on`, and `differs` if our AP is far from the
    host's. With several processes, and for other tasks, there are only `host` and `judged_on`.
    """
    host = host_figures(trainer)
    if trainer.args.task not in TASKS or RANK != -1:
        return {"judged_on": "the validation set, by the host's own validator", "host": host}
    validator = trainer.validator
    # After save=False there are no best weights and no final validation.
    if weights == "last" or (validator.kept is None and validator.failed is None):
        host = {key: float(value) for key, value in validator(model=trainer.last).items() if key != "fitness"}
    judged, truth = judge_validator(validator, class_names(trainer), validator.val_json)
    result: dict[str, Any] = {RESULT[kind]: values for kind, values in judged.items()}
    differs = difference(judged, host, truth, validator.args.max_det)
    return {**result, "judged_on": truth.source, "host": host, **({"differs": differs} if differs else {})}


def judge_validator(
    validator: Any, names: dict[int, str], val_json: Path | None
) -> tuple[dict[str, dict[str, float]], Truth]:
    """Return the metrics of the predictions that a validator stored, and the ground truth.

    Raises:
        Exception: the error that stopped the validator from storing predictions, if any.
    """
    if validator.failed is not None:
        raise validator.failed
    truth = load_truth(val_json, validator.dataloader.dataset, names, validator.args)
    return figures(validator.kept, truth, validator.args.max_det), truth


def conclude(trainer: Any, wall: float, weights: Literal["best", "last"] = "best") -> dict[str, Any]:
    """Evaluate a run, write `metrics.json` and `agent.yaml`, log the metrics, and return those of `metrics.json`.

    Args:
        trainer: the host's trainer, after training.
        wall: duration of the training in seconds.
        weights: which weights to evaluate.
    """
    report = trainer.report
    cost = report.result(wall)
    report.write_metrics({"host": host_figures(trainer), **cost})  # evaluation may fail or be interrupted
    try:
        judged = judge(trainer, weights)
    except Exception as error:
        LOGGER.warning(f"judging failed, metrics.json holds the host's own figures: {one_line(error)}")
        judged = {"judging_failed": one_line(error), "host": host_figures(trainer)}
    result = {**judged, **cost}
    report.write_metrics(result)
    try:
        save_yaml(trainer.save_dir / "agent.yaml", trainer.agent_settings.model_dump())
    except OSError as error:
        LOGGER.warning(f"agent.yaml is not written: {error}")
    if "differs" in result:
        LOGGER.warning(result["differs"])
    LOGGER.info(f"\n{figures_text(result)}\n{report.closing(wall)}")
    return result


def figures_text(result: dict[str, Any]) -> str:
    """Return the COCO tables of a result as text, or else the host's own figures."""
    tables = [format_table(result[key], kind) for kind, key in RESULT.items() if key in result]
    lines = [f"  {key:<28}{value:8.4f}" for key, value in result.get("host", {}).items()]
    return "\n\n".join(tables or ["\n".join(lines)])


def validate(weights: Path | str, data: str, keeps: bool, **arguments: Any) -> Any:
    """Run the host's validation of weights, and return its validator; arguments as in `evaluate`.

    `keeps` says whether the validator stores its predictions.
    """
    from ultralytics import YOLO

    model = YOLO(weights)
    done: list[Any] = []
    model.add_callback("on_val_end", done.append)
    validator = keeping(model.task_map[model.task]["validator"]) if keeps else None
    with tempfile.TemporaryDirectory() as folder:
        fixed = {"data": data, "plots": False, "project": folder, "name": "val"}
        model.val(validator=validator, **{"verbose": False, **arguments, **fixed})
    return done[0]


def evaluate(weights: Path | str, data: str, val_json: Path | None, **arguments: Any) -> dict[str, dict[str, float]]:
    """Evaluate weights as at the end of a run.

    Args:
        weights: path of a checkpoint.
        data: the host's data YAML.
        val_json: COCO JSON of the validation images; None for one beside the data, or else the labels.
        **arguments: settings of the host's validation (imgsz, batch, device, classes, ...).

    Returns:
        The result of `figures`.

    Raises:
        ConfigError: if `val_json` is unusable.
    """
    validator = validate(weights, data, keeps=True, **arguments)
    names, dataset = dict(validator.data["names"]), validator.dataloader.dataset
    chosen = choose_json(dataset, names, validator.args, validator.data, val_json)
    return judge_validator(validator, names, chosen)[0]
