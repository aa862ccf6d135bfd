"""The host's validator, which keeps what the final validation predicts."""

from typing import Any

from torch.nn.functional import pad
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import ops


class KeepingValidator(DetectionValidator):
    """Mixin for a validator of the host: keep what the final validation predicts.

    `kept` maps each image file to its predictions, dicts of class index, score, `bbox` (x, y, w, h in pixels of the
    image) and, where masks are predicted, `segmentation` (RLE). The host's figures stay as they are.
    """

    jdict: list[dict[str, Any]]

    def init_metrics(self, model: Any) -> None:
        """Begin anew."""
        super().init_metrics(model)
        self.kept: dict[str, list[dict[str, Any]]] | None = None if self.training else {}
        self.failed: Exception | None = None
        self._prototypes: list[tuple[Any, ...]] = []
        if not self.training and getattr(self, "process", None) is ops.process_mask:
            self.process = self._process_mask

    def _process_mask(self, protos: Any, coefficients: Any, boxes: Any, shape: Any) -> Any:
        """Return the host's masks, a quarter of the image's size, and keep what whole ones are made of."""
        self._prototypes.append((protos, coefficients, boxes))
        return ops.process_mask(protos, coefficients, boxes, shape=shape)

    def update_metrics(self, preds: list[dict[str, Any]], batch: dict[str, Any]) -> None:
        """Do what the host does, then keep the predictions of a batch."""
        super().update_metrics(preds, batch)
        prototypes, self._prototypes = self._prototypes, []
        if self.kept is None:
            return
        try:
            for index, pred in enumerate(preds):
                image = {key: batch[key][index] for key in ("ori_shape", "ratio_pad", "im_file")}
                image["imgsz"] = batch["img"].shape[2:]
                if prototypes and len(pred["cls"]):
                    pred = {**pred, "masks": ops.process_mask_native(*prototypes[index], shape=tuple(image["imgsz"]))}
                self.kept[str(image["im_file"])] = self._predictions(pred, image)
        except Exception as error:  # training is done: its figures are written without these
            self.kept, self.failed = None, error

    def _predictions(self, pred: dict[str, Any], image: dict[str, Any]) -> list[dict[str, Any]]:
        if not len(pred["cls"]):
            return []
        if "masks" in pred and pred["masks"].shape[1:] == tuple(image["ori_shape"]):
            # The host takes these for scaled, padding or not (ultralytics 8.4.190); with one more column it does not.
            pred = {**pred, "masks": pad(pred["masks"], (0, 1))}
        scaled = self.scale_preds(pred, image)
        boxes = ops.xyxy2ltwh(scaled["bboxes"]).tolist()
        rows = [
            {"class": int(c), "score": score, "bbox": box}
            for c, score, box in zip(pred["cls"].tolist(), pred["conf"].tolist(), boxes)
        ]
        if "masks" in scaled:
            before, self.jdict = self.jdict, []
            self.pred_to_json(scaled, image)
            for row, encoded in zip(rows, self.jdict):
                row["segmentation"] = encoded["segmentation"]
            self.jdict = before
        return rows


def keeping(host: type[Any]) -> type[Any]:
    """Return the host's validator class with `KeepingValidator` before it."""
    return type(f"Keeping{host.__name__}", (KeepingValidator, host), {})
