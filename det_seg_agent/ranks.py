"""Collectives for several processes: gather on rank 0, decide there, broadcast the result. `Selector` uses them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from det_seg_agent.errors import StateError

T = TypeVar("T")


def world() -> tuple[int, int]:
    """Return (rank, number of processes); (0, 1) without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's CPU operations in one thread, so that rounding does not depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def decide(work: Callable[[], T]) -> T:
    """Run `work` on rank 0, in one thread, and broadcast its result; if it raises, raise the error on every rank.

    This is a collective if there are several processes.
    """
    rank, processes = world()
    if processes == 1:
        with one_thread():
            return work()
    box: list[Any] = [None, None]
    if rank == 0:
        try:
            with one_thread():
                box[0] = work()
        except Exception as error:  # raised after the broadcast: otherwise the other ranks would wait for ever
            box[1] = error
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    result: T = box[0]
    return result


def gather_objects(value: Any) -> list[Any]:
    """All-gather small objects: return the value of every rank, in rank order. A collective."""
    processes = world()[1]
    if processes == 1:
        return [value]
    values: list[Any] = [value] * processes
    dist.all_gather_object(values, value)
    return values


def refuse_unlike(mine: Callable[[], dict[str, Any]], what: str) -> None:
    """Check that all ranks hold the same values. A collective.

    Args:
        mine: returns this rank's values by name; called only if there are several processes.
        what: the moment of the check, for the message.

    Raises:
        StateError: on every rank if a rank differs from rank 0; names the first such rank, the name and both values.
    """
    if world()[1] == 1:
        return
    values = gather_objects(mine())
    for rank, theirs in enumerate(values):
        for name, value in values[0].items():
            if theirs[name] != value:
                raise StateError(
                    f"{what}: rank {rank} has {name}={theirs[name]!r}, rank 0 has {name}={value!r}. Start all "
                    "processes with the same settings, data and checkpoint."
                )


def gather_rows(rows: Tensor) -> list[Tensor]:
    """Gather the rows (n_r, ...) of every rank on rank 0, in rank order; return an empty list on the other ranks.

    This is a collective. n_r may differ between ranks; dtype and the other dimensions must be equal. With NCCL the
    rows are copied through the current CUDA device.
    """
    rank, processes = world()
    if processes == 1:
        return [rows]
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else rows.device
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(processes)]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=device))
    longest = max(int(length) for length in lengths)
    padded = torch.zeros(longest, *rows.shape[1:], dtype=rows.dtype, device=device)
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(processes)] if rank == 0 else None
    dist.gather(padded, parts, dst=0)
    return [part[: int(length)].cpu() for part, length in zip(parts or [], lengths, strict=False)]
