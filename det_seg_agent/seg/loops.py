"""MMEngine's two training loops, walking over selections."""

from collections.abc import Iterator
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from det_seg_agent.hosts.commands import input_errors
from det_seg_agent.seg.counts import whole
from det_seg_agent.seg.hook import AgentHook
from det_seg_agent.seg.index import naming_broken_images
from det_seg_agent.seg.recipe import Recipe
from det_seg_agent.seg.run import Run, together

REMEDY = "Check its settings, and data_root, data_prefix, ann_file and img_suffix of its dataset."


class PassIterator:
    """An endless stream of batches, selection after selection; the workers of the loader are kept.

    The host calls it `iter` times after a resume, to skip what was trained: these calls load nothing.
    """

    def __init__(self, loader: Any, run: Run, advance: int):
        self._loader, self._run, self._advance = loader, run, advance
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> "PassIterator":
        return self

    def __next__(self) -> Any:
        if self._advance:
            self._advance -= 1
            return None
        if self._batches is None and not self._run.over:  # resumed within a pass
            self._batches = iter(self._loader)
            self._run.restore_random()
        elif self._batches is None or (self._run.over and not self._run.stock):
            self._run.restore_random()
            self._run.begin_pass()
            self._batches = iter(self._loader)
        with naming_broken_images(self._loader, lambda: self._run.done):
            return next(self._batches)


@LOOPS.register_module()
class AgentIterLoop(IterBasedTrainLoop):
    """`IterBasedTrainLoop` whose iterations follow the budget; a pass is a walk over one selection.

    The recipe's `max_iters` are taken as its full training. All that counts iterations is multiplied by the budget
    (`recipe`): `max_iters`, `val_begin`, `val_interval`, `dynamic_intervals`, parameter schedulers with
    `by_epoch=False` or `convert_to_iter_based`, `CheckpointHook` and `EMAHook`. Arguments are the host's.
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
        given = {"val_begin": val_begin, "val_interval": val_interval, "dynamic_intervals": dynamic_intervals}
        with together():
            run = run_of(self, runner, dataloader, "train_cfg.max_iters", max_iters, by_iterations=True)
            loop = {**given, "max_iters": run.iterations}
            if run.iterations < run.full_iterations:
                recipe = Recipe(run.iterations / run.full_iterations, run.full_iterations, run.full_epoch)
                loop = recipe.loop(given)
                recipe.apply(runner)
        if not run.stock:
            runner.logger.info(
                f"budget {run.budget:.1%}: the recipe's {run.full_iterations} iterations become {run.iterations}, "
                f"{run.passes} passes over {len(run.selector)} images; learning rate schedules, validation (every "
                f"{loop['val_interval']}), checkpoints and averages of weights are scaled by the same factor"
            )
        super().__init__(runner, self.dataloader, **loop)

    def walk_selections(self, run: Run) -> None:
        """Replace the host's iterator, which restarts workers and sleeps at the end of a selection."""
        self.dataloader_iterator = PassIterator(self.dataloader, run, self._iter)


@LOOPS.register_module()
class AgentEpochLoop(EpochBasedTrainLoop):
    """`EpochBasedTrainLoop` whose epochs walk over selections, so that they are shorter.

    What counts epochs stays; what counts iterations is multiplied by the budget, as with `AgentIterLoop`. Arguments
    are the host's.
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
        with together():
            run = run_of(self, runner, dataloader, "train_cfg.max_epochs", max_epochs, by_iterations=False)
            if run.iterations < run.full_iterations:
                share = run.iterations / run.full_iterations
                Recipe(share, run.full_iterations, run.full_epoch, run.passes).apply(runner)
        super().__init__(runner, self.dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        self._max_iters = run.iterations
        self._run = run
        if run.budget is None:
            runner.logger.info("how many iterations an epoch has follows from the strategy; nothing is scaled")
        elif not run.stock:
            runner.logger.info(
                f"budget {run.budget:.1%}: {run.passes} epochs of up to {run.full_epoch} iterations; learning rate "
                "schedules, checkpoints and averages of weights that count iterations are scaled by that factor"
            )

    def run_epoch(self) -> None:
        """Walk one epoch, as the host does."""
        with naming_broken_images(self.dataloader, lambda: self._run.done):
            super().run_epoch()


def run_of(loop: BaseLoop, runner: Any, dataloader: Any, key: str, length: Any, by_iterations: bool) -> Run:
    """Build a loop's data loader, and return the run over it, which the runner's hook gets too."""
    length = whole(key, length)
    with input_errors("train_dataloader", "mmengine", "mmseg", remedy=REMEDY):
        BaseLoop.__init__(loop, runner, dataloader)
    hook = AgentHook.of(runner)
    hook.run = Run(runner, loop.dataloader, length, by_iterations)
    return hook.run
