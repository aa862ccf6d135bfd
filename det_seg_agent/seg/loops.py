"""MMEngine's two training loops, walking over selections."""

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from det_seg_agent.cli import input_errors
from det_seg_agent.seg.hook import AgentHook
from det_seg_agent.seg.index import naming_broken_images
from det_seg_agent.seg.scaling import passes_of, scale_schedulers, scaled, scaled_interval

REMEDY = "Check its settings, and data_root, data_prefix, ann_file and img_suffix of its dataset."


class PassIterator:
    """An endless stream of batches, selection after selection; the workers of the loader are kept.

    The host calls it `iter` times after a resume, to skip what was trained: these calls load nothing.
    """

    def __init__(self, loader: Any, hook: AgentHook, advance: int):
        self._loader, self._hook, self._advance = loader, hook, advance
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> "PassIterator":
        return self

    def __next__(self) -> Any:
        if self._advance:
            self._advance -= 1
            return None
        if self._batches is None and not self._hook.over:  # resumed within a pass
            self._batches = iter(self._loader)
            self._hook.restore_random()
        elif self._batches is None or (self._hook.over and not self._hook.stock):
            self._hook.restore_random()
            self._hook.begin_pass()
            self._batches = iter(self._loader)
        with naming_broken_images(self._loader, lambda: self._hook.done):
            return next(self._batches)


@LOOPS.register_module()
class AgentIterLoop(IterBasedTrainLoop):
    """`IterBasedTrainLoop` whose iterations follow the budget; a pass is a walk over one selection.

    The recipe's `max_iters` are taken as its full training. All that counts iterations is multiplied by the budget
    (`scaling`): `max_iters`, `val_begin`, `val_interval`, `dynamic_intervals`, parameter schedulers with
    `by_epoch=False`, and the interval of checkpoints. Arguments are the host's.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ):
        with input_errors("train_dataloader", "mmengine", "mmseg", remedy=REMEDY):
            BaseLoop.__init__(self, runner, dataloader)
        hook = AgentHook.of(runner)
        batch = self.dataloader.batch_size * get_world_size()
        samples = len(self.dataloader.dataset)
        passes = passes_of(max_iters, samples, batch)
        self.full_iters = int(max_iters)
        budget = hook.prepare(runner, self.dataloader, passes, by_iterations=True, full_images=self.full_iters * batch)
        if not hook.stock:
            max_iters = scaled(max_iters, budget)
            val_begin, val_interval = scaled_interval(val_begin, budget), scaled_interval(val_interval, budget)
            dynamic_intervals = [
                (scaled_interval(at, budget), scaled_interval(every, budget)) for at, every in dynamic_intervals or []
            ] or None
            scale_surroundings(runner, budget)
            runner.logger.info(
                f"budget {budget:.3f}: the recipe's {self.full_iters} iterations, {passes} passes over {samples} "
                f"images, become {max_iters}; learning rate schedules, validation (every {val_interval}) and "
                "checkpoints are scaled by the same factor"
            )
        super().__init__(runner, self.dataloader, max_iters, val_begin, val_interval, dynamic_intervals)

    def walk_selections(self, hook: AgentHook) -> None:
        """Replace the host's iterator, which restarts workers and sleeps at the end of a selection."""
        self.dataloader_iterator = PassIterator(self.dataloader, hook, self._iter)


@LOOPS.register_module()
class AgentEpochLoop(EpochBasedTrainLoop):
    """`EpochBasedTrainLoop` whose epochs walk over selections, so that they are shorter.

    What counts epochs stays; parameter schedulers and checkpoint intervals that count iterations are multiplied by the
    budget. Arguments are the host's.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ):
        with input_errors("train_dataloader", "mmengine", "mmseg", remedy=REMEDY):
            BaseLoop.__init__(self, runner, dataloader)
        hook = AgentHook.of(runner)
        samples = len(self.dataloader.dataset)
        budget = hook.prepare(
            runner, self.dataloader, int(max_epochs), by_iterations=False, full_images=int(max_epochs) * samples
        )
        super().__init__(runner, self.dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        if not hook.stock:
            self._max_iters = sum(hook.iterations_of(p) for p in range(int(max_epochs)))
            scale_surroundings(runner, budget, max(1, round(self._max_iters / int(max_epochs))))
            runner.logger.info(
                f"budget {budget:.3f}: {max_epochs} epochs of up to {len(self.dataloader)} iterations; learning rate "
                "schedules and checkpoints that count iterations are scaled by the same factor"
            )

    def run_epoch(self) -> None:
        """Walk one epoch, as the host does."""
        with naming_broken_images(self.dataloader, lambda: AgentHook.of(self.runner).done):
            super().run_epoch()


def scale_surroundings(runner: Any, budget: float, epoch_length: int | None = None) -> None:
    """Scale what counts iterations outside the loop: parameter schedulers, not built yet, and checkpoint intervals."""
    runner.param_schedulers = scale_schedulers(runner.param_schedulers, budget, epoch_length)
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and not hook.by_epoch:
            hook.interval = scaled_interval(hook.interval, budget)
