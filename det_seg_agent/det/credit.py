"""The host's composites, made to record which samples they show. `det.dataset` uses it.

The host's Mosaic, affine crop, MixUp and CutMix are replaced by subclasses that draw the same random numbers in the
same order and record where each sample's pixels go: `labels["shown"]`, a list of (index, corners (4, 2), weight).
With copy-paste all pixels go to the image that is pasted into. A user's own mixing transform is not changed; all its
samples get equal shares. Without any of these an item shows the image named by its `im_file`.

How much a transform tells depends on the version of the host; see `compat.tells_parameters` and
`compat.calls_methods`. Where neither is true the images of a composite count equally, and a warning says so.
"""

from typing import Any

from ultralytics.data.augment import (
    Albumentations,
    BaseMixTransform,
    Compose,
    CopyPaste,
    Format,
    LetterBox,
    RandomFlip,
    RandomHSV,
)

from det_seg_agent.det.compat import calls_methods, tells_parameters
from det_seg_agent.det.messages import LOGGER
from det_seg_agent.det.sources import Credited, Sources

if tells_parameters():
    from det_seg_agent.det.credit_params import CREDITED
elif calls_methods():
    from det_seg_agent.det.credit_methods import CREDITED
else:
    CREDITED = {}
    LOGGER.warning("this version of Ultralytics does not tell what its composites show: their images count equally.")

CARRIERS = (Albumentations, Compose, CopyPaste, Format, LetterBox, RandomFlip, RandomHSV, *CREDITED.values())


def carries(transforms: Any) -> bool:
    """Return whether all transforms, after `credit_transforms`, keep an object's class as it is: the host's own do."""
    if type(transforms) not in CARRIERS:
        return False
    inner = transforms.transforms if isinstance(transforms, Compose) else []
    before = getattr(transforms, "pre_transform", None)
    return all(carries(each) for each in inner) and (before is None or carries(before))


def credit_transforms(transforms: Any, sources: Sources, hosts: tuple[Any, ...], partners: Any, others: Any) -> None:
    """Make the transforms of a data set record the samples that they show; idempotent.

    Args:
        transforms: the data set's transforms, changed in place.
        sources: the record of sources.
        hosts: objects that a mixing transform may hold as its data set, to be replaced.
        partners: data set for the host's own mixing transforms.
        others: data set for a user's mixing transforms.
    """
    if isinstance(transforms, Compose):
        for each in transforms.transforms:
            credit_transforms(each, sources, hosts, partners, others)
    if type(transforms) in CREDITED:
        transforms.__class__ = CREDITED[type(transforms)]
        transforms.sources = sources
    if isinstance(transforms, BaseMixTransform):
        if any(transforms.dataset is host for host in hosts):
            known = isinstance(transforms, Credited) or type(transforms) is CopyPaste
            transforms.dataset = partners if known else others
        credit_transforms(transforms.pre_transform, sources, hosts, partners, others)
