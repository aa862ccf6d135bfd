"""`v8ClassificationLoss` by image."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from det_seg_agent.det.losses.base import Split, softmax_entropy


class Classification(Split):
    """Split of `v8ClassificationLoss`, a mean over images. No term is replaced."""

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.weights = weights

    def call(self, preds: Any, batch: dict[str, Any], **more: Any) -> Any:
        """Return the stock criterion's result, weighted if there are weights."""
        logits = preds[1] if isinstance(preds, list | tuple) else preds
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
        return softmax_entropy(preds[1] if isinstance(preds, list | tuple) else preds)
