"""One training run: its selector, its passes and its saved state. `hf.trainer` makes it, `AgentCallback` drives it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from det_seg_agent.errors import ConfigError
from det_seg_agent.fingerprint import refuse_older
from det_seg_agent.hf import checkpoints
from det_seg_agent.hf.checks import check_data, check_host, check_resume, check_selecting
from det_seg_agent.hf.data import Numbered, classes_of, files_of
from det_seg_agent.hf.heads import bare, kind_of
from det_seg_agent.hf.plan import Layout, Plan, passes_of, plan
from det_seg_agent.hf.settings import HfSettings
from det_seg_agent.hf.tap import SignalTap
from det_seg_agent.messages import LOGGER
from det_seg_agent.pass_report import PassReport
from det_seg_agent.ranks import gather_objects
from det_seg_agent.reporting.report import Report
from det_seg_agent.selector import Selector
from det_seg_agent.settings import refuse_changes
from det_seg_agent.strategies import strategy_class


class Run:
    """A training run over selections.

    Args:
        trainer: the host's trainer, with our settings.
        samples: image file or name of each sample, where the user gave them.

    Attributes:
        selector: the run's selector.
        stock: whether the host's own sampler is used, as with `strategy=full`.
        plan: batches and steps of each pass.
        data: the training set, whose items come with their indices.
        over: whether no pass is in progress.
        done: batches of the current pass so far, on each process.
        report: the run's report.

    Raises:
        ConfigError: if arguments, settings or data are invalid.
    """

    tap: SignalTap

    def __init__(self, trainer: Any, samples: list[str] | None):
        args, settings = trainer.args, trainer.agent_settings
        check_data(trainer.train_dataset)
        check_host(trainer)
        self.stock = strategy_class(settings.strategy).selects_all
        if not self.stock:
            check_selecting(trainer)
        dataset, total = trainer.train_dataset, len(trainer.train_dataset)
        self.layout = Layout(args.train_batch_size, args.world_size, args.gradient_accumulation_steps)
        self.passes = self._passes(args, total)
        self.output, self.rank = Path(args.output_dir), args.process_index
        host_seed = args.data_seed if args.data_seed is not None else args.seed
        seed = host_seed if settings.seed is None else settings.seed
        files = samples if samples is not None else files_of(dataset)
        names = getattr(bare(trainer.model).config, "id2label", None)
        kind = kind_of(trainer.model)
        self.selector = Selector(
            total, self.passes, settings.model_copy(update={"seed": seed}), rank=self.rank,
            world_size=args.world_size, shuffle=str(getattr(args, "train_sampling_strategy", "random")) != "sequential",
            batch=self.layout.batch if args.world_size > 1 else 1, samples=files, applies_weights=True,
            classes=classes_of(dataset, names) if kind == "classes" else None,
        )  # fmt: skip
        if not self.selector.strategy.fixed_budget:
            raise ConfigError(
                f"agent.strategy={settings.strategy!r} with options.native selects as many samples as its own rule "
                "gives, so that the number of steps, which the learning rate follows, is not known. Leave "
                "options.native out."
            )
        self.plan = self._plan(settings, args, total)
        self.data = Numbered(dataset, None if self.stock else seed)
        self.draw = files is not None and kind != "tokens"
        width = len(str(total))
        named = files or [f"sample {index:0{width}d}" for index in range(total)]
        self.report = Report(self.output, self.selector, named, settings.trace, self.plan.full_images, self.plan.budget)
        self.over, self.done = True, 0
        self.resumed: Path | None = None  # the checkpoint
        self._head = settings.head
        self._shown: list[Tensor] = []
        self._settings_given = trainer.agent_given
        if not self.stock and (warning := settings.nothing_selected(self.passes, "samples", total)):
            LOGGER.warning(warning)

    def _passes(self, args: Any, total: int) -> int:
        if not self.stock:
            return passes_of(args.num_train_epochs, args.max_steps, total, self.layout)
        epochs = args.max_steps * self.layout.whole / total if args.max_steps > 0 else args.num_train_epochs
        return max(1, -int(-epochs // 1))

    def _plan(self, settings: HfSettings, args: Any, total: int) -> Plan:
        schedule = settings.model_copy(update={"ratio": 1.0, "schedule": "constant"}) if self.stock else settings
        made = plan(schedule, self.passes, args.max_steps, total, self.layout)
        if not self.stock:
            LOGGER.info(
                f"budget {made.budget:.1%}: {made.steps} optimizer steps in {self.passes} passes; the learning rate "
                "follows them"
            )
        return made

    def know_batches(self, batches: int) -> None:
        """Note the batches of an epoch that the host itself makes, of all samples."""
        if self.stock:
            self.plan = replace(self.plan, batches=(batches,) * self.passes)

    # Training ---------------------------------------------------------------------------------------------------------

    def start(self, model: Any) -> None:
        """Install the hook, and begin the report."""
        if self.resumed is not None:
            checkpoints.restore_weights(model, self.resumed)
        strategy = self.selector.strategy
        self.tap = SignalTap(model, self._head, strategy.weighs and strategy.needs_weights, self.layout.processes)
        if self.rank == 0:
            self.report.begin(self.selector.pass_index + int(self.over) if self.resumed else 0)

    def begin_pass(self) -> None:
        """Begin the next pass, unless one is in progress, as after a resume. A collective."""
        if self.over:
            self.selector.begin_pass(self.selector.pass_index + 1)
            self.over, self.done, self._shown = False, 0, []
        self.data.set_pass(self.selector.pass_index)
        self.report.mark()

    def read(self, index: Tensor, labels: Tensor, outputs: Any, loss: Tensor, items: Any) -> Tensor:
        """Record the signals of a batch; return its loss, weighted if the strategy weights samples.

        Args:
            index: (B,) int64, data set index of each sample.
            labels: see `SignalTap.read`, as the following.
            outputs: what the model returned.
            loss: the host's loss.
            items: the host's `num_items_in_batch`, or None.
        """
        selector = self.selector
        weights = None if selector.selection.weights is None else selector.weights_of(index)
        found, features, loss = self.tap.read(labels, outputs, loss, items, weights)
        selector.observe(
            index, found.loss, found.entropy, features, sufficiency=found.sufficiency, agreement=found.agreement,
            expected_loss=found.expected, class_counts=found.counts,
        )  # fmt: skip
        self._shown.append(index.detach())
        self.done += 1
        return loss

    def end_of_step(self) -> PassReport | None:
        """End the pass if this was its last step; return its report then. A collective at the end of a pass."""
        if self.over or self.done < self.plan.batches[min(self.selector.pass_index, self.passes - 1)]:
            return None
        return self.end_pass()

    def end_pass(self) -> PassReport:
        """End the pass, also one that the host has stopped: learn from it. A collective."""
        shown = self._gathered()
        done = self.selector.end_pass(len(shown), shown if self.stock else None)
        self.over = True
        self.report.last = done  # all ranks log its figures
        if self.rank == 0:
            LOGGER.info(self.report.add(done))
        if done.dropped >= len(shown) > 0:
            LOGGER.warning(
                f"pass {done.pass_index + 1}: no sample gave a finite loss, entropy and features, so the agent has "
                "learned nothing from it. If the logged loss is NaN, stop and lower the learning rate."
            )
        return done

    def _gathered(self) -> Tensor:
        """Return the samples that all processes have trained on in this pass, as often as they did. A collective."""
        mine = torch.cat(self._shown).cpu() if self._shown else torch.zeros(0, dtype=torch.int64)
        return torch.cat(gather_objects(mine))

    # State ------------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write our state to a checkpoint of the host. A collective."""
        shown = None
        if not self.over:
            self.selector.gather()
            shown = self._gathered()
        if self.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            state = {
                "selector": self.selector.state_dict(), "over": self.over, "done": self.done, "shown": shown,
                "layout": vars(self.layout),
            }  # fmt: skip
            checkpoints.write(folder, state)

    def resume(self, args: Any, folder: Path) -> None:
        """Restore what `save` wrote.

        Raises:
            ConfigError: if settings or batches have changed.
            StateError: if it does not fit this run.
        """
        saved = checkpoints.read(folder)
        refuse_older(saved["selector"])
        then = saved["selector"]["settings"]
        refuse_changes(self._settings_given, then)
        check_resume(args, saved["layout"], vars(self.layout))
        self.selector.load_state_dict(saved["selector"])
        self.over, self.done, self.resumed = saved["over"], saved["done"], folder
        if saved["shown"] is not None and self.rank == 0:
            self._shown = [saved["shown"]]
        if self.over and self.selector.pass_index + 1 >= self.passes:
            raise ConfigError(
                f"resume_from_checkpoint={str(folder)!r}: its run is finished, nothing is left to train. Start a new "
                "one from its weights: from_pretrained(...)."
            )

    @property
    def place(self) -> tuple[int, int]:
        """(pass, batches of it that are done) where the run goes on."""
        return (self.selector.pass_index + 1, 0) if self.over else (self.selector.pass_index, self.done)
