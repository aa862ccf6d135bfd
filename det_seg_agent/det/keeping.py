"""A mixin for the host's validators that stores the final validation's predictions. `det.judge` uses it."""

from typing import Any

from torch.nn.functional import pad
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import ops

from det_seg_agent.det.compat import prediction, scaled


class KeepingValidator(DetectionValidator):
    """Mixin for the host's validators that stores the final validation's predictions; the host's metrics do not change.

    Attributes:
        kept: maps each image file to its predictions, dicts of class index, score, `bbox` (x, y, w, h in pixels of
            the image) and, if masks are predicted, `segmentation` (RLE). None during training or after an error.
        failed: the error that stopped storing predictions, if any.
    """

    jdict: list[dict[str, Any]]

    def init_metrics(self, model: Any) -> None:
        """Initialise as the host does, and clear the predictions."""
        super().init_metrics(model)
        self.kept: dict[str, list[dict[str, Any]]] | None = None if self.training else {}
        self.failed: Exception | None = None
        self._prototypes: list[tuple[Any, ...]] = []
        if not self.training and getattr(self, "process", None) is ops.process_mask:
            self.process = self._process_mask

    def _process_mask(self, protos: Any, coefficients: Any, boxes: Any, shape: Any) -> Any:
        """Return the host's masks, at a quarter of the image's size, and keep the inputs for full-size masks."""
        self._prototypes.append((protos, coefficients, boxes))
        return ops.process_mask(protos, coefficients, boxes, shape=shape)

    def update_metrics(self, preds: list[dict[str, Any]], batch: dict[str, Any]) -> None:
        """Update the host's metrics, then store the predictions of a batch."""
        super().update_metrics(preds, batch)
        prototypes, self._prototypes = self._prototypes, []
        if self.kept is None:
            return
        try:
            for index, pred in enumerate(map(prediction, preds)):
                image = {key: batch[key][index] for key in ("ori_shape", "ratio_pad", "im_file")}
                image["imgsz"] = batch["img"].shape[2:]
                if prototypes and len(pred["cls"]):
                    pred = {**pred, "masks": ops.process_mask_native(*prototypes[index], shape=tuple(image["imgsz"]))}
                self.kept[str(image["im_file"])] = self._predictions(pred, image)
        except Exception as error:  # the run must still end with the host's metrics
            self.kept, self.failed = None, error

    def _predictions(self, pred: dict[str, Any], image: dict[str, Any]) -> list[dict[str, Any]]:
        if not len(pred["cls"]):
            return []
        if "masks" in pred and pred["masks"].shape[1:] == tuple(image["ori_shape"]):
            # The host would take masks of this shape for scaled ones (ultralytics 8.4.190); one more column avoids it.
            pred = {**pred, "masks": pad(pred["masks"], (0, 1))}
        found = scaled(self, pred, image)
        boxes = ops.xyxy2ltwh(found["bboxes"]).tolist()
        rows = [
            {"class": int(c), "score": score, "bbox": box}
            for c, score, box in zip(pred["cls"].tolist(), pred["conf"].tolist(), boxes)
        ]
        if "masks" in found:
            before, self.jdict = self.jdict, []
            self.pred_to_json(found, image)
            for row, encoded in zip(rows, self.jdict):
                row["segmentation"] = encoded["segmentation"]
            self.jdict = before
        return rows


def keeping(host: type[Any]) -> type[Any]:
    """Return a subclass of `KeepingValidator` and the host's validator class."""
    return type(f"Keeping{host.__name__}", (KeepingValidator, host), {})
