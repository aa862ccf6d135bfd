"""What the host's loop calls while it trains on selections."""

from typing import Any

from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from det_seg_agent.det.dataset import seed_process
from det_seg_agent.det.loader import NEVER, shown_samples
from det_seg_agent.det.resume import find_state, restore_training
from det_seg_agent.ranks import gather_objects
from det_seg_agent.reporting.report import Report
from det_seg_agent.selector import Selector


class LoopMixin(BaseTrainer):
    """The part of `AgentTrainerMixin` that the host's loop calls, as callbacks and as overridden methods.

    Attributes:
        selector: of the run; None before the host has made a loader.
        report: what the user sees of the run.
        saved: the state that a resumed run goes on from; None once its first pass has begun.
    """

    selector: Selector | None
    report: Report
    saved: dict[str, Any] | None
    _batches = 0  # batches whose gradients wait for a step
    _run_batches = NEVER  # batches of the whole run
    _full_images = 0  # images that the host's own loader yields in a pass, over all ranks
    _in_pass = False

    def _on_train_epoch_start(self) -> None:
        assert self.selector is not None
        self.report.mark()
        if self.selector.pass_index == self.epoch:
            self._begin_again()
        # With `time` the host expects another number of epochs after each, which this one may be past.
        selection = self.selector.begin_pass(self.epoch, max(self.epochs, self.epoch + 1))
        dataset, loader = self.train_loader.dataset, self.train_loader
        order = list(self.selector.sampler) if dataset.rect else []
        if not self.selector.selects_all:
            dataset.set_pass(self.epoch, selection.indices, selection.weights, order, loader.batch_size)
            seed_process(self.selector.sampler.seed, self.epoch, max(RANK, 0), 0)
        self._in_pass = True
        self._images = 0
        if self.epoch == self.start_epoch:  # also when it begins again, with smaller batches
            self._full_accumulate: int = self.accumulate  # type: ignore[has-type]
        if self.saved is not None:
            self._batches = restore_training(self, self.saved, gradients=True)
            self.saved = None
        if not self.selector.selects_all:
            self._end_warmup()

    def _begin_again(self) -> None:
        """Go back to where the pass began: it was out of memory, or it ended in NaN and the host loaded `last.pt`."""
        assert self.selector is not None
        self._batches = 0  # the host dropped the gradients
        if self.selector.history and self.selector.history[-1]["pass"] == self.epoch:
            self.selector.load_state_dict(find_state(self.last)["selector"], other_length=True)

    def _end_warmup(self) -> None:
        """Set what the host's warm-up ends with, in the epoch after it.

        Its last batch, by the host's count of batches, may be one that a short pass did not come to.
        """
        if self.args.warmup_epochs > 0 and self.epoch == int(self.args.warmup_epochs) + 1:
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
        """Do what the host does; within a pass count images, and batches towards the next optimizer step.

        The host counts batches by `i + nb * epoch`, which jumps where a pass is shorter than the first. We count the
        batches that there are, and open or close the host's gate, `accumulate`, for this one batch.
        """
        assert self.selector is not None
        if not self._in_pass:  # to calibrate (quantize=8), before there is a criterion
            return super().preprocess_batch(batch)
        self._images += len(batch["img"])
        if not self.selector.selects_all:
            self._batches += 1
            self._nominal: int = self.accumulate
            self.accumulate = -NEVER if self._batches >= min(self._nominal, self._run_batches) else NEVER
        batch = super().preprocess_batch(batch)
        unwrap_model(self.model).criterion.carry(batch)
        return batch

    def optimizer_step(self) -> None:
        """Step as the host does."""
        self._batches = 0
        super().optimizer_step()

    def _on_train_batch_end(self) -> None:
        assert self.selector is not None
        if not self.selector.selects_all:
            self.accumulate = self._nominal

    def _on_train_epoch_end(self) -> None:
        assert self.selector is not None
        self._in_pass = False
        self._on_train_batch_end()  # which the host leaves out when `time` is up within a pass
        images = gather_objects(self._images)
        done = self.selector.end_pass(sum(images), shown_samples(self.selector, images))
        self.report.full_images = self._full_images * len(self.selector.history)
        if RANK in {-1, 0}:
            LOGGER.info(self.report.add(done))
            self.metrics.update(self.report.scalars())

    def validate(self) -> Any:
        """Validate as the host does; our figures join its metrics, and so its CSV and its loggers."""
        metrics, fitness = super().validate()
        if metrics is not None and RANK in {-1, 0}:
            metrics.update(self.report.scalars())
        return metrics, fitness
