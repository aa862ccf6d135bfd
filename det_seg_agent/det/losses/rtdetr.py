"""RT-DETR's loss terms, extended to record each image's part. `Queries` uses them.

All terms are sums over queries, divided by the number of matched boxes in the batch. The matcher's indices give the
image of each matched query. The formulas are the host's (ultralytics 8.4.190, `models/utils/loss.py`).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from ultralytics.utils.loss import FocalLoss, VarifocalLoss
from ultralytics.utils.metrics import bbox_iou

from det_seg_agent.det.losses.base import OfLabels, Split, entropy_of, of_labels


def moved(index: Tensor, device: torch.device) -> Tensor:
    """Return an index (n,) of the matcher, which is on the CPU, on `device`; pinned, as other copies wait."""
    return (index.pin_memory() if device.type == "cuda" else index).to(device, non_blocking=True)


class Queries(Split):
    """Split of `RTDETRDetectionLoss`."""

    def __init__(self, stock: Any):
        super().__init__(stock)
        self.terms = QueryTerms(stock)

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.terms.begin(len(batch["gt_groups"]), weights)

    def parts(self) -> Tensor:
        """See `Split`; of the last decoder layer, which the host reports."""
        return self.terms.parts()

    def total(self) -> Tensor:
        """See `Split`; includes all layers and the denoising queries."""
        return self.terms.total

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; of the last decoder layer's queries."""
        scores = preds[1][-1].transpose(1, 2)
        return entropy_of(scores, self.terms.matched(scores.shape[2]))

    def of_labels(self, preds: Any, batch: dict[str, Any], image: Tensor) -> OfLabels | None:
        """See `Split`; of the last decoder layer's queries that were matched to a box, averaged over the image."""
        scores = preds[1][-1]
        if scores.shape[2] < 2:
            return None
        rows, queries, objects = (moved(each, scores.device) for each in self.terms.first)
        label = batch["cls"].flatten()[objects]
        item = torch.arange(len(rows), device=scores.device)
        return of_labels(scores[rows, queries], label, item, len(rows), rows, len(scores)).take(image)


class QueryTerms:
    """Replaces the terms of an `RTDETRDetectionLoss`, which computes them for each layer and group of queries.

    Attributes:
        total: (B,) float32, each image's part of the sum of all terms.
    """

    def __init__(self, stock: Any):
        self.gains, self.index = stock.loss_gain, stock._get_index
        stock._get_index, stock._get_loss_bbox = self._get_index, self._get_loss_bbox
        stock.fl, stock.vfl = ImageFocal(stock.fl, self), ImageVarifocal(stock.vfl, self)

    def begin(self, images: int, weights: Tensor | None) -> None:
        """Reset for a batch of `images` images with loss weights (B,) or None."""
        self.images, self.weights = images, weights
        self.shown: dict[str, Tensor] = {}
        self.first: Any = None
        self.total: Any = 0

    def parts(self) -> Tensor:
        """Return (B, 3) float32: each image's part of the GIoU, class and L1 losses of the last decoder layer."""
        return torch.stack([self.shown[name] for name in ("giou", "class", "bbox")], 1)

    def note(self, name: str, own: Tensor) -> None:
        """Add each image's part (B,) of a term; the host computes the layer that it reports first."""
        self.shown.setdefault(name, own)
        self.total = self.total + own

    def _get_index(self, match_indices: list[tuple[Tensor, Tensor]]) -> Any:
        found = self.index(match_indices)
        self.rows, queries = found[0]
        if self.first is None:
            self.first = self.rows, queries, found[1]
        return found

    def by_class(self, per_image: Tensor, queries: int) -> None:
        """Add the class losses (B,) of a layer with `queries` queries, not yet divided by the matched boxes."""
        self.note("class", per_image.float() / (max(len(self.rows), 1) / queries) * self.gains["class"])

    def _get_loss_bbox(self, pred_bboxes: Tensor, gt_bboxes: Tensor, postfix: str = "") -> dict[str, Tensor]:
        l1_name, giou_name, boxes = f"loss_bbox{postfix}", f"loss_giou{postfix}", len(gt_bboxes)
        if not boxes:
            none = torch.zeros(self.images, device=pred_bboxes.device)
            self.note("bbox", none)
            self.note("giou", none)
            return {l1_name: pred_bboxes[..., :0].sum(), giou_name: pred_bboxes[..., :0].sum()}
        rows = moved(self.rows, pred_bboxes.device)
        l1 = F.l1_loss(pred_bboxes, gt_bboxes, reduction="none")
        giou = 1.0 - bbox_iou(pred_bboxes, gt_bboxes, xywh=True, GIoU=True)
        for name, values in (("bbox", l1), ("giou", giou)):
            own = values.detach().float().sum(1)
            sums = own.new_zeros(self.images).index_add(0, rows, own)
            self.note(name, sums / boxes * self.gains[name])
        if self.weights is not None:
            weight = self.weights[rows].view(-1, 1)
            l1, giou = l1 * weight, giou * weight
        return {
            l1_name: (self.gains["bbox"] * l1.sum() / boxes).squeeze(),
            giou_name: (self.gains["giou"] * (giou.sum() / boxes)).squeeze(),
        }

    def matched(self, queries: int) -> Tensor:
        """Return (B, queries) bool: the queries of the last decoder layer that were matched to a box."""
        mask = torch.zeros(self.images, queries, dtype=torch.bool, device=self.total.device)
        at = tuple(moved(axis, mask.device) for axis in self.first[:2])
        # A value on the device, as a Python value would be copied to it.
        return mask.index_put_(at, torch.ones((), dtype=torch.bool, device=mask.device))


class ImageVarifocal(VarifocalLoss):
    """`VarifocalLoss` (B, Q, nc) by image: a mean over queries, summed over classes and images."""

    def __init__(self, stock: VarifocalLoss, terms: QueryTerms):
        super().__init__(stock.gamma, stock.alpha)
        self.terms = terms

    def forward(self, pred_score: Tensor, gt_score: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        weight = self.alpha * pred_score.sigmoid().pow(self.gamma) * (1 - label) + gt_score * label
        with torch.autocast(pred_score.device.type, enabled=False):
            bce = F.binary_cross_entropy_with_logits(pred_score.float(), gt_score.float(), reduction="none")
            loss = (bce * weight).mean(1)
        self.terms.by_class(loss.detach().sum(1), pred_score.shape[1])
        return (loss if self.terms.weights is None else loss * self.terms.weights[:, None]).sum()


class ImageFocal(FocalLoss):
    """`FocalLoss`, which the host uses for batches without boxes, computed image by image."""

    def __init__(self, stock: FocalLoss, terms: QueryTerms):
        super().__init__(stock.gamma, float(stock.alpha))
        self.terms = terms

    def forward(self, pred: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        plain = super().forward
        own = torch.stack([plain(pred[i : i + 1], label[i : i + 1]) for i in range(len(pred))])
        self.terms.by_class(own.detach(), pred.shape[1])
        return plain(pred, label) if self.terms.weights is None else (own * self.terms.weights).sum()
