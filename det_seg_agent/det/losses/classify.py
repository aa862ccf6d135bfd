"""`v8ClassificationLoss` by image."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from det_seg_agent.det.losses.base import OfLabels, Split, of_labels, softmax_entropy


class Classification(Split):
    """Split of `v8ClassificationLoss`, a mean over images. No term is replaced."""

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.weights = weights

    def call(self, preds: Any, batch: dict[str, Any], **more: Any) -> Any:
        """Return the stock criterion's result, weighted if there are weights."""
        logits = logits_of(preds)
        loss = F.cross_entropy(logits, batch["cls"], reduction="none")
        self.own = loss.detach().float() / len(loss)
        if self.weights is None:
            return self.stock(preds, batch)
        return (loss * self.weights).mean(), {"loss": (loss.detach() * self.weights).mean()}

    def parts(self) -> Tensor:
        """See `Split`; (B, 1)."""
        return self.own[:, None]

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; of the softmax, divided by ln(classes)."""
        return softmax_entropy(logits_of(preds))

    def of_labels(self, preds: Any, batch: dict[str, Any], image: Tensor) -> OfLabels | None:
        """See `Split`; of the image's class."""
        logits = logits_of(preds)
        if logits.shape[1] < 2:
            return None
        row = torch.arange(len(logits), device=logits.device)
        return of_labels(logits, batch["cls"], row, len(row), row, len(row)).take(image)


def logits_of(preds: Any) -> Tensor:
    """Return the logits (B, classes) of the host's output."""
    logits: Tensor = preds[1] if isinstance(preds, list | tuple) else preds
    return logits
