"""The one place that builds on what the host does not document: epochs of different lengths, and their resume.

transformers 5 asks once how long an epoch is. Two of its methods take and return the lengths, so no loop is copied:

- `_run_epoch(steps_in_epoch=, num_update_steps_per_epoch=, ...)`, called by keyword for each epoch;
- `_init_training_state(...) -> (epochs_trained, steps_trained_in_current_epoch)`.

They are there from 5.4 on (tried: 5.4.0, 5.24.0). `check_methods` refuses a version that has changed them.
"""

import inspect
from typing import Any

from transformers import Trainer

from det_seg_agent.errors import HostError
from det_seg_agent.hf.run import Run

NEEDED = {
    "_run_epoch": {"epoch", "steps_in_epoch", "num_update_steps_per_epoch", "epochs_trained"},
    "_init_training_state": {"max_steps", "num_update_steps_per_epoch", "num_train_epochs", "resume_from_checkpoint"},
    "set_initial_training_values": {"args", "dataloader"},
    "_get_collator_with_removed_columns": {"data_collator"},
}


def check_methods(cls: type[Trainer] = Trainer) -> None:
    """Refuse a host whose methods have changed.

    Raises:
        HostError: names the method and the version.
    """
    import transformers

    for name, parameters in NEEDED.items():
        method = getattr(cls, name, None)
        missing = parameters if method is None else parameters - set(inspect.signature(method).parameters)
        if missing:
            raise HostError(
                f"transformers {transformers.__version__}: Trainer.{name} lacks {', '.join(sorted(missing))}, which "
                "epochs of different lengths need. Install a version that was tried: pip install "
                "'transformers>=5.4,<6'"
            )


class VaryingEpochs(Trainer):
    """A `Trainer` whose epochs have the lengths of its run's passes.

    Attributes:
        run: the run; None before `train`.
    """

    run: Run | None = None

    def set_initial_training_values(self, *given: Any, **named: Any) -> Any:
        """Return what the host does, with the epochs, samples and steps of the selections."""
        values = super().set_initial_training_values(*given, **named)
        if self.run is None:
            return values
        _, per_epoch, examples, _, batch, in_epoch, _ = values
        if self.run.stock:
            self.run.know_batches(in_epoch)
            return values
        plan = self.run.plan
        return self.run.passes, per_epoch, examples, plan.images, batch, in_epoch, plan.steps

    def _init_training_state(self, *given: Any, **named: Any) -> tuple[int, int]:
        place = super()._init_training_state(*given, **named)
        if self.run is None or self.run.stock or self.run.resumed is None:
            return place
        return self.run.place

    def _run_epoch(self, **given: Any) -> Any:
        if self.run is not None and not self.run.stock:
            given["steps_in_epoch"] = self.run.plan.batches[given["epoch"]]
            given["num_update_steps_per_epoch"] = self.run.plan.steps_of(given["epoch"])
        return super()._run_epoch(**given)
