"""The hook that connects the agent to an MMEngine Runner; users add it to `custom_hooks`."""

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop

from det_seg_agent.errors import ConfigError
from det_seg_agent.messages import LOGGER
from det_seg_agent.reporting.report import Report
from det_seg_agent.seeding import random_state, set_random_state
from det_seg_agent.seg.checkpoints import bare, checkpoint_due, choose_checkpoint, write_whole
from det_seg_agent.seg.checks import refuse_trained
from det_seg_agent.seg.iou import Figures
from det_seg_agent.seg.loggers import show_pictures
from det_seg_agent.seg.resume import refuse_other_model
from det_seg_agent.seg.run import Run, together
from det_seg_agent.seg.signals import SignalTap
from det_seg_agent.selector import Selector

KEY = "det_seg_agent"


@HOOKS.register_module()
class AgentHook(Hook):
    """Collects signals, ends passes, saves state and reports. Its settings are the config's top-level `agent` dict.

    It needs `AgentIterLoop` or `AgentEpochLoop` as `train_cfg.type`, and `AgentSampler` as the training sampler. It
    does nothing if the Runner does not train, as in `Runner.test` and `Runner.val`.

    Attributes:
        run: the training run; set when the loop is built.
        training: whether training is in progress.
        begun: whether any batch has been trained on.
    """

    priority = "NORMAL"  # before the hooks that log and save
    run: Run
    _tap: SignalTap

    def __init__(self) -> None:
        self.training = self.begun = False
        self._saved: dict[str, Any] | None = None
        self._held: dict[str, Any] | None = None
        self._figures = Figures()

    @staticmethod
    def of(runner: Any) -> "AgentHook":
        """Return the runner's `AgentHook`.

        Raises:
            ConfigError: unless there is exactly one.
        """
        found = [hook for hook in runner.hooks if isinstance(hook, AgentHook)]
        if len(found) != 1:
            raise ConfigError(
                f"custom_hooks has {len(found)} AgentHooks, one is needed: custom_hooks = [dict(type='AgentHook')]."
            )
        return found[0]

    @property
    def selector(self) -> Selector:
        """Selector of the run."""
        return self.run.selector

    # Start and end ----------------------------------------------------------------------------------------------------

    def before_run(self, runner: Any) -> None:
        """Choose a readable checkpoint to resume from, before the host loads it."""
        if isinstance(runner._train_loop, BaseLoop):  # `test` and `val` do not build it
            with together():
                choose_checkpoint(runner)

    def before_train(self, runner: Any) -> None:
        """Install the signal hooks and create the report; restore the state of a resumed run."""
        resumed = runner.iter > 0 or runner.epoch > 0
        with together():
            self._check(runner)
            run = self.run
            if resumed:
                run.resume(runner, self._saved)
            self._saved = None
            write_whole(runner)
            self._tap = SignalTap(bare(runner.model), run.selector.strategy.weighs)
        run.report = Report(
            Path(runner.work_dir), run.selector, run.index.paths, run.selector.settings.trace, run.full_images,
            run.budget, *run.looks(bare(runner.model)),
        )  # fmt: skip
        if is_main_process():
            run.report.begin(run.selector.pass_index + int(run.over) if resumed else 0)
        if run.by_iterations and (resumed or not run.stock):
            runner.train_loop.train_on_selections(run)
        self.training = True

    def _check(self, runner: Any) -> None:
        if not hasattr(self, "run"):
            raise ConfigError(
                f"train_cfg.type={type(runner._train_loop).__name__!r} walks over no selections. Set train_cfg = "
                "dict(type='AgentIterLoop'), or AgentEpochLoop where it counts epochs."
            )
        if hasattr(self, "_tap"):
            raise ConfigError(
                "this Runner has trained already. Make a new one: with resume=True to go on, or with load_from= a "
                "checkpoint and another work_dir to start from its weights."
            )
        if not runner._resume:
            refuse_trained(Path(runner.work_dir))

    def after_train(self, runner: Any) -> None:
        """End an incomplete last pass, and write `metrics.json`, plot and contact sheets."""
        if not self.run.over and self.run.done:
            self._end_pass(runner, runner.iter)
        self._tap.remove()
        self.training = False
        if is_main_process():
            figures = {"iou": self._figures.last, "processes": get_world_size()}
            LOGGER.info(self.run.report.end(figures))
            show_pictures(runner, self.run.report)

    # Passes -----------------------------------------------------------------------------------------------------------

    def before_train_epoch(self, runner: Any) -> None:
        """Begin the pass of an epoch."""
        if not self.run.by_iterations:
            self.run.restore_random()
            self.run.begin_pass(runner.epoch)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Identify the samples of the batch, check their masks and set their loss weights."""
        if self.run.over:
            self.run.begin_pass()
        samples = data_batch["data_samples"]
        shown = self.run.index.mark(samples)
        self.run.masks.check_packed(shown, samples)
        self._shown = torch.tensor(shown)
        self._tap.signals, self._tap.weights = None, self.run.weights_of(self._shown)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Record the batch's signals; in an iteration-based loop, end the pass after its last batch."""
        run, tap = self.run, self._tap
        run.done += 1
        self.begun = True
        if tap.signals is not None:
            found, features = tap.signals
            run.selector.observe(
                self._shown, found.loss, found.entropy, features, sufficiency=found.sufficiency,
                agreement=found.agreement, expected_loss=found.expected, class_counts=found.counts,
            )  # fmt: skip
        if run.by_iterations:
            if run.done >= run.iterations_of(run.selector.pass_index):
                self._end_pass(runner, runner.iter + 1)
            if checkpoint_due(runner):
                self._gather()

    def after_train_epoch(self, runner: Any) -> None:
        """End the pass of an epoch."""
        if not self.run.by_iterations:
            self._end_pass(runner, runner.iter)
        self._gather()

    def _end_pass(self, runner: Any, iteration: int) -> None:
        """End the pass after `iteration`, and report it to the log and the host's loggers."""
        images = self.run.done * self.run.batch
        result = self.run.end_pass()
        self.run.masks.hint()
        if result.dropped >= images > 0:
            LOGGER.warning(
                f"pass {result.pass_index + 1}: no image gave a finite loss, entropy and features, so the agent has "
                "learned nothing from it. The host goes on; if the logged loss is NaN or infinite, stop, lower the "
                "learning rate and resume from an earlier checkpoint."
            )
        if is_main_process():
            LOGGER.info(self.run.report.add(result))
            figures = self.run.report.scalars()
            runner.visualizer.add_scalars(figures, step=iteration, file_path=f"{runner.timestamp}.json")

    # Validation -------------------------------------------------------------------------------------------------------

    def before_val(self, runner: Any) -> None:
        """Save the random state before validation, as a resumed run does not validate again."""
        if self.training:
            self._gather()
            self._held = None if self.run.stock else random_state()
            self._figures.begin(runner)

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Record the metrics by class."""
        if self.training:
            self._figures.add()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Record the metrics; those of the last validation go to `metrics.json`."""
        if self.training:
            self._figures.end(runner, metrics or {})

    def after_val(self, runner: Any) -> None:
        """Restore the random state from before the validation."""
        if self._held is not None:
            set_random_state(self._held)
            self._held = None

    # Saving -----------------------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Gather from all ranks what a checkpoint needs; the host saves it on rank 0 only."""
        if get_world_size() > 1:
            self.run.gather()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add our state to the host's checkpoint; called on rank 0 only."""
        if self.training:
            if get_world_size() == 1:
                self.run.gather(self._held)
            checkpoint[KEY] = self.run.state()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keep our state of a checkpoint that the run resumes from; ignore one that it only takes weights from.

        Raises:
            StateError: if the run resumes and the weights do not fit the model.
        """
        if not runner._resume:
            return
        if hasattr(self, "run"):
            refuse_other_model(bare(runner.model), checkpoint["state_dict"])
        self._saved = checkpoint.get(KEY)
