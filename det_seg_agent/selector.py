"""One object that closes the loop: signals in, a selection a pass out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from det_seg_agent.distributed import gather_objects, gather_signals
from det_seg_agent.errors import ConfigError, StateError
from det_seg_agent.features import Projector
from det_seg_agent.fingerprint import packed, refuse_other_samples, relative, unpacked
from det_seg_agent.sampler import SelectionSampler
from det_seg_agent.schedule import is_full
from det_seg_agent.settings import Settings, parse
from det_seg_agent.signals import SignalBuffer, Signals, join, per_sample
from det_seg_agent.strategies import Request, Selection, strategy_class
from det_seg_agent.table import ScoreTable


@dataclass(frozen=True)
class PassReport:
    """What a pass did; figures that the strategy does not have are NaN. `pass_index` counts from 0."""

    pass_index: int
    ratio: float
    selected: int  # samples in the selection
    total: int  # samples in the data set
    new: float  # share of the selection that the selection before did not hold
    images: int  # images trained on so far
    dropped: int  # images whose signals were not finite
    balance: float  # w, see rewards.balance
    reward: float  # mean reward
    policy_entropy: float  # nats

    def line(self) -> str:
        """Return the pass in one line."""
        text = (
            f"pass {self.pass_index + 1}: selected {self.selected}/{self.total} ({self.ratio:.0%}), new {self.new:.0%}"
        )
        for name, value in (("w", self.balance), ("reward", self.reward), ("policy entropy", self.policy_entropy)):
            if value == value:
                text += f", {name} {value:.3f}"
        return text + (f", {self.dropped} images without finite signals" if self.dropped else "")


class Selector:
    """Schedule, strategy, score table and sampler of one run.

    Args:
        num_samples: size of the training set.
        total_passes: passes of the whole run.
        settings: see `Settings`; keyword arguments are its fields.
        rank, world_size: this process; all ranks hold the same table, policy and selection.
        shuffle: whether the sampler shuffles.
        batch: see `SelectionSampler`.
        samples: image file of each sample, by which a state of other images is refused.

    Raises:
        ConfigError: for anything that cannot work.
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
        self.samples = None if samples is None else relative(samples)
        self.table = ScoreTable(num_samples)
        cls = strategy_class(self.settings.strategy)
        options = parse(cls.Options, self.settings.options, "agent.options.")
        self.strategy = cls(self.table, seed, options, self.settings.preset)
        self.buffer = SignalBuffer(Projector(self.strategy.feature_dim, seed))
        self.sampler = SelectionSampler(num_samples, seed, rank, world_size, shuffle, batch)
        self.selection = Selection(torch.arange(num_samples))
        self.previous = torch.zeros(num_samples, dtype=torch.bool)
        self.history: list[dict[str, float]] = []
        self.pass_index = -1
        self._gathered: list[Signals] = []
        self._dropped = 0

    def __len__(self) -> int:
        return len(self.table)

    @property
    def selects_all(self) -> bool:
        """Whether the strategy walks over everything in every pass."""
        return self.strategy.selects_all

    def begin_pass(self, pass_index: int, total_passes: int | None = None) -> Selection:
        """Make the selection of pass `pass_index` and set the sampler to it; a pass begun again keeps its own.

        Args:
            pass_index: the pass, from 0.
            total_passes: passes of the whole run, if a loop now expects another number.
        """
        if total_passes is not None:
            self.total_passes = total_passes
        self.buffer.clear()
        self._gathered, self._dropped = [], 0
        if pass_index != self.pass_index:
            self.selection = self._select(pass_index)
            self.pass_index = pass_index
        self.sampler.set_selection(self.selection.indices)
        self.sampler.set_epoch(pass_index)
        return self.selection

    def _select(self, pass_index: int) -> Selection:
        ratio = 1.0 if self.selects_all else self.settings.ratio_at(pass_index, self.total_passes)
        if is_full(ratio):
            return Selection(torch.arange(len(self)))
        count = self.settings.count_at(pass_index, self.total_passes, len(self))
        selection = self.strategy.select(Request(pass_index, self.total_passes, count, ratio))
        check_selection(selection, len(self), f"{type(self.strategy).__name__}: pass {pass_index + 1}")
        return selection

    def observe(
        self,
        index: Tensor,
        loss: Tensor,
        entropy: Tensor,
        features: Tensor,
        image: Tensor | None = None,
        share: Tensor | None = None,
        sufficiency: Tensor | None = None,
    ) -> None:
        """Take the signals of a mini-batch; see `SignalBuffer.add`. Nothing is synchronised with the device."""
        self.buffer.add(loss, entropy, features, index, image, share, sufficiency)

    def gather(self) -> None:
        """Bring the signals so far together from all ranks, so that `state_dict` on one of them holds the pass so far.

        A collective where there are several processes: every rank must call it.
        """
        self._gathered.append(gather_signals(self.buffer.drain()))
        self._dropped += sum(gather_objects(self.buffer.dropped))

    def end_pass(self, images: int | None = None, shown: Tensor | None = None) -> PassReport:
        """Gather the pass's signals from all ranks, update table and strategy, and report.

        Args:
            images: images that the pass trained on, if that is not what the samplers of all ranks walk over.
            shown: (n,) int64, samples that the pass trained on, if that is not the whole selection.

        Raises:
            StateError: if the strategy needs a sufficiency of each image, and `observe` was told none.
        """
        self.gather()
        signals = join(self._gathered)
        self._gathered = []
        if len(signals):
            samples = per_sample(signals)
            if self.strategy.needs_sufficiency and not bool(samples.sufficiency.isfinite().all()):
                raise StateError(
                    f"agent.strategy={self.settings.strategy!r} with these options needs a sufficiency of each image, "
                    "and this loop tells none: pass `sufficiency` to `Selector.observe`, or take another strategy, or "
                    "the agent's difficulty=loss."
                )
            self.table.update(samples, self.pass_index)
            self.strategy.observe(samples, signals, self.pass_index, self.total_passes)
        self.table.show(self.selection.indices if shown is None else shown, self.pass_index)
        chosen = torch.zeros(len(self), dtype=torch.bool)
        chosen[self.selection.indices] = True
        done = [row for row in self.history if row["pass"] < self.pass_index]
        if len(done) == len(self.history):  # not a pass that is repeated after a fault
            self.table.selected += chosen.int()
        stats = {key: float("nan") for key in ("balance", "reward", "policy_entropy")} | self.strategy.stats()
        report = PassReport(
            self.pass_index,
            len(self.selection) / len(self),
            len(self.selection),
            len(self),
            float((chosen & ~self.previous).sum()) / len(self.selection),
            int(done[-1]["images"] if done else 0)
            + (len(self.sampler) * self.world_size if images is None else images),
            self._dropped,
            **stats,
        )
        self.previous = chosen
        row = {key: float(value) for key, value in asdict(report).items() if key != "pass_index"}
        self.history = [*done, {"pass": float(self.pass_index), **row}]
        return report

    def state_dict(self) -> dict[str, Any]:
        """Return the state; it loads with `torch.load(..., weights_only=True)`.

        Within a pass call `gather` before it; what was not gathered is not part of the state.
        """
        part = join(self._gathered) if self._gathered else None
        return {
            "settings": self.settings.model_dump(),
            "total_passes": self.total_passes,
            "pass_index": self.pass_index,
            "samples": packed(self.samples),
            "table": self.table.state_dict(),
            "options": self.strategy.options.model_dump(),
            "strategy": self.strategy.state_dict(),
            "in_features": self.buffer.projector.in_features,
            "selection": self.selection.indices,
            "weights": self.selection.weights,
            "previous": self.previous,
            "history": self.history,
            "signals": None if part is None else vars(part),
            "dropped": self._dropped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; within a pass, do not call `begin_pass` for it again.

        Raises:
            StateError: if the state is of another strategy, other options, seed, data set size or, with `samples`,
                other images.
        """
        seed = state["settings"]["seed"]
        if seed != self.settings.seed:
            raise StateError(
                f"the saved state is of seed {seed}, this run has {self.settings.seed}. Resume with agent.seed={seed}, "
                "or start a new run."
            )
        saved = state["settings"]["strategy"]
        if saved != self.settings.strategy:
            raise StateError(
                f"the saved state is of strategy {saved!r}, this run has {self.settings.strategy!r}. Resume with "
                f"agent.strategy={saved}, or start a new run."
            )
        options, now = state.get("options", {}), self.strategy.options.model_dump()
        if new := [key for key in now if key not in options]:
            raise StateError(
                f"the saved state knows nothing of agent.options.{new[0]}: it is of another version of "
                "det_seg_agent or of the strategy. Resume with that version, or start a new run."
            )
        if other := [key for key in now if now[key] != options[key]]:
            had = ", ".join(f"agent.options.{key}={options[key]!r}" for key in other)
            raise StateError(f"the saved state has {had}, else than this run. Resume with that, or start a new run.")
        refuse_other_samples(unpacked(state.get("samples")), self.samples)
        self.table.load_state_dict(state["table"])
        self.strategy.load_state_dict(state["strategy"])
        self.buffer.projector.in_features = state["in_features"]
        self.pass_index = state["pass_index"]
        self.selection = Selection(state["selection"], state["weights"])
        self.previous = state["previous"].clone()
        self.history = list(state["history"])
        self._gathered = [] if state["signals"] is None else [Signals(**state["signals"])]
        self._dropped = state["dropped"]
        self.sampler.set_selection(self.selection.indices)
        self.sampler.set_epoch(max(self.pass_index, 0))


def check_selection(selection: Selection, num_samples: int, name: str) -> None:
    """Refuse a selection that no sampler can walk over, as a user's own strategy may make one.

    Raises:
        ConfigError: naming the strategy, the pass and the first sample that is wrong.
    """
    chosen = selection.indices
    if not len(chosen):
        raise ConfigError(f"{name} selects no sample; a strategy returns the number of samples that it is asked for.")
    wrong = chosen[(chosen < 0) | (chosen >= num_samples)]
    if len(wrong):
        raise ConfigError(f"{name} selects sample {int(wrong[0])}, and there are samples 0 to {num_samples - 1}.")
    wrong = chosen[1:][chosen[1:] <= chosen[:-1]]
    if len(wrong):
        raise ConfigError(
            f"{name} selects sample {int(wrong[0])} after itself or a later one; sort and list each once."
        )
