"""Signals of samples in one pass, of which a test gives those that it is about."""

import torch

from det_seg_agent.sums import SampleSignals

NAMES = ("loss", "entropy", "sufficiency", "agreement", "least_agreement", "label_loss", "expected_loss")


def sample_signals(index: torch.Tensor, **given: torch.Tensor) -> SampleSignals:
    """Return signals of the samples `index` (n,); those that are not given are NaN."""
    n = len(index)
    if "agreement" in given:
        given.setdefault("least_agreement", given["agreement"])
    fields = {name: given.pop(name, torch.full((n,), float("nan"))) for name in NAMES}
    relative = given.pop("relative", torch.full((n, 3), float("nan")))
    assert not given
    return SampleSignals(index, **fields, relative=relative)
