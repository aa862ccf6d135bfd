"""`PassSignals`: the signals of the current pass, summed by sample and gathered from all ranks. `Selector` has one."""

from typing import Any

from det_seg_agent.classes import Classes
from det_seg_agent.features import Projector
from det_seg_agent.ranks import gather_objects, gather_rows, one_thread, world
from det_seg_agent.signals import SignalBuffer, Signals, by_step, empty_signals, join
from det_seg_agent.strategies import Strategy
from det_seg_agent.sums import Drift, SampleSignals, SampleSums
from det_seg_agent.table import ScoreTable


class PassSignals:
    """Takes the signals of each step; on rank 0 it has those of all ranks after `collect`.

    Args:
        table: score table of the run.
        strategy: says whether features and signals of single images are needed.
        seed: seed of the projection of features.
        classes: counts by class, which are collected as well.

    Attributes:
        buffer: signals that are still on the device.
        dropped: images whose signals were not finite, of the current pass; of all ranks after `collect`.
    """

    def __init__(self, table: ScoreTable, strategy: Strategy, seed: int, classes: Classes | None):
        self.strategy, self.classes = strategy, classes
        self.buffer = SignalBuffer(Projector(strategy.feature_dim, seed))
        keeps = strategy.keeps_features and strategy.feature_dim != 0
        self._sums = SampleSums(len(table), table.features if keeps else None)
        self.clear()

    def clear(self) -> None:
        """Discard the signals of the current pass."""
        self.buffer.clear()
        self._sums.clear()
        if self.classes is not None:
            self.classes.clear()
        self._drift = Drift()
        self._drifts: list[dict[str, Any]] = []  # of all ranks, when they were gathered last
        self._images: list[Signals] = []  # where the strategy learns from images
        self.dropped = 0

    def sum_up(self, last: bool = False) -> None:
        """Add the buffer's signals to the sums; `last` ends the pass."""
        self._drifts = []
        signals = self.buffer.drain()
        if self.strategy.needs_images and len(signals):
            self._images.append(signals)
        with one_thread():
            self._sums.add(*self._drift.push(signals, last))

    def gather(self) -> None:
        """Collect what there is within a pass, so that a state of rank 0 holds it. A collective."""
        self.sum_up()
        self.collect()
        self._drifts = gather_objects(self._drift.state_dict())

    def collect(self) -> None:
        """Bring the sums of all ranks to rank 0. A collective."""
        rank, processes = world()
        self.dropped, self.buffer.dropped = self.dropped + sum(gather_objects(self.buffer.dropped)), 0
        if self.classes is not None:
            self.classes.collect()
        if processes == 1:
            return
        with one_thread():
            self._sums.collect()
        if self.strategy.needs_images:
            width = max(gather_objects(self.buffer.projector.out_features))
            mine = join(self._images) if self._images else empty_signals(width)
            columns = {name: gather_rows(column) for name, column in vars(mine).items()}
            parts = [Signals(**dict(zip(columns, part, strict=True))) for part in zip(*columns.values(), strict=True)]
            self._images = [by_step(parts)] if rank == 0 else []

    def samples(self) -> SampleSignals:
        """Return the mean signals of each sample that was seen."""
        return self._sums.samples()

    def images(self) -> Signals | None:
        """Return the signals of single images, for a strategy that needs them; None if there are none."""
        return join(self._images) if self._images else None

    def state_dict(self) -> dict[str, Any]:
        """Return the signals so far; within a pass after `gather`, else those of this rank are missing."""
        return {
            "in_features": self.buffer.projector.in_features,
            "sums": self._sums.rows if self._drifts else None,
            "drifts": self._drifts,
            "step": self.buffer.step,
            "images": [vars(part) for part in self._images],
            "dropped": self.dropped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned; sums go to rank 0, which holds what all had seen."""
        self.clear()
        self.buffer.projector.in_features = state["in_features"]
        self.buffer.step = state["step"]
        rank = world()[0]
        if rank < len(state["drifts"]):
            self._drift.load_state_dict(state["drifts"][rank])
        if rank == 0 and state["sums"] is not None:
            self._sums.rows = state["sums"].clone()
            self._drifts = state["drifts"]
            self._images = [Signals(**part) for part in state["images"]]
            self.dropped = state["dropped"]
