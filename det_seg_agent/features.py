"""Compact features: a fixed random projection, and one fp16 row per sample."""

from typing import Any

import torch
from torch import Tensor

from det_seg_agent.errors import StateError
from det_seg_agent.seeding import generator


class Projector:
    """Projects features of any width to at most `dim` by a Gaussian random matrix (Johnson-Lindenstrauss).

    The matrix follows from (seed, width, dim), so it needs no saving. `dim=None`, or a width of at most `dim`, passes
    features on as they are. Values are kept inside fp16's range.
    """

    LIMIT = 6e4

    def __init__(self, dim: int | None, seed: int):
        self.dim, self.seed = dim, seed
        self.in_features: int | None = None
        self._matrix: Tensor | None = None

    @property
    def out_features(self) -> int:
        """Width after projection; 0 before the first features came."""
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
        if self.out_features == width:
            return features.clamp(-self.LIMIT, self.LIMIT)
        if self._matrix is None or self._matrix.device != features.device:
            matrix = torch.randn(width, self.out_features, generator=generator(self.seed, "projection", width))
            self._matrix = (matrix / self.out_features**0.5).to(features.device)
        with torch.autocast(features.device.type, enabled=False):
            return (features @ self._matrix).clamp(-self.LIMIT, self.LIMIT)


class FeatureStore:
    """The last feature vector of every sample: (num_samples, F) float16, 2 F bytes a sample (F = 64: 128 bytes)."""

    def __init__(self, num_samples: int):
        self.num_samples = num_samples
        self.rows = torch.zeros(num_samples, 0, dtype=torch.float16)
        self.mean = torch.zeros(0)
        self.std = torch.ones(0)

    def put(self, index: Tensor, features: Tensor) -> None:
        """Store (U, F) features of samples `index` (U,), and take their mean and std to standardise by."""
        if not len(index):
            return
        if self.rows.shape[1] != features.shape[1]:
            self.rows = torch.zeros(self.num_samples, features.shape[1], dtype=torch.float16)
        self.rows[index] = features.half()
        self.mean = features.mean(0)
        self.std = features.std(0, unbiased=False).clamp(min=1e-4)

    def standardised(self, index: Tensor | slice) -> Tensor:
        """Return float32 features with the last pass's mean removed, over its std, clipped to +-5."""
        return self.rows[index].float().sub_(self.mean).div_(self.std).clamp_(-5, 5)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors only."""
        return {"rows": self.rows, "mean": self.mean, "std": self.std}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.rows, self.mean, self.std = (state[key].clone() for key in ("rows", "mean", "std"))
