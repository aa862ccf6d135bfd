"""What the losses of all criteria share: the interface of a split, the state of a batch, entropy and features."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLACES = 100  # anchors of an image that its entropy is the mean over
LN2 = math.log(2)
SOFT = 0.1  # difference of agreement by which an object counts e times as much in the soft minimum


class OfLabels(NamedTuple):
    """What the model says of the labels of C credits; NaN for credits without objects.

    Attributes:
        agreement, least_agreement, label_loss, expected_loss: (C,) float32, see `Signals`.
    """

    agreement: Tensor
    least_agreement: Tensor
    label_loss: Tensor
    expected_loss: Tensor

    def take(self, rows: Tensor | slice) -> "OfLabels":
        """Return some rows."""
        return OfLabels(*(each[rows] for each in self))


def of_labels(logits: Tensor, label: Tensor, item: Tensor, items: int, row: Tensor, rows: int) -> OfLabels:
    """Return means over the places of each object, and of these over the objects of each row.

    The softmax over the logits of sigmoids is the distribution of the class of an object that is there, up to
    calibration. The label's loss is its cross-entropy, and its entropy is what the model expects of that. The agreement
    is the probability of the label against the best other class alone.

    Args:
        logits: (N, classes), at each place, of any float dtype; at least two classes.
        label: (N,) int64, class of the object there.
        item: (N,) int64 < `items`, object that each place belongs to.
        items: largest number of objects.
        row: (N,) int64 < `rows`, row of the result that the object belongs to.
        rows: number of rows.
    """
    logits, label = logits.detach().float(), label.long()[:, None]
    log_p = logits.log_softmax(1)
    loss, entropy = -log_p.gather(1, label)[:, 0], -(log_p.exp() * log_p).sum(1)
    sure = (logits.gather(1, label)[:, 0] - logits.scatter(1, label, float("-inf")).amax(1)).sigmoid()
    columns = torch.stack([torch.ones_like(sure), sure, loss, entropy], 1)
    sums = columns.new_zeros(items, 4).index_add(0, item, columns)
    there = sums[:, 0] > 0
    agreement, *losses = (sums[:, 1:] / sums[:, :1].clamp(min=1)).unbind(1)
    doubt = (-agreement / SOFT).exp()
    each = torch.stack([torch.ones_like(agreement), agreement, *losses, doubt, doubt * agreement], 1) * there[:, None]
    owner = row.new_full((items,), rows).scatter(0, item, row)  # the last row is of objects that are not there
    total = each.new_zeros(rows + 1, 6).index_add(0, owner, each)[:-1]
    mean = total[:, 1:4] / total[:, :1]
    return OfLabels(mean[:, 0], total[:, 5] / total[:, 4], mean[:, 1], mean[:, 2])


class Split:
    """Base class: decomposes a criterion's loss by image.

    Attributes:
        stock: the criterion.
        scored: the criterion whose assigner makes the targets of the predicting branch; None if there is none.
        sees_features: whether the criterion receives the head's inputs; otherwise a hook on the head records them.
    """

    scored: Any = None
    sees_features = False

    def __init__(self, stock: Any):
        self.stock = stock

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """Prepare for a batch of B images with loss weights (B,) or None."""
        raise NotImplementedError

    def call(self, preds: Any, batch: dict[str, Any], **more: Any) -> Any:
        """Return the criterion's result."""
        return self.stock(preds, batch, **more)

    def parts(self) -> Tensor:
        """Return (B, K) float32: each image's part of each loss item, including gains, in the host's order."""
        raise NotImplementedError

    def total(self) -> Tensor:
        """Return (B,) float32: each image's part of the minimised loss; the batch's loss is the sum.

        The host multiplies the loss by the batch size, except for classification and RT-DETR.
        """
        return self.parts().sum(1)

    def objects(self) -> Tensor | None:
        """Return (C,) float32: what the objects of each credit add to `total` of its image; None if unknown."""
        return None

    def of_labels(self, preds: Any, batch: dict[str, Any], image: Tensor) -> OfLabels | None:
        """Return what `preds` say of the labels of C credits, of which `image` (C,) has the images; None if unknown."""
        return None

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """Return the entropy (B,) float32 in [0, 1] of the predictions `preds`."""
        raise NotImplementedError

    def features(self, preds: Any) -> Tensor:
        """Return the features (B, F) float32; only if `sees_features`."""
        raise NotImplementedError


class BatchState:
    """State of a batch of B images that the terms of one loss share.

    Attributes:
        images: B.
        weights: (B,) float32, loss weights of the images, or None.
        anchor_weights: (B, A) or (B, 1) float32, loss weights of the anchors: those with an object that is followed
            have that of its sample, the others their image's. None without weights.
        foreground: (B, A) bool, the assigned anchors.
        at: (N,) int64 twice, image and place of each assigned anchor, as in `foreground`; empty until there are boxes.
        normaliser: `target_scores_sum`, by which the host divides.
        parts: maps a loss item to (B,) float32, each image's part of it, unweighted and without the host's gain.
        owner: (B, A) int64, row of the credit that the object of each anchor belongs to; C if there is none. None if
            the batch does not tell.
        credits, credit_weight: C, and (C,) float32, loss weights of the credits' samples, or None.
        labels, place: (B, A) int64, class and place among the objects of its image of each assigned anchor's object.
        objects: largest number of objects of an image.
        own: maps a loss item to (C,) float32, the part of each credit's objects; as `parts`.
        anchors: (B, A) float32, class loss of each anchor.
    """

    weights: Tensor | None
    anchor_weights: Tensor | None
    foreground: Tensor
    at: tuple[Tensor, ...]
    normaliser: Any
    owner: Tensor | None
    credits: int
    credit_weight: Tensor | None
    labels: Tensor
    place: Tensor
    objects: int
    anchors: Tensor

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """Reset for a batch of B images with loss weights (B,) or None."""
        self.images, self.weights, self.normaliser = len(batch["img"]), weights, 1
        self.parts: dict[str, Tensor] = {}
        self.own: dict[str, Tensor] = {}
        self.owner, self.table, self.at = None, None, ()
        self.anchor_weights = None if weights is None else weights[:, None]
        if "credit_object" in batch:
            self.credits, self.table = len(batch["credit_index"]), credit_table(batch)
            self.credit_weight = batch.get("credit_weight")

    def assigned(self, module: nn.Module, args: Any, output: tuple[Tensor, ...]) -> None:
        """Forward hook of `TaskAlignedAssigner`: keep the assignments, and find the owners of the anchors."""
        self.labels, *_, foreground, self.place = output
        self.objects, place = args[3].shape[1], self.place
        if self.table is not None and self.table.shape[1]:
            self.owner = self.table.gather(1, place.long()).masked_fill(~foreground.bool(), self.credits)
            if self.anchor_weights is not None and self.credit_weight is not None:
                own = torch.cat([self.credit_weight, self.credit_weight.new_zeros(1)])[self.owner]
                self.anchor_weights = own.where(self.owner < self.credits, self.anchor_weights)

    def take(self, name: str, values: Tensor, divisor: Any, place: Tensor | None = None) -> Tensor:
        """Record the parts of item `name`, and return the values (N, ...), weighted if there are weights.

        `place` (N,) int64 is the assigned anchor of each value, counted as in `at`; None if they are in that order.
        """
        own = values.detach().float()
        own = own.flatten(1).sum(1) if own.dim() > 1 else own
        at = self.at if place is None else tuple(axis[place] for axis in self.at)
        rows = at[0]
        self.parts[name] = own.new_zeros(self.images).index_add(0, rows, own) / divisor
        if self.owner is not None:
            self.give(name, own, self.owner[at], divisor)
        if self.anchor_weights is None:
            return values
        weights = self.anchor_weights.expand_as(self.foreground)[at]
        return values * weights.view(-1, *[1] * (values.dim() - 1))

    def give(self, name: str, values: Tensor, owner: Tensor, divisor: Any) -> None:
        """Record the values (N,) float32 of item `name` for the credits `owner` (N,)."""
        self.own[name] = values.new_zeros(self.credits + 1).index_add(0, owner, values)[:-1] / divisor

    def of_labels(self, logits: Tensor, image: Tensor) -> OfLabels | None:
        """Return means over the anchors of an object, then over the objects of each credit.

        If objects have no owners, it is over those of the credit's image. Waits for nothing: the host has found the
        assigned anchors already.

        Args:
            logits: (B, classes, A).
            image: (C,) int64, image of each credit.

        Returns:
            As `of_labels`; None without boxes or with one class.
        """
        if not self.at or logits.shape[1] < 2:
            return None
        shown, anchor = self.at
        item, items = shown * self.objects + self.place[self.at].long(), self.images * self.objects
        found, label = logits[shown, :, anchor], self.labels[self.at]
        if self.owner is None:
            return of_labels(found, label, item, items, shown, self.images).take(image)
        return of_labels(found, label, item, items, self.owner[self.at], self.credits + 1).take(slice(-1))

    def in_order(self) -> Tensor:
        """Return (B,) int64: the images with assigned anchors in ascending order, then the others."""
        return self.foreground.any(1).int().argsort(descending=True, stable=True)


def credit_table(batch: dict[str, Any]) -> Tensor:
    """Return (B, N) int64: the credit of the j-th object of each image, C if unknown, as the host pads its targets.

    N is the number of objects in the batch, which is known without waiting for the device.
    """
    image, credit = batch["batch_idx"].long(), batch["credit_object"]
    images, count = len(batch["img"]), len(image)
    offset = torch.zeros(images + 1, dtype=torch.int64, device=image.device)
    offset.index_add_(0, image + 1, torch.ones_like(image))
    place = torch.arange(count, device=image.device) - offset.cumsum(0)[image]
    none = len(batch["credit_index"])
    table = torch.full((images, count), none, device=image.device)
    table[image, place] = credit.masked_fill(credit < 0, none)
    return table


def binary_entropy(logit: Tensor) -> Tensor:
    """Return the entropy of sigmoid(logit) divided by ln 2, of the same shape."""
    p = logit.sigmoid()
    return -(p * F.logsigmoid(logit) + (1 - p) * F.logsigmoid(-logit)) / LN2


def softmax_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the softmax over dimension 1, of size C, divided by ln C; of the sigmoid if C is 1."""
    logits = logits.detach().float()
    if logits.shape[1] == 1:
        return binary_entropy(logits[:, 0])
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])


def entropy_of(scores: Tensor, foreground: Tensor) -> Tensor:
    """Return (B,) float32 in [0, 1]: mean binary entropy, divided by ln 2, of the best class at the relevant anchors.

    These are `PLACES` anchors: the assigned ones first, then the most confident ones; thousands of background anchors
    are left out.

    Args:
        scores: (B, nc, A) logits.
        foreground: (B, A) bool, assigned anchors.
    """
    best = scores.detach().float().amax(1)
    places = (best + 1e4 * foreground).topk(min(PLACES, best.shape[1]), dim=1).indices
    return binary_entropy(best.gather(1, places)).mean(1)


def pooled(levels: Any) -> Tensor:
    """Return (B, F) float32: one or several feature maps (B, C, h, w), averaged over space and concatenated."""
    levels = [levels] if isinstance(levels, Tensor) else levels
    return torch.cat([level.detach().float().flatten(2).mean(2) for level in levels], 1)


class FeatureTap:
    """Records the pooled inputs of a head by a forward pre-hook.

    A copy or pickle, as in the EMA model and its checkpoints, is a built-in function that has no effect, so loading
    one does not need our package.

    Attributes:
        last: (B, F) float32, pooled inputs of the last training forward.
    """

    last: Tensor

    def __init__(self, head: nn.Module):
        linear = getattr(head, "linear", None)  # that of a classification head gets what is pooled already
        (head if linear is None else linear).register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Keep the pooled inputs of a training forward."""
        if module.training:
            inputs = args[0]
            flat = isinstance(inputs, Tensor) and inputs.dim() == 2
            self.last = inputs.detach().float() if flat else pooled(inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return {}.get

    def __reduce__(self) -> Any:
        return getattr, ({}, "get")
