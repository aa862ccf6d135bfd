"""The criterion that computes per-image signals from the tensors of the stock loss. The trainers install it."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from ultralytics.utils.tal import RotatedTaskAlignedAssigner

from det_seg_agent.det.compat import items_of
from det_seg_agent.det.losses.base import FeatureTap, OfLabels
from det_seg_agent.det.losses.registry import split_of
from det_seg_agent.det.losses.sufficiency import SufficiencyTap
from det_seg_agent.det.messages import LOGGER

NEAR = 0.01  # relative and absolute difference of loss items that half precision explains
OURS = ("credit_index", "credit_image", "credit_share", "credit_object", "credit_weight", "loss_weight")


class Sink(Protocol):
    """Receiver of a batch's signals, such as `Selector.observe`."""

    def __call__(
        self,
        *,
        index: Tensor,
        loss: Tensor,
        entropy: Tensor,
        features: Tensor,
        image: Tensor,
        share: Tensor,
        sufficiency: Tensor | None,
        sample_loss: Tensor | None,
        agreement: Tensor | None,
        least_agreement: Tensor | None,
        label_loss: Tensor | None,
        expected_loss: Tensor | None,
        class_counts: Tensor | None,
    ) -> None:
        """Take the signals; see `Selector.observe`."""
        ...


class SignalCriterion:
    """Wraps a model's stock criterion and passes each training batch's signals to a sink.

    The loss and its gradients are unchanged, except for batches with `loss_weight` (B,). A copy or pickle of this
    object is None: the host then builds its stock criterion again, as it does for the EMA model.

    Args:
        stock: the host's criterion; its loss terms are replaced by versions that also record per-image values.
        sink: receiver of the signals.
        head: the model's last module; needed if the criterion does not receive the head's inputs (classification,
            semantic segmentation, RT-DETR).

    Raises:
        ConfigError: if the criterion is not supported.
    """

    def __init__(self, stock: Any, sink: Sink, head: nn.Module | None = None):
        self.split = split_of(stock)
        self.stock, self.sink = stock, sink
        self.carried: dict[str, Tensor] = {}
        self.checked = False
        scored = self.split.scored
        self.sufficiency = None if scored is None else SufficiencyTap(scored.assigner)
        self.tap = FeatureTap(head) if head is not None and not self.split.sees_features else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "stock":
            raise AttributeError(name)
        return getattr(self.stock, name)

    def carry(self, batch: dict[str, Any]) -> None:
        """Move our tensors of a batch to its device and keep them, as RT-DETR's criterion receives another dict."""
        device = batch["img"].device
        self.carried = {key: batch[key].to(device, non_blocking=True) for key in OURS if key in batch}
        batch.update(self.carried)

    def __call__(self, preds: Any, batch: dict[str, Any], **more: Any) -> Any:
        """Return the stock criterion's result for (preds, batch), and emit the signals of a training batch."""
        own = batch if "credit_index" in batch else self.carried
        self.carried = {}
        self.split.begin(batch, own.get("loss_weight", batch.get("loss_weight")))
        out = self.split.call(preds, batch, **more)
        if "credit_index" in own:
            with torch.no_grad():
                if not self.checked and "loss_weight" not in own:
                    self.checked = True
                    self._check(out)
                self._emit(preds, batch, own)
        return out

    def _check(self, out: Any) -> None:
        """Warn if the losses of the images do not add up to the host's loss items, as with an unknown formula."""
        if not isinstance(out, tuple):  # RT-DETR's items are its model's
            return
        stock = items_of(self.stock, out[1])
        ours = dict(zip(stock, self.split.parts().sum(0).tolist()))
        wrong = [
            name for name in stock if not abs(ours.get(name, math.nan) - stock[name]) <= NEAR * abs(stock[name]) + NEAR
        ]
        if wrong:
            found = ", ".join(f"{name} {stock[name]:.4g} (images: {ours.get(name, math.nan):.4g})" for name in wrong)
            LOGGER.warning(
                f"the losses of the images do not add up to the host's loss: {found}. The model trains on the host's; "
                "the selections follow other losses. Please report it with the version of Ultralytics."
            )

    @property
    def gives_sufficiency(self) -> bool:
        """Whether a sufficiency is computed: only for axis-aligned boxes with a task-aligned assigner."""
        return self.sufficiency is not None and not isinstance(self.split.scored.assigner, RotatedTaskAlignedAssigner)

    def parts(self) -> Tensor:
        """Return (B, K) float32, each image's part of each loss item; the column sums are the loss items."""
        return self.split.parts()

    def _emit(self, preds: Any, batch: dict[str, Any], own: dict[str, Tensor]) -> None:
        total = self.split.total()
        loss = total * len(total)  # independent of the batch size
        entropy = self.split.entropy(preds, batch)
        features = self.split.features(preds) if self.tap is None else self.tap.last
        enough, counts = (None, None) if self.sufficiency is None else self.sufficiency.take()
        image, share = own["credit_image"], own["credit_share"]
        labels, objects = self.split.of_labels(preds, batch, image), self.split.objects()
        if objects is None:
            sample_loss = None
        else:  # an object's loss is its sample's; the rest, as that of the background, is shared by area
            rest = total - torch.zeros_like(total).index_add(0, image, objects)
            sample_loss = (objects / share + rest[image]) * len(total)
        self.sink(
            index=own["credit_index"],
            loss=loss,
            entropy=entropy,
            features=features,
            image=image,
            share=share,
            sufficiency=enough,
            sample_loss=sample_loss,
            **dict.fromkeys(OfLabels._fields) if labels is None else labels._asdict(),
            class_counts=counts,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(None), ()
