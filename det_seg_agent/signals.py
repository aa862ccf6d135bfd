"""What training forward passes tell of samples, from the device to one row per sample."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from det_seg_agent.features import Projector


@dataclass(frozen=True)
class Signals:
    """Signals of I training images, credited to the samples that they show by C credits.

    Attributes:
        loss: (I,) float32, training loss of each image.
        entropy: (I,) float32 in [0, 1], predictive entropy of each image.
        sufficiency: (I,) float32 in [0, 1], min of precision and recall on each image (AFSS, arXiv 2603.17684); NaN
            where a loop does not tell it.
        features: (I, F) float16, feature vector of each image.
        step: (I,) int64, the mini-batch that the image was in, rising within a pass.
        index: (C,) int64, dataset index that a credit goes to.
        image: (C,) int64, row of the image that the credit is for.
        share: (C,) float32 in (0, 1], share of that image that shows the sample; sums to 1 over an image.
    """

    loss: Tensor
    entropy: Tensor
    sufficiency: Tensor
    features: Tensor
    step: Tensor
    index: Tensor
    image: Tensor
    share: Tensor

    def __len__(self) -> int:
        return len(self.loss)

    def images(self, start: int, stop: int) -> "Signals":
        """Return the signals of the images start..stop-1; credits must be in image order, as `drain` leaves them."""
        bounds = torch.searchsorted(self.image, torch.tensor([start, stop]))
        credits = slice(int(bounds[0]), int(bounds[1]))
        rows = slice(start, stop)
        return Signals(
            self.loss[rows],
            self.entropy[rows],
            self.sufficiency[rows],
            self.features[rows],
            self.step[rows],
            self.index[credits],
            self.image[credits] - start,
            self.share[credits],
        )


def join(parts: list[Signals]) -> Signals:
    """Return the signals of consecutive stretches of one pass as those of one stretch."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    images, steps, step, image = 0, 0, [], []
    for part in parts:
        step.append(part.step + steps)
        image.append(part.image + images)
        images, steps = images + len(part), steps + int(part.step[-1]) + 1
    columns = {
        name: torch.cat([getattr(p, name) for p in parts]) for name in ("loss", "entropy", "sufficiency", "features")
    }
    credits = {name: torch.cat([getattr(p, name) for p in parts]) for name in ("index", "share")}
    return Signals(**columns, **credits, step=torch.cat(step), image=torch.cat(image))


@dataclass(frozen=True)
class SampleSignals:
    """Signals of U distinct samples, as in `Signals`: `index` (U,) int64, rising; the rest float32, (U,) or (U, F)."""

    index: Tensor
    loss: Tensor
    entropy: Tensor
    sufficiency: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def cat(cls, parts: "list[SampleSignals]") -> "SampleSignals":
        """Return the rows of all parts, in order."""
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))


def per_sample(signals: Signals) -> SampleSignals:
    """Return one row per credited sample: the mean of its images, weighted by the share that shows it."""
    index, row = torch.unique(signals.index, return_inverse=True)
    weight = torch.zeros(len(index)).index_add_(0, row, signals.share).clamp_(min=1e-12)
    share = signals.share / weight[row]

    def mean(values: Tensor) -> Tensor:
        part = values[signals.image].float()
        part.mul_(share if values.dim() == 1 else share[:, None])
        return torch.zeros(len(index), *values.shape[1:]).index_add_(0, row, part)

    columns = (signals.loss, signals.entropy, signals.sufficiency, signals.features)
    return SampleSignals(index, *map(mean, columns))


@dataclass
class SignalBuffer:
    """Collects the signals of a pass on the device that made them, without a host synchronisation in a step.

    Every `chunk` images they move to the host; `drain` hands over the pass. Non-finite signals are dropped there and
    counted in `dropped`.
    """

    projector: Projector
    chunk: int = 4096
    dropped: int = 0
    _device: list[tuple[Tensor, ...]] = field(default_factory=list)
    _host: list[tuple[Tensor, ...]] = field(default_factory=list)
    _waiting: int = 0
    _images: int = 0
    _step: int = 0

    def add(
        self,
        loss: Tensor,
        entropy: Tensor,
        features: Tensor,
        index: Tensor,
        image: Tensor | None = None,
        share: Tensor | None = None,
        sufficiency: Tensor | None = None,
    ) -> None:
        """Take the signals of one mini-batch of B images; arguments as in `Signals`, any float dtype, any device.

        Without `image` and `share`, image i shows the sample `index[i]` alone.
        """
        images = len(loss)
        if image is None:
            image = torch.arange(images, device=loss.device)
        if share is None:
            share = torch.ones(len(index), device=loss.device)
        if sufficiency is None:
            sufficiency = torch.full((images,), float("nan"), device=loss.device)
        step = torch.full((images,), self._step, dtype=torch.int64, device=loss.device)
        compact = self.projector(features.detach().float()).half()
        self._device.append(
            (
                loss.detach().float(),
                entropy.detach().float(),
                sufficiency.detach().float(),
                compact,
                step,
                index.to(loss.device, torch.int64, non_blocking=True),
                image.to(loss.device, torch.int64, non_blocking=True) + self._images,
                share.to(loss.device, torch.float32, non_blocking=True),
            )
        )
        self._step += 1
        self._images += images
        self._waiting += images
        if self._waiting >= self.chunk:
            self._to_host()

    def _to_host(self) -> None:
        if self._device:
            self._host.append(tuple(torch.cat(column).cpu() for column in zip(*self._device, strict=True)))
        self._device, self._waiting = [], 0

    def clear(self) -> None:
        """Forget what was collected, as at the start of a pass."""
        self._device, self._host, self._waiting, self._images, self._step, self.dropped = [], [], 0, 0, 0, 0

    def drain(self) -> Signals:
        """Return the finite signals of the pass, on the host, credits in image order, and start anew."""
        self._to_host()
        if self._host:
            signals = Signals(*(torch.cat(column) for column in zip(*self._host, strict=True)))
        else:
            signals = empty_signals(self.projector.out_features)
        self.clear()
        signals, self.dropped = finite(signals)
        return signals


def empty_signals(features: int) -> Signals:
    """Return the signals of no image."""
    none, ids = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    return Signals(none, none, none, torch.zeros(0, features, dtype=torch.float16), ids, ids, ids, none)


def finite(signals: Signals) -> tuple[Signals, int]:
    """Return the images whose loss, entropy and features are all finite, and the number of the others."""
    good = signals.loss.isfinite() & signals.entropy.isfinite() & signals.features.isfinite().all(1)
    dropped = int((~good).sum())
    if not dropped:
        return signals, 0
    kept = good[signals.image]
    row = torch.cumsum(good, 0) - 1
    return (
        Signals(
            signals.loss[good],
            signals.entropy[good],
            signals.sufficiency[good],
            signals.features[good],
            signals.step[good],
            signals.index[kept],
            row[signals.image[kept]],
            signals.share[kept],
        ),
        dropped,
    )
