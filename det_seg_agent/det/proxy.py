"""Proxies of the host's data set, used by `det.dataset` and by its mixing transforms."""

import random
from typing import Any

import numpy as np

from det_seg_agent.det.shared_pass import SharedPass
from det_seg_agent.det.sources import Sources

FEW = 4  # with fewer images in the buffer, Mosaic would mix an image with itself


class Proxy:
    """Forwards attribute access to the wrapped data set and passes `isinstance` checks for its class.

    Subclasses keep their own attributes in their `__dict__`, under names that start with `_agent_`.
    """

    def __init__(self, wrapped: Any, **own: Any):
        vars(self).update(__wrapped__=wrapped, **own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # also during copying, when there is no `__wrapped__` yet
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__wrapped__, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__wrapped__, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self.__wrapped__)

    def __reduce__(self) -> Any:  # as the default one, which refuses an object whose `__class__` differs
        return object.__new__, (type(self),), vars(self)

    def __len__(self) -> int:
        return len(self.__wrapped__)

    def __getitem__(self, index: int) -> Any:
        return self.__wrapped__[index]


class Noted(Proxy):
    """Data set for mixing transforms that records which sample each label comes from.

    Args:
        wrapped: the host's data set.
        sources: the record of sources.
        mixed: whether to record each returned sample as mixed into the current item.
    """

    def __init__(self, wrapped: Any, sources: Sources, mixed: bool):
        super().__init__(wrapped, _agent_sources=sources, _agent_mixed=mixed)

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Return the host's image and label of a sample."""
        label: dict[str, Any] = self.__wrapped__.get_image_and_label(index)
        self._agent_sources.note(label, index)
        if self._agent_mixed:
            self._agent_sources.mix(label, index)
        return label

    def __getitem__(self, index: int) -> Any:
        item = self.__wrapped__[index]
        if self._agent_mixed:
            self._agent_sources.mix(item, index)
        return item


class Partners(Noted):
    """The selection as a data set, indexed by position in it; the host's mixing transforms draw partners from it.

    It supports what they use: `buffer`, `cache`, `len`, `get_image_and_label` and attributes.
    """

    def __init__(self, wrapped: Any, sources: Sources, current: SharedPass):
        super().__init__(wrapped, sources, mixed=False)
        vars(self).update(_agent_current=current)

    def __len__(self) -> int:
        return len(self._agent_current.selection)

    @property
    def buffer(self) -> list[int]:
        """Positions of recently loaded, selected images; random positions while there are fewer than `FEW`."""
        chosen, recent = self._agent_current.selection, np.asarray(self.__wrapped__.buffer, dtype=np.int64)
        places = np.searchsorted(chosen, recent).clip(max=len(chosen) - 1)
        near: list[int] = places[chosen[places] == recent].tolist()
        return near if len(near) >= FEW else [random.randrange(len(chosen)) for _ in range(2 * FEW)]

    def get_image_and_label(self, place: int) -> dict[str, Any]:
        """Return the host's image and label of the sample at position `place`."""
        return super().get_image_and_label(int(self._agent_current.selection[place]))

    def __getitem__(self, place: int) -> Any:
        return self.__wrapped__[int(self._agent_current.selection[place])]
