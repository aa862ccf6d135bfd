"""Signals of training images, and the buffer that moves them from the device to the CPU. `Selector` uses both."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from det_seg_agent.features import Projector

# The columns of `Signals` but for `image`, by what they have a row for.
OF_IMAGES = ("loss", "entropy", "sufficiency", "features", "step")
OF_CREDITS = ("index", "share", "sample_loss", "agreement", "least_agreement", "label_loss", "expected_loss")


@dataclass(frozen=True)
class Signals:
    """Signals of I training images, with C credits that assign them to samples.

    An image may show several samples, as Mosaic does; each (image, sample) pair is a credit with a share.

    Attributes:
        loss: (I,) float32, training loss of each image.
        entropy: (I,) float32 in [0, 1], predictive entropy of each image.
        sufficiency: (I,) float32 in [0, 1], min of precision and recall on each image (AFSS, arXiv 2603.17684); NaN
            if the training loop does not provide it.
        features: (I, F) float16 (float32 after detrending), feature vector of each image.
        step: (I,) int64, index of the image's mini-batch, ascending within a pass.
        index: (C,) int64, dataset index of each credit's sample.
        image: (C,) int64, row of each credit's image.
        share: (C,) float32 in (0, 1], fraction of the image that shows the sample; sums to 1 over an image.
        sample_loss: (C,) float32, loss of the sample in the image, as if it filled the image: the mean over an image's
            credits, weighted by share, is the image's loss. The image's loss if it is not provided.
        agreement: (C,) float32 in [0, 1], probability that the model gives the sample's labels in the image, averaged
            over objects or pixels. NaN if the image shows none, or if it is not provided.
        least_agreement: (C,) float32 in [0, 1], soft minimum of the same over objects; `agreement` if it is not
            provided.
        label_loss: (C,) float32, loss of the sample's labels that `expected_loss` is compared with, averaged over
            objects or pixels; `sample_loss` if it is not provided.
        expected_loss: (C,) float32, the `label_loss` that the model itself expects: for a cross-entropy, the entropy
            of its prediction in nats. NaN if the image shows no labels, or if it is not provided.
    """

    loss: Tensor
    entropy: Tensor
    sufficiency: Tensor
    features: Tensor
    step: Tensor
    index: Tensor
    image: Tensor
    share: Tensor
    sample_loss: Tensor
    agreement: Tensor
    least_agreement: Tensor
    label_loss: Tensor
    expected_loss: Tensor

    def __len__(self) -> int:
        return len(self.loss)

    def images(self, start: int, stop: int) -> "Signals":
        """Return the signals of the images start..stop-1; credits must be sorted by image, as `drain` returns them."""
        bounds = torch.searchsorted(self.image, torch.tensor([start, stop]))
        credits = slice(int(bounds[0]), int(bounds[1]))
        return self.take(slice(start, stop), credits, self.image[credits] - start)

    def take(self, rows: Tensor | slice, credits: Tensor | slice, image: Tensor) -> "Signals":
        """Return the images `rows` with the credits `credits`, whose images are the new rows `image`."""
        images = {name: getattr(self, name)[rows] for name in OF_IMAGES}
        return Signals(**images, **{name: getattr(self, name)[credits] for name in OF_CREDITS}, image=image)


def join(parts: list[Signals]) -> Signals:
    """Concatenate signals that were collected at successive points of one pass."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    starts = [0, *torch.tensor([len(part) for part in parts]).cumsum(0).tolist()]
    image = torch.cat([part.image + start for part, start in zip(parts, starts, strict=False)])
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in OF_IMAGES + OF_CREDITS}
    return Signals(image=image, **columns)


def by_step(parts: list[Signals]) -> Signals:
    """Merge the signals of several ranks for the same steps, in (step, rank) order."""
    signals = join(parts)
    order = signals.step.argsort(stable=True)
    row = torch.empty_like(order)
    row[order] = torch.arange(len(order))
    image = row[signals.image]
    credit = image.argsort(stable=True)
    return signals.take(order, credit, image[credit])


@dataclass
class SignalBuffer:
    """Collects signals on the training device, without a device synchronisation in a training step.

    When `chunk` images are buffered (`is_full`), call `drain` to move them to the CPU. It drops images whose signals
    are not finite and counts them in `dropped`.
    """

    projector: Projector
    chunk: int = 4096
    dropped: int = 0
    _device: list[tuple[Tensor, ...]] = field(default_factory=list)
    _images: int = 0
    step: int = 0  # mini-batches of the pass so far

    @property
    def is_full(self) -> bool:
        """Whether at least `chunk` images are buffered."""
        return self._images >= self.chunk

    def add(
        self,
        loss: Tensor,
        entropy: Tensor,
        features: Tensor,
        index: Tensor,
        image: Tensor | None = None,
        share: Tensor | None = None,
        sufficiency: Tensor | None = None,
        sample_loss: Tensor | None = None,
        agreement: Tensor | None = None,
        least_agreement: Tensor | None = None,
        label_loss: Tensor | None = None,
        expected_loss: Tensor | None = None,
    ) -> None:
        """Add the signals of one mini-batch of B images; arguments as in `Signals`, of any float dtype and device.

        Without `image` and `share`, image i shows only the sample `index[i]`.
        """
        images = len(loss)
        if image is None:
            image = torch.arange(images, device=loss.device)
        if share is None:
            share = torch.ones(len(index), device=loss.device)
        if sufficiency is None:
            sufficiency = torch.full((images,), float("nan"), device=loss.device)
        image, loss = image.to(loss.device, torch.int64, non_blocking=True), loss.detach().float()
        if sample_loss is None:
            sample_loss = loss[image]
        unknown = torch.full((len(index),), float("nan"), device=loss.device)
        agreement = unknown if agreement is None else agreement
        step = torch.full((images,), self.step, dtype=torch.int64, device=loss.device)
        compact = self.projector(features.detach().float()).half()
        self._device.append(
            (
                loss,
                entropy.detach().float(),
                sufficiency.detach().float(),
                compact,
                step,
                index.to(loss.device, torch.int64, non_blocking=True),
                image + self._images,
                share.to(loss.device, torch.float32, non_blocking=True),
                sample_loss.detach().float(),
                agreement.detach().float(),
                (agreement if least_agreement is None else least_agreement).detach().float(),
                (sample_loss if label_loss is None else label_loss).detach().float(),
                (unknown if expected_loss is None else expected_loss).detach().float(),
            )
        )
        self.step += 1
        self._images += images

    def clear(self) -> None:
        """Discard the buffered signals and reset the counters, for the start of a pass."""
        self._device, self._images, self.step, self.dropped = [], 0, 0, 0

    def drain(self) -> Signals:
        """Return the finite signals since the last `drain`, on the CPU, with credits sorted by image."""
        if not self._device:
            return empty_signals(self.projector.out_features)
        signals = Signals(*(torch.cat(column).cpu() for column in zip(*self._device, strict=True)))
        self._device, self._images = [], 0
        signals, dropped = finite(signals)
        self.dropped += dropped
        return signals


def empty_signals(features: int) -> Signals:
    """Return `Signals` of zero images with features of width `features`."""
    none, ids = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    wide = torch.zeros(0, features, dtype=torch.float16)
    return Signals(none, none, none, wide, ids, ids, ids, none, none, none, none, none, none)


def finite(signals: Signals) -> tuple[Signals, int]:
    """Return the images whose loss, entropy and features are all finite, and the number of images dropped."""
    good = signals.loss.isfinite() & signals.entropy.isfinite() & signals.features.isfinite().all(1)
    dropped = int((~good).sum())
    if not dropped:
        return signals, 0
    kept = good[signals.image]
    row = torch.cumsum(good, 0) - 1
    return signals.take(good, kept, row[signals.image[kept]]), dropped
