"""The part of the trainers that the host's training loop calls; `det.trainer` inherits from it."""

import math
from typing import Any

from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import RANK

from det_seg_agent.det.compat import unwrap_model, warmup_ends
from det_seg_agent.det.dataset import seed_process
from det_seg_agent.det.loader import shown_samples
from det_seg_agent.det.messages import LOGGER
from det_seg_agent.det.resume import find_state, restore_training
from det_seg_agent.ranks import gather_objects
from det_seg_agent.reporting.report import Report
from det_seg_agent.selector import Selector


class LoopMixin(BaseTrainer):
    """Callbacks and overridden methods of `AgentTrainerMixin` that the host's loop calls.

    Attributes:
        selector: the run's selector; None until the host creates its training loader.
        report: the run's report.
        saved: the state to resume from; None once the first pass has begun.
    """

    selector: Selector | None
    report: Report
    saved: dict[str, Any] | None
    accumulate: float  # batches that the host waits for before an optimizer step
    _batches = 0  # batches accumulated since the last optimizer step
    _run_batches: float = math.inf  # number of batches in the whole run
    _full_images = 0  # images that the host's own loader yields per pass, over all ranks
    _in_pass = False

    def _on_train_epoch_start(self) -> None:
        assert self.selector is not None
        self.report.mark()
        if self.selector.pass_index == self.epoch:
            self._begin_again()
        # With `time` the host re-estimates the number of epochs after each one; this epoch may exceed the estimate.
        selection = self.selector.begin_pass(self.epoch, max(self.epochs, self.epoch + 1))
        dataset, loader = self.train_loader.dataset, self.train_loader
        order = list(self.selector.sampler) if dataset.rect else []
        if not self.selector.selects_all:
            dataset.set_pass(self.epoch, selection.indices, selection.weights, order, loader.batch_size)
            seed_process(self.selector.sampler.seed, self.epoch, max(RANK, 0), 0)
        self._in_pass = True
        self._images = 0
        if self.epoch == self.start_epoch:  # also when it restarts with smaller batches
            self._full_accumulate = self.accumulate
        if self.saved is not None:
            self._batches = restore_training(self, self.saved, gradients=True)
            self.saved = None
        if not self.selector.selects_all:
            self._end_warmup()

    def _begin_again(self) -> None:
        """Restore the selector when the host restarts an epoch (out of memory, or NaN recovery from `last.pt`)."""
        assert self.selector is not None
        self._batches = 0  # the host has cleared the gradients
        if self.selector.history and self.selector.history[-1]["pass"] == self.epoch:
            self.selector.load_state_dict(find_state(self.last)["selector"], other_length=True)

    def _end_warmup(self) -> None:
        """Set the final values of the host's warm-up in the first epoch after it.

        The host counts batches of full passes, so a shorter pass may end before the warm-up's last batch.
        """
        batches = -(-self._full_images // (self.batch_size or 1))
        if self.args.warmup_epochs > 0 and self.epoch == warmup_ends(self, batches):
            self.accumulate = self._full_accumulate
            for group in self.optimizer.param_groups:
                if "momentum" in group:
                    group["momentum"] = self.args.momentum

    def progress_string(self) -> str:
        """Return the host's header of an epoch, with the batches of this pass: its bar counts those of all images."""
        header: str = super().progress_string()
        return (
            header
            if self.selector is None or self.selector.selects_all
            else f"{header}  ({len(self.train_loader)} batches)"
        )

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Preprocess as the host does; during a pass also count images, and batches since the last optimizer step.

        The host numbers batches by `i + nb * epoch`, which jumps if a pass is shorter than the first. We count the
        actual batches and set `accumulate`, the number that it waits for, to none or infinity for this one batch, so
        that it steps now or does not.
        """
        assert self.selector is not None
        if not self._in_pass:  # calibration (quantize=8), before there is a criterion
            return super().preprocess_batch(batch)
        self._images += len(batch["img"])
        if not self.selector.selects_all:
            self._batches += 1
            self._nominal = self.accumulate
            self.accumulate = 0 if self._batches >= min(self._nominal, self._run_batches) else math.inf
        batch = super().preprocess_batch(batch)
        unwrap_model(self.model).criterion.carry(batch)
        return batch

    def optimizer_step(self) -> None:
        """Step as the host does, and reset the count of accumulated batches."""
        self._batches = 0
        super().optimizer_step()

    def _on_train_batch_end(self) -> None:
        assert self.selector is not None
        if not self.selector.selects_all:
            self.accumulate = self._nominal

    def _on_train_epoch_end(self) -> None:
        assert self.selector is not None
        self._in_pass = False
        self._on_train_batch_end()  # the host skips it when `time` runs out within a pass
        images = gather_objects(self._images)
        done = self.selector.end_pass(sum(images), shown_samples(self.selector, images))
        self.report.full_images = self._full_images * len(self.selector.history)
        if RANK in {-1, 0}:
            LOGGER.info(self.report.add(done))
            self.metrics.update(self.report.scalars())

    def validate(self) -> Any:
        """Validate as the host does, and add our figures to its metrics, and thereby to its CSV and loggers."""
        metrics, fitness = super().validate()
        if metrics is not None and RANK in {-1, 0}:
            metrics.update(self.report.scalars())
        return metrics, fitness
