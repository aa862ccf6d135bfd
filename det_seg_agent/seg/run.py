"""One training run: its selector, its passes and its saved state. The loops create it, and `AgentHook` drives it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import get_dist_info, get_world_size
from torch import Tensor

from det_seg_agent.errors import ConfigError
from det_seg_agent.messages import LOGGER, connect
from det_seg_agent.pass_report import PassReport
from det_seg_agent.ranks import gather_objects
from det_seg_agent.reporting.looks import Looks
from det_seg_agent.reporting.report import Report
from det_seg_agent.seeding import random_state, set_random_state
from det_seg_agent.seg.checkpoints import bare
from det_seg_agent.seg.checks import batch_note, settings_of
from det_seg_agent.seg.classes import classes_of
from det_seg_agent.seg.heads import unweighable
from det_seg_agent.seg.index import SampleIndex, image_paths
from det_seg_agent.seg.looks import mask_looks, prediction_looks
from det_seg_agent.seg.masks import Masks
from det_seg_agent.seg.recipe import iterations_of, passes_of, plan
from det_seg_agent.seg.resume import check_state
from det_seg_agent.seg.sampler import check_loader, stock_sampler
from det_seg_agent.selector import Selector
from det_seg_agent.settings import Settings
from det_seg_agent.strategies import strategy_class


@contextmanager
def together() -> Iterator[None]:
    """Make every process fail if one does, instead of waiting for it in a collective. A collective itself.

    Raises:
        ConfigError: if another process failed; includes its error.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as found:
        error = found
    others = gather_objects(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for rank, text in enumerate(others):
        if text is not None:
            raise ConfigError(f"process {rank} of {len(others)} cannot start: {text}")


class Run:
    """A training run over selections.

    Args:
        runner: the host's Runner.
        loader: the training loader; its sampler is attached to the selections.
        length: iterations or epochs of the recipe.
        by_iterations: whether `length` counts iterations.

    Attributes:
        selector: the run's selector.
        index: maps image paths to dataset indices.
        masks: checks the masks as they are loaded.
        stock: whether the host's own sampler is used, as with `strategy=full`.
        fixed: whether the number of iterations is known in advance.
        passes: number of passes in the whole run.
        full_iterations, full_images: number of iterations and images of the recipe.
        iterations: number of iterations of the whole run; the recipe's if not `fixed`.
        full_epoch: iterations of one epoch of the recipe.
        over: whether no pass is in progress.
        done: iterations of the current pass so far.
        report: the run's report, set when training starts.

    Raises:
        ConfigError: if settings, sampler or data are invalid.
    """

    selector: Selector
    report: Report

    def __init__(self, runner: Any, loader: Any, length: int, by_iterations: bool):
        connect(runner.logger)
        check_loader(loader)
        self._given, self._settings = settings_of(runner.cfg)
        self.loader, self.by_iterations = loader, by_iterations
        self.index = SampleIndex(image_paths(loader.dataset))
        self.masks = Masks(loader.dataset, bare(runner.model))
        if note := batch_note(runner.cfg, get_world_size(), loader.batch_size):
            LOGGER.warning(note)
        self.batch, samples = loader.batch_size * get_world_size(), len(loader.dataset)
        self.stock = strategy_class(self._settings.strategy).selects_all
        loader.sampler.attach(stock_sampler(loader.sampler, by_iterations, runner.seed))
        self.full_epoch = len(loader)
        self.over, self.done = True, 0
        self._random: list[Any] | None = None
        self._all_random: list[Any] = []
        if by_iterations:
            planned = plan(self._settings, length, samples, self.batch)
            self.passes = passes_of(length, samples, self.batch) if self.stock else planned.passes
            self.full_iterations, self.full_images = length, length * self.batch
            self.iterations = length if self.stock else planned.iterations
        else:
            self.passes = length
            self.full_iterations, self.full_images = length * self.full_epoch, length * samples
            self.iterations = self.full_iterations
            if not self.stock:
                self.iterations = sum(
                    iterations_of(self._settings, p, length, samples, self.batch) for p in range(length)
                )
        model = bare(runner.model)
        self._classes = classes_of(loader.dataset, model)
        seed = runner.seed if self._settings.seed is None else self._settings.seed
        self._select_by(self._settings.model_copy(update={"seed": seed}), runner.seed, model)
        self.fixed = self.selector.strategy.fixed_budget
        if not self.fixed:
            self.iterations = self.full_iterations
        self._check()

    def _check(self) -> None:
        settings = self._settings
        if self.by_iterations and not self.fixed:
            raise ConfigError(
                f"agent.strategy={settings.strategy!r} selects as many images as its own rule gives, so that "
                "AgentIterLoop cannot know how many iterations the run has. Set train_cfg = dict(_delete_=True, "
                "type='AgentEpochLoop', max_epochs=...), or leave agent.options.native out."
            )
        if not self.stock and (warning := settings.nothing_selected(self.passes, "images")):
            LOGGER.warning(warning)

    def _select_by(self, settings: Settings, host_seed: int | None, model: Any) -> None:
        loader, (rank, world) = self.loader, get_dist_info()
        # A strategy that cannot do without weights is refused with the name of the loss, see `check_model`.
        weighed = strategy_class(settings.strategy).needs_weights or not unweighable(model)
        self.selector = Selector(
            len(loader.dataset), self.passes, settings, rank=rank, world_size=world, shuffle=loader.sampler.shuffle,
            batch=loader.batch_size, samples=self.index.paths, applies_weights=weighed,
            classes=self._classes,
        )  # fmt: skip
        if self.stock:
            loader.sampler.attach(stock_sampler(loader.sampler, self.by_iterations, host_seed))
        else:
            loader.sampler.attach(self.selector.sampler)

    def looks(self, model: Any) -> tuple[Looks | None, Looks | None]:
        """Return what draws masks and the model's predictions for the report; None where classes are unknown."""
        if self._classes is None:
            return None, None
        names = self._classes.names
        return mask_looks(self.loader.dataset, names), prediction_looks(model, self.index.paths, names)

    @property
    def budget(self) -> float | None:
        """Fraction of the recipe's images that the run trains on, including padding; None if not known in advance."""
        if self.stock:
            return 1.0
        return self.iterations * self.batch / self.full_images if self.fixed else None

    # Passes -----------------------------------------------------------------------------------------------------------

    def iterations_of(self, pass_index: int) -> int:
        """Return the number of iterations of a pass on each rank."""
        samples, batch = len(self.selector), self.batch
        if self.stock and self.by_iterations:  # batches continue across passes
            return round((pass_index + 1) * samples / batch) - round(pass_index * samples / batch)
        if self.stock:
            return self.full_epoch
        return iterations_of(self.selector.settings, pass_index, self.passes, samples, batch)

    def begin_pass(self, index: int | None = None) -> None:
        """Begin the next pass, or pass `index`: make its selection and give it to the sampler. A collective."""
        self.selector.begin_pass(self.selector.pass_index + 1 if index is None else index)
        self.over, self.done = False, 0
        self.report.mark()

    def end_pass(self) -> PassReport:
        """End the pass: learn from it and return its report. A collective."""
        images = self.done * self.batch  # including padding
        if self.stock and not self.by_iterations:
            images = min(images, len(self.selector))
        self.over = True
        return self.selector.end_pass(images)

    def weights_of(self, shown: Tensor) -> Tensor | None:
        """Return the loss weights (B,) of the samples `shown` (B,) int64; None if all are 1."""
        # the host may replace a broken image by any other one, selected or not
        return None if self.selector.selection.weights is None else self.selector.weights_of(shown)

    # State ------------------------------------------------------------------------------------------------------------

    def gather(self, held: Any = None) -> None:
        """Gather from all ranks what `state` needs. A collective.

        Args:
            held: random state to save instead of the current one.
        """
        self.selector.gather()
        self._all_random = gather_objects(held or random_state())

    def state(self) -> dict[str, Any]:
        """Return our state for a checkpoint; call `gather` first."""
        return {
            "selector": self.selector.state_dict(),
            "over": self.over,
            "done": self.done,
            "random": self._all_random,
            "layout": self._layout(),
        }

    def resume(self, runner: Any, saved: dict[str, Any] | None) -> None:
        """Restore `saved`, the return value of `state`.

        Raises:
            ConfigError: if there is no state, its settings differ from the config's, or its run is finished.
            StateError: if it does not fit this run.
        """
        settings, note = check_state(saved, self._given, self._layout(), self.passes, self._settings)
        assert saved is not None
        if note:
            LOGGER.warning(note)
        if runner.iter >= runner.max_iters if self.by_iterations else runner.epoch >= runner.max_epochs:
            raise ConfigError(
                f"work_dir={str(runner.work_dir)!r}: its run is finished, nothing is left to resume. Start a new one "
                "with load_from= its checkpoint and another work_dir."
            )
        self._select_by(settings, runner.seed, bare(runner.model))
        self.selector.load_state_dict(saved["selector"], other_length=True)  # `check_state` has warned
        self.over, self.done, self._random = saved["over"], saved["done"], saved["random"]
        if self.by_iterations:
            walked = runner.iter if self.stock else 0 if self.over else self.done
            self.loader.sampler.skip = walked * self.loader.batch_size
        else:
            self.over = True  # the host restarts an unfinished epoch

    def restore_random(self) -> None:
        """Restore the saved random state of a resumed run, at the first call only."""
        rank = get_dist_info()[0]
        if self._random is not None and rank < len(self._random):
            set_random_state(self._random[rank])
        self._random = None

    def _layout(self) -> dict[str, int]:
        return {"processes": get_world_size(), "batch": self.loader.batch_size}
