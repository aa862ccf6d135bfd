"""Table of the host's heads: which are supported, and why others are not. Trainers check it; docs/heads.md shows it."""

from dataclasses import dataclass
from typing import Any

from det_seg_agent.errors import ConfigError

TESTED = "8.4.190"  # version of ultralytics that the heads were tested with

PLACES = "mean binary entropy of the best class at the assigned and most confident {}"
PYRAMID = "the head's input levels"
ONE = ", of the one-to-one branch"


@dataclass(frozen=True)
class Head:
    """A row of the table.

    Attributes:
        name: common name of the head.
        classes: class names of the model's last module.
        models: models that the tests train, or try to train.
        trainer: name of our trainer.
        parts: the host's loss items, of which each image's part is known.
        entropy: description of the entropy, which is in [0, 1].
        features: what is averaged over space for the feature vector.
        reason: why the head is not supported; empty if it is.
    """

    name: str
    classes: tuple[str, ...]
    models: tuple[str, ...]
    trainer: str = ""
    parts: tuple[str, ...] = ()
    entropy: str = ""
    features: str = ""
    reason: str = ""


BOX = ("box_loss", "cls_loss", "dfl_loss")
HEADS = (
    Head(
        "Detect",
        ("Detect",),
        ("yolov8n", "yolo11n"),
        "AgentDetectionTrainer",
        BOX,
        PLACES.format("anchors"),
        PYRAMID,
    ),
    Head(
        "Segment",
        ("Segment",),
        ("yolov8n-seg", "yolo11n-seg"),
        "AgentSegmentationTrainer",
        ("box_loss", "seg_loss", "cls_loss", "dfl_loss", "sem_loss"),
        PLACES.format("anchors"),
        PYRAMID,
    ),
    Head(
        "Pose",
        ("Pose",),
        ("yolov8n-pose", "yolo11n-pose"),
        "AgentPoseTrainer",
        ("box_loss", "pose_loss", "kobj_loss", "cls_loss", "dfl_loss"),
        PLACES.format("anchors"),
        PYRAMID,
    ),
    Head(
        "OBB",
        ("OBB",),
        ("yolov8n-obb", "yolo11n-obb"),
        "AgentOBBTrainer",
        (*BOX, "angle_loss"),
        PLACES.format("anchors"),
        PYRAMID,
    ),
    Head(
        "Detect, end to end",
        ("Detect",),
        ("yolo26n",),
        "AgentDetectionTrainer",
        ("box_loss", "cls_loss", "l1_loss"),
        PLACES.format("anchors") + ONE,
        PYRAMID,
    ),
    Head(
        "Detect, end to end, YOLOv10",
        ("v10Detect",),
        ("yolov10n",),
        "AgentDetectionTrainer",
        BOX,
        PLACES.format("anchors") + ONE,
        PYRAMID,
    ),
    Head(
        "Segment, end to end",
        ("Segment26",),
        ("yolo26n-seg",),
        "AgentSegmentationTrainer",
        ("box_loss", "seg_loss", "cls_loss", "l1_loss", "sem_loss"),
        PLACES.format("anchors") + ONE,
        PYRAMID,
    ),
    Head(
        "Pose, end to end",
        ("Pose26",),
        ("yolo26n-pose",),
        "AgentPoseTrainer",
        ("box_loss", "pose_loss", "kobj_loss", "cls_loss", "l1_loss", "rle_loss"),
        PLACES.format("anchors") + ONE,
        PYRAMID,
    ),
    Head(
        "OBB, end to end",
        ("OBB26",),
        ("yolo26n-obb",),
        "AgentOBBTrainer",
        ("box_loss", "cls_loss", "l1_loss", "angle_loss"),
        PLACES.format("anchors") + ONE,
        PYRAMID,
    ),
    Head(
        "RT-DETR",
        ("RTDETRDecoder",),
        ("rtdetr",),
        "AgentRTDETRTrainer",
        ("giou_loss", "cls_loss", "l1_loss"),
        PLACES.format("queries") + ", of the last decoder layer",
        PYRAMID,
    ),
    Head(
        "Classify",
        ("Classify",),
        ("yolov8n-cls", "yolo11n-cls", "yolo26n-cls"),
        "AgentClassificationTrainer",
        ("loss",),
        "entropy of the softmax, over ln(classes)",
        "the input of the last layer",
    ),
    Head(
        "Semantic",
        ("SemanticSegment",),
        ("yolo26n-sem",),
        "AgentSemanticTrainer",
        ("ce_loss", "dice_loss", "aux_loss"),
        "mean entropy of the softmax over valid pixels, over ln(classes), before up-sampling",
        PYRAMID,
    ),
    Head(
        "Depth",
        ("Depth",),
        ("yolo26n-depth",),
        reason="its loss is a standard deviation over the pixels of a batch, which is no sum over images",
    ),
    Head(
        "YOLO-World",
        ("WorldDetect",),
        ("yolov8n-world",),
        reason="its trainers draw text prompts for a batch, and are not covered",
    ),
    Head(
        "YOLOE",
        ("YOLOEDetect", "YOLOESegment", "YOLOESegment26"),
        ("yoloe-v8n",),
        reason="its trainers draw text or visual prompts for a batch, and are not covered",
    ),
)


def find_head(head: Any) -> Head:
    """Return the row of a model's last module.

    Raises:
        ConfigError: if it is not supported; gives the reason.
    """
    name = type(head).__name__
    rows = [row for row in HEADS if name in row.classes]
    supported = sorted({cls for row in HEADS if not row.reason for cls in row.classes})
    if not rows:
        raise ConfigError(f"model: the head {name} is not known. Valid: {', '.join(supported)}; see docs/heads.md.")
    if rows[0].reason:
        raise ConfigError(
            f"model: the head {name} is not supported: {rows[0].reason}. Valid: {', '.join(supported)}; use the "
            "host's own trainer."
        )
    return rows[0]


def check_head(head: Any, trainer: str) -> None:
    """Check that a model's head belongs to our trainer of this name.

    Raises:
        ConfigError: if it does not; gives the reason or the right trainer.
    """
    right = find_head(head).trainer
    if right != trainer:
        raise ConfigError(f"model: the head {type(head).__name__} is not for {trainer}; use trainer={right}.")


def table() -> str:
    """Return the table as Markdown."""
    lines = [
        "| head | host's class | loss parts of an image | entropy | features | models tested |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in HEADS:
        classes = ", ".join(f"`{cls}`" for cls in row.classes)
        models = ", ".join(row.models)
        if row.reason:
            lines.append(f"| {row.name} | {classes} | refused: {row.reason} | | | {models} |")
        else:
            parts = ", ".join(f"`{part}`" for part in row.parts)
            lines.append(f"| {row.name} | {classes} | {parts} | {row.entropy} | {row.features} | {models} |")
    return "\n".join(lines)
