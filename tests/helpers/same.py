"""When two states are the same."""

from typing import Any

import torch


def equal(one: Any, other: Any) -> bool:
    """Return whether two states are the same; NaN equals NaN."""
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and torch.equal(one.double().nan_to_num(-7.0), other.double().nan_to_num(-7.0))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other) or (one != one and other != other)
