"""`E2ELoss` by image: YOLOv10 and YOLO26."""

from typing import Any

from torch import Tensor

from det_seg_agent.det.losses.base import OfLabels, Split
from det_seg_agent.det.losses.dense import Dense


class EndToEnd(Split):
    """Split of `E2ELoss`: two dense losses whose weights change over epochs; the one-to-one branch predicts."""

    sees_features = True

    def __init__(self, stock: Any):
        super().__init__(stock)
        self.scored = stock.one2one
        self.many, self.one = Dense(stock.one2many), Dense(stock.one2one)

    def begin(self, batch: dict[str, Any], weights: Tensor | None) -> None:
        """See `Split`."""
        self.many.begin(batch, weights)
        self.one.begin(batch, weights)

    def parts(self) -> Tensor:
        """See `Split`; of the one-to-one branch, which the host reports."""
        return self.one.parts()

    def total(self) -> Tensor:
        """See `Split`; of both branches."""
        return self.many.total() * self.stock.o2m + self.one.total() * self.stock.o2o

    def objects(self) -> Tensor | None:
        """See `Split`; of both branches."""
        many, one = self.many.objects(), self.one.objects()
        return None if many is None or one is None else many * self.stock.o2m + one * self.stock.o2o

    def of_labels(self, preds: Any, batch: dict[str, Any], image: Tensor) -> OfLabels | None:
        """See `Split`; of the one-to-one branch, which predicts."""
        return self.one.of_labels(self.stock.one2many.parse_output(preds)["one2one"], batch, image)

    def entropy(self, preds: Any, batch: dict[str, Any]) -> Tensor:
        """See `Split`; of the one-to-one branch, which predicts."""
        return self.one.entropy(self.stock.one2many.parse_output(preds)["one2one"], batch)

    def features(self, preds: Any) -> Tensor:
        """See `Split`."""
        return self.one.features(self.stock.one2many.parse_output(preds)["one2one"])
