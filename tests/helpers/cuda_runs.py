"""What tests on a CUDA device share: whether there is one, and what waits for it."""

import warnings
from collections.abc import Callable

import pytest
import torch

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
BUSY = 500_000_000  # clock cycles, a quarter of a second


def synchronizations(work: Callable[[], object]) -> int:
    """Return how many times torch waits for the device in `work`, by its own count."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in found)


def returns_early(work: Callable[[], object]) -> bool:
    """Return whether `work` returns while the device is still busy with something before it.

    Unlike torch's count this also sees copies from pageable memory. What `work` does must have run before, as the first
    use of a kernel loads it.
    """
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY)
    ended = torch.cuda.Event()
    ended.record()
    work()
    early = not ended.query()
    torch.cuda.synchronize()
    return early
