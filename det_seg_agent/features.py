"""Compact features: a fixed random projection, and a store of one fp16 vector per sample. The agent uses them."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from det_seg_agent.errors import StateError
from det_seg_agent.ranks import one_thread
from det_seg_agent.seeding import generator

BLOCK = 65536  # rows processed at a time, to bound memory


class Projector:
    """Projects features of any width to at most `dim` values by a Gaussian random matrix (Johnson-Lindenstrauss).

    The matrix is a function of (seed, width, dim) and need not be saved. With `dim=None`, or a width of at most `dim`,
    features are not projected; `dim=0` keeps none. Values are clamped to fp16's range.
    """

    LIMIT = 6e4

    def __init__(self, dim: int | None, seed: int):
        self.dim, self.seed = dim, seed
        self.in_features: int | None = None
        self._matrix: Tensor | None = None

    @property
    def out_features(self) -> int:
        """Width after projection; 0 before the first call."""
        if self.in_features is None:
            return 0
        return self.in_features if self.dim is None else min(self.dim, self.in_features)

    def __call__(self, features: Tensor) -> Tensor:
        """Return (B, out_features) float32 for (B, in_features) float32, on the same device.

        Raises:
            StateError: if the width differs from that of earlier features.
        """
        width = features.shape[1]
        if self.in_features is None:
            self.in_features = width
        if width != self.in_features:
            raise StateError(
                f"features have {width} values a sample, earlier ones {self.in_features}: the model's width has "
                "changed. Start a new run, or go on with the model that the state was saved with."
            )
        if self.out_features == width or self.dim == 0:
            return features[:, : self.out_features].clamp(-self.LIMIT, self.LIMIT)
        if self._matrix is None or self._matrix.device != features.device:
            matrix = torch.randn(width, self.out_features, generator=generator(self.seed, "projection", width))
            self._matrix = (matrix / self.out_features**0.5).to(features.device)
        threads = one_thread() if features.device.type == "cpu" else nullcontext()
        with threads, torch.autocast(features.device.type, enabled=False):
            return (features @ self._matrix).clamp(-self.LIMIT, self.LIMIT)


class FeatureStore:
    """Last feature vector of every sample, (num_samples, F) float16: 2 F bytes a sample (128 bytes for F = 64).

    Features are detrended (`sums.less_mean`). During a pass a row is the mean over the sample's images so far,
    weighted by share.
    """

    def __init__(self, num_samples: int):
        self.num_samples = num_samples
        self.rows = torch.zeros(num_samples, 0, dtype=torch.float16)
        self.mean = torch.zeros(0)
        self.std = torch.ones(0)

    def blend(self, index: Tensor, before: Tensor, features: Tensor, share: Tensor) -> None:
        """Update the samples' means of the current pass.

        Args:
            index: (U,) int64, distinct samples.
            before: (U,) float32, sum of shares in the stored row; 0 replaces a row from an earlier pass.
            features: (U, F) float32, sums of features times share.
            share: (U,) float32 > 0, sums of shares.
        """
        if self.rows.shape[1] != features.shape[1]:
            self.rows = torch.zeros(self.num_samples, features.shape[1], dtype=torch.float16)
        old = self.rows[index].float().mul_(before[:, None])
        self.rows[index] = old.add_(features).div_((before + share)[:, None]).half()

    def standardise(self, index: Tensor) -> None:
        """Set the mean and standard deviation for `standardised` to those of the samples `index` (U,)."""
        total, squares = torch.zeros(2, self.rows.shape[1], dtype=torch.float64)
        for block in index.split(BLOCK):
            rows = self.rows[block].float()
            total += rows.sum(0)
            squares += rows.square_().sum(0)
        mean = total / max(len(index), 1)
        self.mean = mean.float()
        self.std = (squares / max(len(index), 1) - mean**2).clamp(min=0).sqrt().float().clamp(min=1e-4)

    def standardised(self, index: Tensor | slice) -> Tensor:
        """Return features (n, F) float32, standardised as `standardise` set and clipped to [-5, 5]."""
        return self.rows[index].float().sub_(self.mean).div_(self.std).clamp_(-5, 5)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, their mean and their standard deviation, as tensors."""
        return {"rows": self.rows, "mean": self.mean, "std": self.std}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.rows, self.mean, self.std = (state[key].clone() for key in ("rows", "mean", "std"))
