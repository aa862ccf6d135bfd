"""Runs of the core, alone or under torchrun: `core_probe.py SAMPLES PASSES [FAULT...]`; one run for each fault.

With OTHERS="KEY=VALUE;..." in the environment rank 1 starts anew with the first of these variables, rank 2 with the
second.
"""

import hashlib
import os
import sys

rank = int(os.environ.get("RANK", 0))
others = os.environ.pop("OTHERS", "").split(";")
if 0 < rank <= len(others) and others[rank - 1]:  # before torch reads it
    os.environ.update([others[rank - 1].split("=")])
    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from det_seg_agent import ConfigError, Request, Selection, Selector, StateError, Strategy  # noqa: E402


class Failing(Strategy):
    """Cannot select."""

    def select(self, request: Request) -> Selection:
        """Fail, on the rank that is asked."""
        raise StateError(f"rank {dist.get_rank()} cannot select")


def main(samples: int, passes: int, fault: str = "") -> None:
    """Run, and print what was selected, or how many samples ranks trained on twice."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    g = torch.Generator().manual_seed(0)
    features = torch.randn(samples, 448, generator=g)
    loss, entropy = features[:, 0].exp(), features[:, 1].sigmoid()
    selector = Selector(
        samples,
        passes,
        ratio=0.5,
        seed=rank if fault == "seed" else 0,
        strategy="core_probe:Failing" if fault == "fails" else "agent",
        samples=None if fault == "size" else [f"{i + rank if fault == 'samples' else i}.jpg" for i in range(samples)],
        rank=0 if fault == "alone" else rank,
        world_size=1 if fault == "alone" else processes,
    )
    if fault == "size":
        selector.load_state_dict(Selector(samples + 1, passes, ratio=0.5, seed=0).state_dict())
    picked, twice = hashlib.sha256(), []
    for p in range(passes):
        chosen = selector.begin_pass(p).indices
        picked.update(chosen.numpy().tobytes())
        if fault == "selection" and p == 1 and rank == 1:
            selector.selection = Selection(chosen + 1)
        for rows in torch.tensor(list(selector.sampler)).split(50):
            selector.observe(rows, loss[rows], entropy[rows], features[rows], sufficiency=1 - entropy[rows])
        if processes > 1:
            trained = [None] * processes
            dist.all_gather_object(trained, list(selector.sampler))
            everything = [index for part in trained for index in part or []]
            twice.append(len(everything) - len(set(everything)) - selector.sampler.padding)
        selector.end_pass()
    if rank == 0:
        print("twice", *twice) if processes > 1 else print(picked.hexdigest())


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    for what in sys.argv[3:] or [""]:
        try:
            main(int(sys.argv[1]), int(sys.argv[2]), what)
        except (ConfigError, StateError) as error:
            sys.stdout.write(f"{what} on rank {rank}: {error}\n")  # at once, as other ranks write too
            sys.stdout.flush()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads abort a process at times that takes its group down
