"""The callback that drives a run through the host's events. `AgentMixin` adds it."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from det_seg_agent.hf.checkpoints import restore_weights
from det_seg_agent.hf.compat import VaryingEpochs
from det_seg_agent.messages import LOGGER
from det_seg_agent.pass_report import PassReport


class AgentCallback(TrainerCallback):
    """Begins and ends passes, and hands their figures to the host's loggers.

    A pass ends with its last step, before the host logs, evaluates and saves after that step.

    Args:
        trainer: the trainer, whose run it drives.
    """

    def __init__(self, trainer: VaryingEpochs):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Install the hook on the model that trains."""
        assert self.trainer.run is not None
        self.trainer.run.start(self.trainer.model)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin a pass, before the host asks the loader for its batches."""
        assert self.trainer.run is not None
        self.trainer.run.begin_pass()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End the pass after its last step."""
        assert self.trainer.run is not None
        self._log(self.trainer.run.end_of_step())

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End a pass that the host has stopped within."""
        run = self.trainer.run
        assert run is not None
        if not run.over and run.done:
            self._log(run.end_pass())

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End a pass that was stopped within; write `metrics.json` and pictures."""
        run = self.trainer.run
        assert run is not None
        if not run.over and run.done:
            self._log(run.end_pass())
        run.tap.remove()
        if args.load_best_model_at_end and state.best_model_checkpoint:  # the host has loaded what it finds
            restore_weights(self.trainer.model, Path(state.best_model_checkpoint))
        if run.rank == 0:
            judged = [row for row in state.log_history if any(key.startswith("eval_") for key in row)]
            figures = {"evaluation": judged[-1] if judged else None, "processes": run.layout.processes}
            LOGGER.info(run.report.end(figures, draw=run.draw))

    def _log(self, done: PassReport | None) -> None:
        run = self.trainer.run
        assert run is not None
        if done is not None:
            should_log = self.trainer.control.should_log  # logging resets it, and the host's own figures are to come
            self.trainer.log(run.report.scalars())
            self.trainer.control.should_log = should_log
