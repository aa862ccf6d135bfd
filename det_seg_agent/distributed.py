"""What all ranks know, in one place."""

from typing import Any

import torch
import torch.distributed as dist

from det_seg_agent.signals import Signals


def gather_signals(signals: Signals) -> Signals:
    """Return the signals of every rank, in (step, rank) order and alike on all ranks; without a group, as they are.

    A collective: every rank must call it, once a pass.
    """
    parts: list[Signals] = gather_objects(signals)
    if len(parts) == 1:
        return signals
    parts = [part for part in parts if len(part)] or parts[:1]
    step = torch.cat([part.step for part in parts])
    offsets = torch.tensor([0, *[len(part) for part in parts]]).cumsum(0).tolist()
    image = torch.cat([part.image + offset for part, offset in zip(parts, offsets, strict=False)])
    order = step.argsort(stable=True)
    row = torch.empty_like(order)
    row[order] = torch.arange(len(order))
    image = row[image]
    credit = image.argsort(stable=True)
    return Signals(
        torch.cat([part.loss for part in parts])[order],
        torch.cat([part.entropy for part in parts])[order],
        torch.cat([part.sufficiency for part in parts])[order],
        torch.cat([part.features for part in parts])[order],
        step[order],
        torch.cat([part.index for part in parts])[credit],
        image[credit],
        torch.cat([part.share for part in parts])[credit],
    )


def gather_objects(value: Any) -> list[Any]:
    """Return the value of every rank, by rank; a collective where there are several."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [value]
    values: list[Any] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
