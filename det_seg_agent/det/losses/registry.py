"""Which split is for which criterion of the host."""

from typing import Any

from ultralytics.models.utils.loss import RTDETRDetectionLoss
from ultralytics.utils.loss import v8ClassificationLoss, v8DetectionLoss, v8OBBLoss, v8PoseLoss, v8SegmentationLoss

from det_seg_agent.det.compat import VERSION, gives_named_items, optional
from det_seg_agent.det.losses.base import Split
from det_seg_agent.det.losses.classify import Classification
from det_seg_agent.det.losses.dense import Dense
from det_seg_agent.det.losses.end_to_end import EndToEnd
from det_seg_agent.det.losses.rtdetr import Queries
from det_seg_agent.det.losses.semantic import Semantic
from det_seg_agent.errors import ConfigError

# Criteria that came with 8.4.0 to 8.4.190; None in versions without them.
SegmentLoss26, PoseLoss26, E2ELoss, SemanticSegmentationLoss = (
    optional("utils.loss", name) for name in ("SegmentLoss26", "PoseLoss26", "E2ELoss", "SemanticSegmentationLoss")
)
SPLITS: dict[type, type[Split]] = {
    **dict.fromkeys((v8DetectionLoss, v8SegmentationLoss, v8PoseLoss, v8OBBLoss, SegmentLoss26, PoseLoss26), Dense),
    E2ELoss: EndToEnd,
    v8ClassificationLoss: Classification,
    SemanticSegmentationLoss: Semantic,
    RTDETRDetectionLoss: Queries,
}
SPLITS.pop(None, None)  # type: ignore[call-overload]


def split_of(stock: Any) -> Split:
    """Return the split of a stock criterion.

    Raises:
        ConfigError: if its class is not in `SPLITS`; subclasses are not accepted.
    """
    if type(stock) is not v8DetectionLoss and not gives_named_items():
        raise ConfigError(
            f"model: its loss is {type(stock).__name__}, whose per-image parts are supported from ultralytics 8.4.120 "
            f"on, and {VERSION} is installed; that of Detect (YOLOv8, YOLO11) is supported. See docs/hosts.md."
        )
    inner = [stock.one2many, stock.one2one] if type(stock) is E2ELoss else []
    for each in [stock, *inner]:
        if type(each) not in SPLITS:
            raise ConfigError(
                f"model: its loss is {type(each).__name__}, whose per-image parts are not supported. Valid: "
                f"{', '.join(cls.__name__ for cls in SPLITS)}; see docs/heads.md."
            )
    return SPLITS[type(stock)](stock)
