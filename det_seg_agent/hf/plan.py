"""How long a run over selections is: batches and optimizer steps of each pass. `hf.run` uses it."""

from dataclasses import dataclass

from det_seg_agent.errors import ConfigError
from det_seg_agent.schedule import Schedule


@dataclass(frozen=True)
class Layout:
    """How a pass is cut into batches and steps.

    Attributes:
        batch: samples of a batch of one process.
        processes: number of processes.
        accumulation: batches of an optimizer step.
    """

    batch: int
    processes: int
    accumulation: int

    @property
    def whole(self) -> int:
        """Samples of an optimizer step, over all processes."""
        return self.batch * self.processes * self.accumulation

    def batches_of(self, samples: int) -> int:
        """Return the batches that each process makes of `samples` samples."""
        return -(-samples // (self.batch * self.processes))

    def padded(self, samples: int) -> int:
        """Return how many samples are trained on: several processes fill up their last batches."""
        return samples if self.processes == 1 else self.batches_of(samples) * self.batch * self.processes


@dataclass(frozen=True)
class Plan:
    """The length of a run.

    Attributes:
        batches: batches of each pass, on each process.
        images: samples that the run trains on, over all processes, padding included.
        full_images: the same of training on all samples.
        accumulation: batches of an optimizer step.
        limit: most steps of the run.
    """

    batches: tuple[int, ...]
    images: int
    full_images: int
    accumulation: int
    limit: int | None = None

    def steps_of(self, pass_index: int) -> int:
        """Return the optimizer steps of a pass; its last one may be of fewer batches."""
        return -(-self.batches[pass_index] // self.accumulation)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        total = sum(map(self.steps_of, range(len(self.batches))))
        return total if self.limit is None else min(total, self.limit)

    @property
    def budget(self) -> float:
        """Share of `full_images` that the run trains on."""
        return min(1.0, self.images / self.full_images)

    def place_of(self, step: int) -> tuple[int, int]:
        """Return (pass, batches of it that are done) after `step` optimizer steps of the run."""
        for index in range(len(self.batches)):
            if step < self.steps_of(index):
                return index, step * self.accumulation
            step -= self.steps_of(index)
        return len(self.batches), 0


def passes_of(epochs: float, max_steps: int, samples: int, layout: Layout) -> int:
    """Return the number of passes of a run.

    Args:
        epochs: `num_train_epochs`.
        max_steps: steps of training on all samples, which overrides `epochs`; below 1 if not given.
        samples: number of samples.
        layout: batches and steps.

    Raises:
        ConfigError: if the epochs are not whole.
    """
    if max_steps > 0:
        return max(1, round(max_steps * layout.whole / samples))
    if epochs < 1 or epochs != int(epochs):
        raise ConfigError(
            f"num_train_epochs={epochs:g}: selections are made for whole epochs. Set it to "
            f"{max(1, round(epochs))}, or take agent strategy 'full'."
        )
    return int(epochs)


def plan(schedule: Schedule, passes: int, max_steps: int, samples: int, layout: Layout) -> Plan:
    """Return the length of a run over selections; arguments as in `passes_of`."""
    counts = [schedule.count_at(p, passes, samples) for p in range(passes)]
    return Plan(
        tuple(map(layout.batches_of, counts)),
        sum(map(layout.padded, counts)),
        max_steps * layout.whole if max_steps > 0 else passes * layout.padded(samples),
        layout.accumulation,
        max_steps if max_steps > 0 else None,
    )
