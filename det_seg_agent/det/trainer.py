"""The mixin that makes Ultralytics trainers train on selections, and the detection trainer. `det.trainers` has all."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import RANK

from det_seg_agent.det import compat
from det_seg_agent.det.classes import classes_of
from det_seg_agent.det.compat import unwrap_model
from det_seg_agent.det.criterion import SignalCriterion
from det_seg_agent.det.dataset import IndexedDataset, image_files
from det_seg_agent.det.heads import check_head
from det_seg_agent.det.loader import (
    SelectionLoader,
    batches_of_a_run,
    host_loader,
    images_of_a_pass,
    needs_whole_batches,
    shuffles,
)
from det_seg_agent.det.loggers import show_pictures
from det_seg_agent.det.looks import label_looks, prediction_looks
from det_seg_agent.det.loop import LoopMixin
from det_seg_agent.det.messages import HOST, connect
from det_seg_agent.det.resume import (
    find_state,
    grab_training,
    restore_training,
    save_state,
    slim_states,
    warn_of_others,
    whole_checkpoints,
)
from det_seg_agent.det.settings import DetSettings, from_environment, in_environment
from det_seg_agent.errors import ConfigError
from det_seg_agent.fingerprint import packed, refuse_older, refuse_other_samples
from det_seg_agent.reporting.report import Report
from det_seg_agent.selector import Selector
from det_seg_agent.settings import parse, refuse_changes
from det_seg_agent.strategies import strategy_class


class AgentTrainerMixin(LoopMixin):
    """Mixin that makes an Ultralytics trainer train on selections. Must be the first base class.

    Raises:
        ConfigError: if settings or model are invalid, before training starts.
    """

    settings: DetSettings | None = None
    task: str  # the host's task of this trainer

    @classmethod
    def configured(cls, **fields: Any) -> type["AgentTrainerMixin"]:
        """Return a trainer class with these settings; see `DetSettings`."""
        body = {"settings": parse(DetSettings, fields, "agent."), "__module__": cls.__module__}
        return type(cls.__name__, (cls,), body)

    def __init__(self, *args: Any, **kwargs: Any):
        compat.check_needed()
        self.selector = None
        self.saved = None
        connect(HOST)  # a run of another toolbox may have connected its own since the import
        super().__init__(*args, **kwargs)
        if self.args.task != self.task:
            raise ConfigError(f"task={self.args.task!r} is not for {type(self).__name__}; valid: {self.task}.")
        if compat.setting(self.args, "distill_model") is not None:
            raise ConfigError("distill_model is not supported: its loss is no sum over images. Drop it.")
        self.agent_settings = self.settings or from_environment() or parse(DetSettings, {})
        if self.resume:
            self.saved = find_state(Path(self.args.resume))
            warn_of_others(self.csv)
            self.agent_settings = self._settings_on_resume()
        if self.agent_settings.seed is None:
            self.agent_settings = self.agent_settings.model_copy(update={"seed": self.args.seed})
        if compat.launches_processes(self):
            return  # training runs in child processes, which inherit its callbacks and would have ours twice
        for event in ("on_pretrain_routine_end", "on_train_epoch_start", "on_train_epoch_end", "on_train_end"):
            self.add_callback(event, getattr(type(self), f"_{event}"))
        self.add_callback("on_train_batch_end", type(self)._on_train_batch_end)

    def train(self) -> Any:
        """Train as the host does, in this process or in several by its launcher."""
        if not compat.launches_processes(self):
            return super().train()
        with in_environment(self.agent_settings):
            return super().train()

    def _settings_on_resume(self) -> DetSettings:
        assert self.saved is not None
        refuse_older(self.saved["selector"])
        saved = parse(DetSettings, self.saved["selector"]["settings"], "agent.")
        if self.settings is not None:
            refuse_changes(self.settings.model_dump(exclude_unset=True), saved.model_dump())
        return saved

    def get_model(self, *args: Any, **kwargs: Any) -> Any:
        """Return the host's model.

        Raises:
            ConfigError: if its head does not match this trainer.
        """
        model = super().get_model(*args, **kwargs)
        check_head(model.model[-1], next(cls.__name__ for cls in type(self).__mro__ if "task" in vars(cls)))
        return model

    # Data -----------------------------------------------------------------------------------------------------------

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Return the host's loader, or for training a `SelectionLoader` (except with `strategy=full`)."""
        stock = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode != "train":
            return stock
        stock = compat.rewound(stock)
        seed = self.agent_settings.seed or 0
        selects_all = strategy_class(self.agent_settings.strategy).selects_all
        files = image_files(stock.dataset)
        world_size = compat.world_size(self)
        if self.selector is None:
            self.selector = Selector(
                len(files),
                self.epochs,
                self.agent_settings,
                rank=max(RANK, 0),
                world_size=world_size,
                samples=files,
                applies_weights=True,
                classes=classes_of(self.data, stock.dataset),
            )
        else:  # the host rebuilds its loaders after calibration (quantize=8), or out of memory with smaller batches
            refuse_other_samples(self.selector.samples, packed(files))
        dataset = IndexedDataset(
            stock.dataset, seed, max(RANK, 0), fresh=not selects_all, collate=stock.collate_fn,
            weighs=self.selector.strategy.weighs,
        )  # fmt: skip
        sampler = self.selector.sampler
        sampler.shuffle = shuffles(stock)
        whole = stock.drop_last or needs_whole_batches(self.args, getattr(self, "stride", 32))
        sampler.batch = stock.batch_size if whole and not selects_all else 1
        # The host bases its warm-up on the loader's length, which must be that of a full epoch.
        sampler.set_selection(torch.arange(len(self.selector)))
        self._full_images = images_of_a_pass(stock) * world_size
        # With `time` the host does not cap `accumulate` by the number of batches either.
        self._run_batches = math.inf if self.args.time else batches_of_a_run(self.selector, stock.batch_size)
        return host_loader(stock, dataset) if selects_all else SelectionLoader(dataset, sampler, stock)

    # The loop -------------------------------------------------------------------------------------------------------

    def _on_pretrain_routine_end(self) -> None:
        assert self.selector is not None
        model = unwrap_model(self.model)
        stock = getattr(model, "criterion", None) or model.init_criterion()
        if hasattr(model, "criterion"):
            del model.criterion  # a registered module could only be replaced by a module
        model.criterion = SignalCriterion(stock, self.selector.observe, model.model[-1])
        if self.selector.strategy.needs_sufficiency and not model.criterion.gives_sufficiency:
            raise ConfigError(
                f"agent.strategy={self.agent_settings.strategy!r} with these options needs the sufficiency of images, "
                f"which the head {type(model.model[-1]).__name__} does not tell. Take another strategy, or the agent's "
                "difficulty=loss."
            )
        files = [str(f) for f in self.train_loader.dataset.im_files]
        self.report = Report(
            self.save_dir, self.selector, files, self.agent_settings.trace,
            labels=label_looks(self.train_loader.dataset.__wrapped__, self.data["names"]),
            predictions=prediction_looks(self, files),
        )  # fmt: skip
        self.report.until = f"time={self.args.time:g} hours are over" if self.args.time else ""
        if self.saved is not None:
            self.selector.load_state_dict(self.saved["selector"], other_length=True)
            # The host bases its warm-up on the loader's length, as in `get_dataloader`.
            self.selector.sampler.set_selection(torch.arange(len(self.selector)))
        if RANK in {-1, 0}:
            self.report.begin(self.start_epoch)

    # Saving ---------------------------------------------------------------------------------------------------------

    def save_model(self) -> Any:
        """Save our state, then the host's checkpoint; in this order a stop in between leaves a matching pair."""
        assert self.selector is not None
        state: dict[str, Any] = {"epoch": self.epoch, "selector": deepcopy(self.selector.state_dict())}
        # Not with NaN weights: the host repairs those that it saves.
        if self.agent_settings.exact_resume and all(p.isfinite().all() for p in unwrap_model(self.model).parameters()):
            state["training"] = grab_training(self, self._batches)
        save_state(self.wdir, state)
        with whole_checkpoints(self):
            return super().save_model()

    def resume_training(self, ckpt: Any) -> None:
        """Resume as the host does, then restore full-precision weights if our state has them."""
        super().resume_training(ckpt)
        if self.saved is not None:
            restore_training(self, self.saved, gradients=False)

    def final_eval(self) -> Any:
        """Draw the run's pictures, then evaluate as the host does; its loggers take pictures until training ends."""
        if RANK in {-1, 0}:
            self.report.end()
            show_pictures(self, self.report)
        return super().final_eval()

    def _on_train_end(self) -> None:
        # Again, with the whole duration; the command line adds its figures to `metrics.json`.
        self.report.end(draw=not self.report.pictures)
        slim_states(self.last, self.best)


class AgentDetectionTrainer(AgentTrainerMixin, DetectionTrainer):
    """`DetectionTrainer` that trains on selections.

    Use `YOLO(...).train(trainer=AgentDetectionTrainer.configured(ratio=0.6), ...)`. The class itself has the default
    settings. All settings of the host keep their meaning.
    """

    task = "detect"
