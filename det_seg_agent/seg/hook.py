"""The hook that joins the agent to a Runner."""

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from det_seg_agent.distributed import gather_objects
from det_seg_agent.errors import ConfigError
from det_seg_agent.report import Report
from det_seg_agent.seeding import random_state, set_random_state
from det_seg_agent.seg.checkpoints import bare, checkpoint_due, choose_checkpoint, write_whole
from det_seg_agent.seg.checks import batch_note, refuse_trained, settings_of
from det_seg_agent.seg.index import SampleIndex, image_paths
from det_seg_agent.seg.iou import Figures
from det_seg_agent.seg.masks import Masks
from det_seg_agent.seg.resume import check_state, refuse_other_model
from det_seg_agent.seg.sampler import check_loader, stock_sampler
from det_seg_agent.seg.signals import SignalTap
from det_seg_agent.selector import Selector
from det_seg_agent.settings import Settings

KEY = "det_seg_agent"


@HOOKS.register_module()
class AgentHook(Hook):
    """Takes signals, ends passes, saves and reports. Its settings are the config's top-level `agent` dict.

    It needs `AgentIterLoop` or `AgentEpochLoop` as `train_cfg.type` and `AgentSampler` as the training sampler.

    Attributes:
        selector: of the run, once the loop is built.
        stock: whether the host's own sampler is walked over, as `strategy=full` does.
        over: whether no pass is under way.
        done: iterations of this pass so far.
    """

    priority = "NORMAL"  # before the hooks that log and save
    selector: Selector

    def __init__(self) -> None:
        self.stock, self.over, self.done = False, True, 0
        self._saved: dict[str, Any] | None = None
        self._random: list[Any] | None = None
        self._all_random: list[Any] = []
        self._held: dict[str, Any] | None = None
        self._figures = Figures()

    @property
    def begun(self) -> bool:
        """Whether a batch was trained on."""
        return hasattr(self, "selector") and (self.done > 0 or bool(self.selector.history))

    @staticmethod
    def of(runner: Any) -> "AgentHook":
        """Return the runner's hook.

        Raises:
            ConfigError: unless there is one.
        """
        found = [hook for hook in runner.hooks if isinstance(hook, AgentHook)]
        if len(found) != 1:
            raise ConfigError(
                f"custom_hooks has {len(found)} AgentHooks, one is needed: custom_hooks = [dict(type='AgentHook')]."
            )
        return found[0]

    # Set-up -----------------------------------------------------------------------------------------------------------

    def prepare(self, runner: Any, loader: Any, passes: int, by_iterations: bool, full_images: int) -> float:
        """Make the selector, let the loader walk over its selections, and return the budget in iterations.

        The loop calls it. The budget is above that in images where a selection does not fill its last batch.

        Args:
            runner: the host's.
            loader: the training loader.
            passes: of the whole run.
            by_iterations: whether the loop counts iterations.
            full_images: images that training on full data would see.

        Raises:
            ConfigError: for settings, a sampler or data that cannot work.
        """
        check_loader(loader, runner.logger)
        self._given, settings = settings_of(runner.cfg)
        if not runner.cfg.get("resume", False):
            refuse_trained(Path(runner.work_dir))
        self._loader, self._passes, self._by_iterations, self._full = loader, passes, by_iterations, full_images
        self._index = SampleIndex(image_paths(loader.dataset))
        self._masks = Masks(loader.dataset, bare(runner.model), runner.logger)
        note = batch_note(runner.cfg, get_world_size(), loader.batch_size)
        if note:
            runner.logger.warning(note)
        seed = runner.seed if settings.seed is None else settings.seed
        self._select_by(settings.model_copy(update={"seed": seed}), runner.seed)
        batches = len(loader.dataset) / (loader.batch_size * get_world_size())
        return 1.0 if self.stock else sum(map(self.iterations_of, range(passes))) / (passes * batches)

    def _select_by(self, settings: Settings, host_seed: int | None) -> None:
        loader, (rank, world) = self._loader, get_dist_info()
        self.selector = Selector(
            len(loader.dataset), self._passes, settings, rank=rank, world_size=world, shuffle=loader.sampler.shuffle,
            batch=loader.batch_size, samples=self._index.paths, applies_weights=True,
        )  # fmt: skip
        self.stock = self.selector.selects_all
        walk = stock_sampler(loader.sampler, self._by_iterations, host_seed) if self.stock else self.selector.sampler
        loader.sampler.attach(walk)

    def before_run(self, runner: Any) -> None:
        """Refuse a loop that walks over no selections; see to the checkpoints before the host loads one."""
        if not hasattr(self, "selector"):
            raise ConfigError(
                f"train_cfg.type={type(runner.train_loop).__name__!r} walks over no selections. Set train_cfg = "
                "dict(type='AgentIterLoop'), or AgentEpochLoop where it counts epochs."
            )
        write_whole(runner)
        choose_checkpoint(runner)

    def before_train(self, runner: Any) -> None:
        """Take signals from now on, and go on where a resumed run was saved."""
        resumed = runner.iter > 0 or runner.epoch > 0
        if resumed:
            self._resume(runner)
        first = self.selector.pass_index + int(self.over) if resumed else 0
        self._tap = SignalTap(bare(runner.model), self.selector.strategy.weighs)
        self.report = Report(
            Path(runner.work_dir), self.selector, self._index.paths, self.selector.settings.trace, self._full,
            log=runner.logger,
        )  # fmt: skip
        if is_main_process():
            self.report.begin(first)
        if self._by_iterations and (resumed or not self.stock):
            runner.train_loop.walk_selections(self)

    def _resume(self, runner: Any) -> None:
        settings, note = check_state(self._saved, self._given, self._layout(), self._passes)
        assert self._saved is not None
        if note:
            runner.logger.warning(note)
        if runner.iter >= runner.max_iters if self._by_iterations else runner.epoch >= runner.max_epochs:
            raise ConfigError(
                f"work_dir={str(runner.work_dir)!r}: its run is finished, nothing is left to resume. Start a new one "
                "with load_from= its checkpoint and another work_dir."
            )
        self._select_by(settings, runner.seed)
        self.selector.load_state_dict(self._saved["selector"], other_length=True)  # `check_state` says so
        self.over, self.done, self._random = self._saved["over"], self._saved["done"], self._saved["random"]
        if self._by_iterations:
            walked = runner.iter if self.stock else 0 if self.over else self.done
            self._loader.sampler.skip = walked * self._loader.batch_size
        else:
            self.over = True  # the host begins an unfinished epoch again
        self._saved = None

    def _layout(self) -> dict[str, int]:
        return {"processes": get_world_size(), "batch": self._loader.batch_size}

    # Passes -----------------------------------------------------------------------------------------------------------

    def begin_pass(self, index: int | None = None) -> None:
        """Select for the next pass, or for pass `index`, and let the sampler walk over that."""
        self.selector.begin_pass(self.selector.pass_index + 1 if index is None else index)
        self.over, self.done = False, 0
        self.report.mark()

    def end_pass(self, runner: Any) -> None:
        """Learn from the pass and report it."""
        batch = self._loader.batch_size * get_world_size()
        images = self.done * batch  # with those that fill up the last batch
        if self.stock and not self._by_iterations:
            images = min(images, len(self.selector))
        result = self.selector.end_pass(images)
        self.over = True
        self._masks.hint()
        if result.dropped >= images > 0:
            runner.logger.warning(
                f"pass {result.pass_index + 1}: no image gave a finite loss, entropy and features, so the agent has "
                "learned nothing from it. The host goes on; if the logged loss is NaN or infinite, stop, lower the "
                "learning rate and resume from an earlier checkpoint."
            )
        if is_main_process():
            runner.logger.info(self.report.add(result))
            for name, value in self.report.scalars().items():
                if value == value:  # NaN: the strategy has no such figure
                    runner.message_hub.update_scalar(f"train/{name}", value)

    def iterations_of(self, pass_index: int) -> int:
        """Return the iterations of a pass on each rank."""
        samples, batch = len(self.selector), self._loader.batch_size * get_world_size()
        if self.stock and self._by_iterations:  # its batches go on across passes
            return round((pass_index + 1) * samples / batch) - round(pass_index * samples / batch)
        count = samples if self.stock else self.selector.settings.count_at(pass_index, self._passes, samples)
        return -(-count // batch)

    def before_train_epoch(self, runner: Any) -> None:
        """Begin the pass of an epoch."""
        if not self._by_iterations:
            self.restore_random()
            self.begin_pass(runner.epoch)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note which samples the batch shows, and the weights of their losses."""
        if self.over:
            self.begin_pass()
        samples = data_batch["data_samples"]
        shown = self._index.mark(samples)
        self._masks.check_packed(shown, samples)
        self._shown = torch.tensor(shown)
        self._tap.signals, self._tap.weights = None, None
        if self.selector.selection.weights is not None:
            # the host may show another image for a broken one, selected or not
            self._tap.weights = self.selector.weights_of(self._shown)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Take the batch's signals, and end the pass where the loop counts iterations."""
        self.done += 1
        if self._tap.signals is not None:
            loss, entropy, features, enough = self._tap.signals
            self.selector.observe(self._shown, loss, entropy, features, sufficiency=enough)
        if self._by_iterations:
            if self.done >= self.iterations_of(self.selector.pass_index):
                self.end_pass(runner)
            if checkpoint_due(runner):
                self._gather()

    def after_train_epoch(self, runner: Any) -> None:
        """End the pass of an epoch."""
        if not self._by_iterations:
            self.end_pass(runner)
        self._gather()

    def after_train(self, runner: Any) -> None:
        """End a pass that the last iteration cut, and leave plot, contact sheets and `metrics.json`."""
        if not self.over and self.done:
            self.end_pass(runner)
        self._tap.remove()
        if is_main_process():
            figures = {"iou": self._figures.last, "processes": get_world_size()}
            runner.logger.info(self.report.end(figures))

    # Validation -------------------------------------------------------------------------------------------------------

    def before_val(self, runner: Any) -> None:
        """Keep the random streams as they are: a resumed run does not validate again."""
        self._gather()
        if not self.stock:
            self._held = random_state()
        self._figures.begin(runner)

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Keep the figures by class."""
        self._figures.add(outputs)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Keep the figures; those of the last validation go to `metrics.json`."""
        self._figures.end(runner, metrics or {})

    def after_val(self, runner: Any) -> None:
        """Go on with the random streams as they were."""
        if self._held is not None:
            set_random_state(self._held)
            self._held = None

    # Saving -----------------------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Bring together what a checkpoint needs from all ranks; the host makes it on rank 0 alone."""
        if get_world_size() > 1:
            self.selector.gather()
            self._all_random = gather_objects(random_state())

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add our state to the host's checkpoint; called on rank 0 alone."""
        if get_world_size() == 1:
            self.selector.gather()
            self._all_random = [self._held or random_state()]
        checkpoint[KEY] = {
            "selector": self.selector.state_dict(),
            "over": self.over,
            "done": self.done,
            "random": self._all_random,
            "layout": self._layout(),
        }

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keep our state until it is known whether the run goes on or only starts from these weights.

        Raises:
            StateError: if the run goes on and the weights are of another model.
        """
        if runner._resume:
            refuse_other_model(bare(runner.model), checkpoint["state_dict"])
        self._saved = checkpoint.get(KEY)

    def restore_random(self) -> None:
        """Set the random streams to those that a resumed run was saved with; once."""
        rank = get_dist_info()[0]
        if self._random is not None and rank < len(self._random):
            set_random_state(self._random[rank])
        self._random = None
