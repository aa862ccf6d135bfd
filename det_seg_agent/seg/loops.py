"""MMEngine's two training loops, adapted to selections; users set them as `train_cfg.type`."""

from collections.abc import Iterator
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from det_seg_agent.hosts.input_errors import input_errors
from det_seg_agent.messages import LOGGER
from det_seg_agent.seg.hook import AgentHook
from det_seg_agent.seg.index import naming_broken_images
from det_seg_agent.seg.recipe import Recipe
from det_seg_agent.seg.run import Run, together
from det_seg_agent.seg.scaling import whole

REMEDY = "Check its settings, and data_root, data_prefix, ann_file and img_suffix of its dataset."


class PassIterator:
    """Endless iterator of batches, one selection after another; keeps the loader's workers.

    After a resume the host calls it `iter` times to skip trained batches; these calls load nothing.
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
    """`IterBasedTrainLoop` that trains on selections, for a number of iterations that follows from the budget.

    The recipe's `max_iters` count as training on full data. All settings that count iterations are multiplied by the
    budget (see `recipe`): `max_iters`, `val_begin`, `val_interval`, `dynamic_intervals`, parameter schedulers with
    `by_epoch=False` or `convert_to_iter_based`, `CheckpointHook` and `EMAHook`. The arguments are the host's.

    Raises:
        ConfigError: on all ranks, if settings or data are invalid.
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
            LOGGER.info(
                f"budget {run.budget:.1%}: the recipe's {run.full_iterations} iterations become {run.iterations}, "
                f"{run.passes} passes over {len(run.selector)} images; learning rate schedules, validation (every "
                f"{loop['val_interval']}), checkpoints and averages of weights are scaled by the same factor"
            )
        super().__init__(runner, self.dataloader, **loop)

    def train_on_selections(self, run: Run) -> None:
        """Replace the host's iterator, which would restart workers and sleep at the end of each selection."""
        self.dataloader_iterator = PassIterator(self.dataloader, run, self._iter)


@LOOPS.register_module()
class AgentEpochLoop(EpochBasedTrainLoop):
    """`EpochBasedTrainLoop` whose epochs train on selections and are therefore shorter.

    Settings that count epochs do not change; those that count iterations are multiplied by the budget, as in
    `AgentIterLoop`. The arguments are the host's.

    Raises:
        ConfigError: on all ranks, if settings or data are invalid.
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
            LOGGER.info("how many iterations an epoch has follows from the strategy; nothing is scaled")
        elif not run.stock:
            LOGGER.info(
                f"budget {run.budget:.1%}: {run.passes} epochs of up to {run.full_epoch} iterations; learning rate "
                "schedules, checkpoints and averages of weights that count iterations are scaled by that factor"
            )

    def run_epoch(self) -> None:
        """Train one epoch as the host does; errors in loading name the file."""
        with naming_broken_images(self.dataloader, lambda: self._run.done):
            super().run_epoch()


def run_of(loop: BaseLoop, runner: Any, dataloader: Any, key: str, length: Any, by_iterations: bool) -> Run:
    """Build a loop's data loader and its `Run`, and give the run to the runner's hook.

    Args:
        loop: the loop, not yet initialised.
        runner: the host's Runner.
        dataloader: the host's setting.
        key: name of `length`, for messages.
        length: iterations or epochs of the recipe.
        by_iterations: whether `length` counts iterations.

    Raises:
        ConfigError: if settings or data are invalid.
    """
    length = whole(key, length)
    with input_errors("train_dataloader", "mmengine", "mmseg", remedy=REMEDY):
        BaseLoop.__init__(loop, runner, dataloader)
    hook = AgentHook.of(runner)
    hook.run = Run(runner, loop.dataloader, length, by_iterations)
    return hook.run
