"""The public trainers, one for each task of the host; see `AgentDetectionTrainer` for usage and docs/heads.md."""

from typing import Any

from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

from det_seg_agent.det.compat import optional
from det_seg_agent.det.heads import find_head
from det_seg_agent.det.trainer import AgentDetectionTrainer, AgentTrainerMixin


class AgentSegmentationTrainer(AgentTrainerMixin, SegmentationTrainer):
    """`SegmentationTrainer` (instances) that trains on selections."""

    task = "segment"


class AgentPoseTrainer(AgentTrainerMixin, PoseTrainer):
    """`PoseTrainer` that trains on selections."""

    task = "pose"


class AgentOBBTrainer(AgentTrainerMixin, OBBTrainer):
    """`OBBTrainer` (oriented boxes) that trains on selections."""

    task = "obb"


class AgentClassificationTrainer(AgentTrainerMixin, ClassificationTrainer):
    """`ClassificationTrainer` that trains on selections."""

    task = "classify"


class AgentRTDETRTrainer(AgentTrainerMixin, RTDETRTrainer):
    """`RTDETRTrainer` that trains on selections."""

    task = "detect"


SemanticSegmentationTrainer: Any = optional("models.yolo.semantic", "SemanticSegmentationTrainer")  # from 8.4.60
if SemanticSegmentationTrainer is not None:

    class AgentSemanticTrainer(AgentTrainerMixin, SemanticSegmentationTrainer):
        """`SemanticSegmentationTrainer` that trains on selections."""

        task = "semantic"


TRAINERS: dict[str, type[AgentTrainerMixin]] = {
    cls.__name__: cls
    for cls in (
        AgentDetectionTrainer,
        AgentSegmentationTrainer,
        AgentPoseTrainer,
        AgentOBBTrainer,
        AgentClassificationTrainer,
        AgentRTDETRTrainer,
        *([AgentSemanticTrainer] if SemanticSegmentationTrainer is not None else []),
    )
}


def trainer_for(model: Any) -> type[AgentTrainerMixin]:
    """Return the trainer class for a model of the host, such as `YOLO("yolo11n-seg.pt")`.

    Raises:
        ConfigError: if the head is not supported; gives the reason.
    """
    return TRAINERS[find_head(model.model.model[-1]).trainer]
