"""`Selector`: takes the signals of each pass and makes the selection of the next one. Every adapter has one."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from det_seg_agent.choosing import choose, read_classes, start_from, strategy_of
from det_seg_agent.classes import Classes
from det_seg_agent.errors import ConfigError, StateError
from det_seg_agent.fingerprint import (
    FORMAT,
    digest,
    on_cpu,
    packed,
    refuse_other_samples,
    refuse_other_settings,
    refuse_other_size,
)
from det_seg_agent.pass_report import PassReport
from det_seg_agent.pass_signals import PassSignals
from det_seg_agent.ranks import decide, refuse_unlike, world
from det_seg_agent.sampler import SelectionSampler
from det_seg_agent.settings import Settings, parse
from det_seg_agent.strategies import Selection, resolve
from det_seg_agent.table import ScoreTable


class Selector:
    """Holds the schedule, strategy, score table and sampler of one run.

    With several processes, rank 0 learns and selects. The other ranks send sums of their signals and receive indices
    and weights; their score tables stay empty. `begin_pass`, `gather` and `end_pass` are collectives.

    Args:
        num_samples: number of samples in the training set.
        total_passes: number of passes in the whole run.
        settings: see `Settings`; alternatively pass its fields as keyword arguments.
        rank, world_size: rank of this process and number of processes, for the sampler.
        shuffle: whether the sampler shuffles.
        batch: see `SelectionSampler`.
        samples: image file of each sample; a saved state of other images is then refused.
        applies_weights: whether the training loop scales losses by `weights_of`, as some strategies require.
        classes: the classes of the samples, which some strategies require.

    Raises:
        ConfigError: if the arguments or settings are invalid.
    """

    def __init__(
        self,
        num_samples: int,
        total_passes: int,
        settings: Settings | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        batch: int = 1,
        samples: Sequence[str] | None = None,
        applies_weights: bool = False,
        classes: Classes | None = None,
        **fields: Any,
    ):
        if settings is not None and fields:
            raise ConfigError("give either settings or single fields, not both.")
        if total_passes < 1:
            raise ConfigError(f"total_passes={total_passes}: a run has at least one pass.")
        self.settings = settings or parse(Settings, fields)
        seed = self.settings.seed or 0
        self.total_passes, self.world_size = total_passes, world_size
        if samples is not None and len(samples) != num_samples:
            raise ConfigError(f"samples: {len(samples)} files of {num_samples} samples; give one for each.")
        self.samples = packed(samples)
        cls, options = resolve(self.settings)
        if cls.needs_classes and classes is None:
            raise ConfigError(
                f"agent.strategy={self.settings.strategy!r} selects by classes, and this loop tells none: pass "
                "`classes` to `Selector`, or take another strategy."
            )
        self.classes = classes
        self.table = ScoreTable(num_samples, classes)
        self.strategy = strategy_of(cls, options, self.settings, self.table, applies_weights)
        self.signals = PassSignals(self.table, self.strategy, seed, classes)
        self.sampler = SelectionSampler(num_samples, seed, rank, world_size, shuffle, batch)
        self.selection = Selection(torch.arange(num_samples))
        self.previous = torch.zeros(num_samples, dtype=torch.bool)
        self.history: list[dict[str, float]] = []
        self.pass_index = -1

    def __len__(self) -> int:
        return len(self.table)

    @property
    def selects_all(self) -> bool:
        """Whether the strategy selects everything in every pass."""
        return self.strategy.selects_all

    def begin_pass(self, pass_index: int, total_passes: int | None = None) -> Selection:
        """Make the selection of pass `pass_index` and set the sampler to it; a pass begun again keeps its own.

        A collective: every rank must call it.

        Args:
            pass_index: from 0.
            total_passes: of the whole run, where that has changed.

        Raises:
            ConfigError: if the selector was not made for the process group.
            StateError: if the ranks do not agree on pass, settings, data or state.
        """
        rank, processes = world()
        if processes > 1 and (self.sampler.rank, self.world_size) != (rank, processes):
            raise ConfigError(
                f"Selector has rank={self.sampler.rank} and world_size={self.world_size}, and the process group has "
                f"{processes} processes, of which this is {rank}. Pass rank=dist.get_rank(), "
                "world_size=dist.get_world_size()."
            )
        if total_passes is not None:
            self.total_passes = total_passes
        self.signals.clear()
        if pass_index != self.pass_index:
            refuse_unlike(lambda: self._identity(pass_index), f"pass {pass_index + 1}")
            self.selection = decide(lambda: self._select(pass_index))
            self.pass_index = pass_index
        self.sampler.set_selection(self.selection.indices)
        self.sampler.set_epoch(pass_index)
        return self.selection

    def _identity(self, pass_index: int) -> dict[str, Any]:
        """Return the values that must be equal on all ranks before a selection."""
        return {
            "pass": pass_index,
            "total_passes": self.total_passes,
            "num_samples": len(self),
            "samples": digest(self.samples),
            "world_size": self.world_size,
            **{f"agent.{key}": value for key, value in self.settings.model_dump().items()},
        }

    def _select(self, pass_index: int) -> Selection:
        read_classes(self.strategy, self.table)
        if self.settings.init is not None and self.pass_index < 0 and not self.selects_all:
            start_from(self.settings.init, self.strategy, self.table, self.samples, self.total_passes)
        return choose(self.strategy, self.settings, len(self), pass_index, self.total_passes)

    def weights_of(self, index: Tensor) -> Tensor:
        """Return the loss weights (B,) float32 of the samples `index` (B,); 1 for samples that are not selected."""
        chosen, weights = self.selection.indices, self.selection.weights
        if weights is None:
            return torch.ones(len(index))
        index = index.cpu()
        place = torch.searchsorted(chosen, index).clamp(max=len(chosen) - 1)
        return torch.where(chosen[place] == index, weights[place], 1.0)

    def observe(
        self,
        index: Tensor,
        loss: Tensor,
        entropy: Tensor,
        features: Tensor,
        image: Tensor | None = None,
        share: Tensor | None = None,
        sufficiency: Tensor | None = None,
        sample_loss: Tensor | None = None,
        agreement: Tensor | None = None,
        least_agreement: Tensor | None = None,
        label_loss: Tensor | None = None,
        expected_loss: Tensor | None = None,
        class_counts: Tensor | None = None,
    ) -> None:
        """Add the signals of a mini-batch; see `SignalBuffer.add`. Synchronises the device once per 4,096 images.

        `class_counts` is (3, classes): what of each class is right, predicted and labelled, see `Classes`.
        """
        if class_counts is not None and self.classes is not None:
            self.classes.add(class_counts)
        buffer = self.signals.buffer
        buffer.add(
            loss,
            entropy,
            features,
            index,
            image,
            share,
            sufficiency,
            sample_loss,
            agreement,
            least_agreement,
            label_loss,
            expected_loss,
        )
        if buffer.is_full:
            self.signals.sum_up()

    def gather(self) -> None:
        """Gather the signals so far from all ranks on rank 0, so that its `state_dict` includes the current pass.

        This is a collective: every rank must call it.
        """
        self.signals.gather()

    def end_pass(self, images: int | None = None, trained_on: Tensor | None = None) -> PassReport:
        """Gather the signals of the pass from all ranks, update table and strategy on rank 0, and return a report.

        This is a collective: every rank must call it.

        Args:
            images: number of images trained on, over all ranks; by default the number that their samplers yield.
            trained_on: (n,) int64, samples trained on, over all ranks; by default the selection.

        Raises:
            StateError: if the strategy needs the sufficiency of each image and `observe` received none, or if a rank
                trained on another selection.
        """
        refuse_unlike(self._held, f"end of pass {self.pass_index + 1}")
        self.signals.sum_up(last=True)
        self.signals.collect()
        report = decide(lambda: self._learn(images, trained_on))
        row = {key: float(value) for key, value in asdict(report).items() if key != "pass_index"}
        self.history = [*self._done(), {"pass": float(self.pass_index), **row}]
        self.signals.clear()
        return report

    def _held(self) -> dict[str, Any]:
        """Return the values that must be equal on all ranks at the end of a pass."""
        return {"pass": self.pass_index, "selection": digest(self.selection.indices, self.selection.weights)}

    def _done(self) -> list[dict[str, float]]:
        """Return the history of earlier passes, without this one, which may be a repeat after a fault."""
        return [row for row in self.history if row["pass"] < self.pass_index]

    def _learn(self, images: int | None, trained_on: Tensor | None) -> PassReport:
        """Update table and strategy from the signals of the finished pass."""
        samples = self.signals.samples()
        if self.classes is not None:
            self.classes.end_pass(self.pass_index)
        stats: dict[str, float] = {}
        if len(samples):
            if self.strategy.needs_sufficiency and not bool(samples.sufficiency.isfinite().any()):
                raise StateError(
                    f"agent.strategy={self.settings.strategy!r} with these options needs a sufficiency of each image, "
                    "and this loop tells none: pass `sufficiency` to `Selector.observe`, or take another strategy, or "
                    "the agent's difficulty=loss."
                )
            self.table.update(samples, self.pass_index)
            self.strategy.observe(samples, self.pass_index, self.total_passes)
            if (images_seen := self.signals.images()) is not None:
                self.strategy.observe_images(images_seen, self.pass_index, self.total_passes)
            stats = self.strategy.stats()
        self.table.show(self.selection.indices if trained_on is None else trained_on, self.pass_index)
        chosen = torch.zeros(len(self), dtype=torch.bool)
        chosen[self.selection.indices] = True
        done = self._done()
        if len(done) == len(self.history):  # not a pass that is repeated after a fault
            self.table.selected += torch.bincount(self.selection.indices, minlength=len(self)).int()
        report = PassReport(
            self.pass_index,
            len(self.selection) / len(self),
            len(self.selection),
            len(self),
            float((chosen & ~self.previous).sum()) / int(chosen.sum()),
            int(done[-1]["images"] if done else 0)
            + (len(self.sampler) * self.world_size if images is None else images),
            self.signals.dropped,
            **{key: stats.get(key, float("nan")) for key in ("balance", "reward", "policy_entropy")},
        )
        self.previous = chosen
        return report

    def state_dict(self) -> dict[str, Any]:
        """Return the state (call on rank 0); it can be loaded with `torch.load(..., weights_only=True)`.

        In the middle of a pass, call `gather` first: the state only includes gathered signals.
        """
        return {
            "format": FORMAT,
            "settings": self.settings.model_dump(),
            "total_passes": self.total_passes,
            "pass_index": self.pass_index,
            "samples": self.samples,
            "table": self.table.state_dict(),
            "classes": None if self.classes is None else self.classes.state_dict(),
            "options": self.strategy.options.model_dump(),
            "strategy": self.strategy.state_dict(),
            "selection": self.selection.indices,
            "weights": self.selection.weights,
            "previous": self.previous,
            "history": self.history,
            **self.signals.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], other_length: bool = False) -> None:
        """Go on where `state_dict` was taken; within a pass, do not call `begin_pass` for it again.

        Every rank loads it.

        Args:
            state: what `state_dict` gave, on any device.
            other_length: whether the run may have another number of passes than that of the state.

        Raises:
            StateError: if the state is of another strategy, other options, seed, schedule, length or data set
                size or, with `samples`, other images.
        """
        state = on_cpu(state)
        passes = None if other_length else self.total_passes
        refuse_other_settings(state, self.settings, self.strategy.options, passes)
        refuse_other_samples(state["samples"], self.samples)
        refuse_other_size(len(state["previous"]), len(self))
        rank = world()[0]
        if rank == 0:
            self.table.load_state_dict(state["table"])
            self.strategy.load_state_dict(state["strategy"])
        self.pass_index = state["pass_index"]
        self.selection = Selection(state["selection"], state["weights"])
        self.previous = state["previous"].clone()
        self.history = list(state["history"])
        self.signals.load_state_dict(state)
        if self.classes is not None and state["classes"] is not None:
            self.classes.load_state_dict(state["classes"], rank == 0)
        self.sampler.set_selection(self.selection.indices)
        self.sampler.set_epoch(max(self.pass_index, 0))
