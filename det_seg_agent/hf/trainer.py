"""`AgentTrainer`, which a user takes in place of `transformers.Trainer`."""

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer
from transformers.utils import logging

from det_seg_agent.errors import ConfigError
from det_seg_agent.hf.callback import AgentCallback
from det_seg_agent.hf.checkpoints import FOLDER, newest_whole
from det_seg_agent.hf.checks import check_data, check_host, settings_of
from det_seg_agent.hf.compat import VaryingEpochs, check_methods
from det_seg_agent.hf.data import KEY, NumberedCollator, WholeOrder
from det_seg_agent.hf.run import Run
from det_seg_agent.messages import LOGGER, connect


class AgentMixin(VaryingEpochs):
    """Makes a trainer train on selections: `class Mine(AgentMixin, MyTrainer)`.

    The arguments are the host's and two more.

    Args:
        agent: our settings, such as {"strategy": "agent", "ratio": 0.6}; see `Settings` and `HfSettings`.
        samples: file or name of each sample, by index; by default those of an image folder. A checkpoint of other
            samples is refused, and the pictures of a run show the files.

    Raises:
        ConfigError: if arguments, settings, model or data are invalid.
        HostError: if the installed version of the host cannot work.
    """

    train_dataset: Any
    data_collator: Any

    def __init__(
        self,
        *given: Any,
        agent: Mapping[str, Any] | None = None,
        samples: Sequence[str | Path] | None = None,
        **named: Any,
    ):
        check_methods()
        self.agent_settings = settings_of(agent)
        self.agent_given = self.agent_settings.model_dump(exclude_unset=True)
        super().__init__(*given, **named)
        connect(logging.get_logger("transformers.trainer"))
        self.samples = None if samples is None else [str(sample) for sample in samples]
        check_host(self)
        if self.train_dataset is not None:
            check_data(self.train_dataset)
        self.add_callback(AgentCallback(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *given: Any, **named: Any) -> Any:
        """Train on selections; the arguments are the host's.

        With `resume_from_checkpoint=True`, the newest checkpoint that was written to its end is taken.

        Raises:
            ConfigError: if arguments, data or the checkpoint are invalid.
            StateError: if the checkpoint does not fit this run.
        """
        if (given and given[0] is not None) or named.get("trial") is not None:
            raise ConfigError("trial: a search trains several runs in one folder. Start a run for each setting.")
        if self.run is not None and hasattr(self.run, "tap"):
            self.run.tap.remove()
        self.run = Run(self, self.samples)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(newest_whole(self.run.output, self.args.world_size))
        if resume_from_checkpoint:
            self.run.resume(self.args, Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, *given, **named)

    # Data -------------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the host's loader of samples that come with their indices."""
        if self.run is None:
            return super().get_train_dataloader()
        dataset, collate = self.train_dataset, self.data_collator
        try:
            self.train_dataset = self.run.data
            self.data_collator = NumberedCollator(
                self._get_collator_with_removed_columns(collate, description="Training")
            )
            return super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator = dataset, collate

    def _get_train_sampler(self, *given: Any, **named: Any) -> Sampler[int] | None:
        if self.run is None or self.run.stock:
            return super()._get_train_sampler(*given, **named)
        return WholeOrder(self.run.selector.sampler)

    # Steps ------------------------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: Any, *given: Any, **named: Any) -> torch.Tensor:
        """Train as the host does.

        Raises:
            ConfigError: if a `compute_loss` of the user's does not call ours, which reads the signals.
        """
        assert self.run is not None
        before = self.run.done
        loss = super().training_step(model, inputs, *given, **named)
        if self.run.done != before + 1:
            raise ConfigError(
                f"{type(self).__name__}.compute_loss: it has not called super().compute_loss(...) with the batch, "
                "which reads the signals. Call it, and change the loss that it returns."
            )
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None, **named: Any
    ) -> Any:
        """Return the host's loss, and read the signals of a training batch; the arguments are the host's."""
        index = inputs.pop(KEY, None) if isinstance(inputs, MutableMapping) else None
        named["num_items_in_batch"] = num_items_in_batch
        if index is None or self.run is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **named)
        labels = inputs.get("labels")
        if labels is None:
            raise ConfigError(
                f"train_dataset: its batches have no 'labels', only {', '.join(map(str, inputs))}. Name the labels "
                "so, as the models of transformers do."
            )
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **named)
        loss = self.run.read(index, labels, outputs, loss, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def create_scheduler(self, num_training_steps: int, *given: Any, **named: Any) -> Any:
        """Make the host's scheduler for the steps of the selections; a warm-up in steps keeps its share of the run."""
        steps, run = self.args.warmup_steps, self.run
        if run is None or run.stock or steps < 1 or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, *given, **named)
        scaled = max(1, round(steps * run.plan.budget))
        LOGGER.info(f"warmup_steps={steps:g} become {scaled}, as the run has {run.plan.budget:.1%} of the images")
        try:
            self.args.warmup_steps = scaled
            return super().create_scheduler(num_training_steps, *given, **named)
        finally:
            self.args.warmup_steps = steps

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as the host does; a checkpoint gets our state."""
        super().save_model(output_dir, _internal_call)
        if _internal_call and self.run is not None and output_dir and FOLDER.fullmatch(Path(output_dir).name):
            self.run.save(Path(output_dir))


class AgentTrainer(AgentMixin, Trainer):
    """`transformers.Trainer` that trains on selections; see `AgentMixin`."""
