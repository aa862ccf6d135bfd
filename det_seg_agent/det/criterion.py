"""Per-image signals from the tensors of the stock loss."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from ultralytics.utils.tal import RotatedTaskAlignedAssigner

from det_seg_agent.det.losses.base import FeatureTap
from det_seg_agent.det.losses.registry import split_of
from det_seg_agent.det.losses.sufficiency import SufficiencyTap

OURS = ("credit_index", "credit_image", "credit_share", "loss_weight")


class Sink(Protocol):
    """Where signals go; see `SignalBuffer.add`."""

    def __call__(
        self,
        index: Tensor,
        loss: Tensor,
        entropy: Tensor,
        features: Tensor,
        image: Tensor,
        share: Tensor,
        sufficiency: Tensor | None,
    ) -> None: ...


class SignalCriterion:
    """The stock criterion of a model, which hands each training batch's signals to a sink.

    The returned loss and its gradients are the stock ones, but for batches with `loss_weight` (B,).
    A copy or a pickle of it is None: the host then makes its stock criterion anew, as it does for the EMA model.

    Args:
        stock: the host's criterion; its terms are replaced by such as know their images.
        sink: where the signals go.
        head: the model's last module; needed where the criterion does not see the head's inputs (classification,
            semantic segmentation, RT-DETR).

    Raises:
        ConfigError: for a criterion that it cannot take apart.
    """

    def __init__(self, stock: Any, sink: Sink, head: nn.Module | None = None):
        self.split = split_of(stock)
        self.stock, self.sink = stock, sink
        self.carried: dict[str, Tensor] = {}
        scored = self.split.scored
        self.sufficiency = None if scored is None else SufficiencyTap(scored.assigner)
        self.tap = FeatureTap(head) if head is not None and not self.split.sees_features else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "stock":
            raise AttributeError(name)
        return getattr(self.stock, name)

    def carry(self, batch: dict[str, Any]) -> None:
        """Put our tensors of a batch on its device, and keep them: RT-DETR's criterion gets another batch."""
        device = batch["img"].device
        self.carried = {key: batch[key].to(device, non_blocking=True) for key in OURS if key in batch}
        batch.update(self.carried)

    def __call__(self, preds: Any, batch: dict[str, Any], **more: Any) -> Any:
        """Return what the stock criterion returns for (preds, batch)."""
        own = batch if "credit_index" in batch else self.carried
        self.carried = {}
        self.split.begin(batch, own.get("loss_weight", batch.get("loss_weight")))
        out = self.split.call(preds, batch, **more)
        if "credit_index" in own:
            with torch.no_grad():
                self._emit(preds, batch, own)
        return out

    @property
    def tells_sufficiency(self) -> bool:
        """Whether images get a sufficiency: there are upright boxes that an assigner gives targets to."""
        return self.sufficiency is not None and not isinstance(self.split.scored.assigner, RotatedTaskAlignedAssigner)

    def parts(self) -> Tensor:
        """Return (B, K) float32: each image's part of every loss item; column sums are the loss items."""
        return self.split.parts()

    def _emit(self, preds: Any, batch: dict[str, Any], own: dict[str, Tensor]) -> None:
        total = self.split.total()
        loss = total * len(total)  # so that it does not depend on the batch's size
        entropy = self.split.entropy(preds, batch)
        features = self.split.features(preds) if self.tap is None else self.tap.last
        enough = None if self.sufficiency is None else self.sufficiency.take()
        self.sink(own["credit_index"], loss, entropy, features, own["credit_image"], own["credit_share"], enough)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(None), ()
