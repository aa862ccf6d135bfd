"""`SignalTap`: reads the signals of a batch from the host's own forward. `hf.run` owns one."""

from typing import Any

import torch
from torch import Tensor, nn

from det_seg_agent.errors import ConfigError
from det_seg_agent.hf.heads import bare, head_of, ignore_index_of, kind_of
from det_seg_agent.hf.signals import BatchSignals, of_classes, of_pixels, of_tokens, shifted, terms
from det_seg_agent.messages import LOGGER

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # relative; of other types:
COARSE = 0.03


class SignalTap:
    """Reads signals by one forward hook on the model's head; the forward itself does not change.

    Args:
        model: the model, not its distributed wrapper.
        head: name of the head, or None for the usual one.
        weighted: whether the strategy cannot do without weighted losses of samples.
        processes: number of processes, by which the host may multiply the loss.

    Raises:
        ConfigError: if the model is not supported.
    """

    def __init__(self, model: Any, head: str | None, weighted: bool, processes: int):
        self.kind, self.model = kind_of(model), model
        self.ignore_index = ignore_index_of(model, self.kind)
        self.weighted, self.processes = weighted, processes
        self._checked = self._differs = False
        self._by_items = False  # whether the host divides by `num_items_in_batch`, not by the terms of the batch
        self._factor = 1.0
        self._input: Any = None
        self._output: Any = None
        self._handle = head_of(model, self.kind, head).register_forward_hook(self._keep, with_kwargs=True)

    def remove(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    def _keep(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if module.training:
            self._input = args[0] if args else next(iter(kwargs.values()))
            self._output = output if self.kind == "pixels" else None

    def read(
        self, labels: Tensor, outputs: Any, loss: Tensor, items: Any, weights: Tensor | None
    ) -> tuple[BatchSignals, Tensor, Tensor]:
        """Return the signals and features (B, F) of a batch, and its loss, weighted if there are weights.

        Args:
            labels: the batch's labels.
            outputs: what the model returned.
            loss: the host's loss.
            items: the host's `num_items_in_batch`, or None.
            weights: (B,) loss weights, or None.

        Raises:
            ConfigError: if labels or logits are not those of the model's kind, or weights cannot be applied.
        """
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[1]
        self._check_shapes(logits, labels)
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            if not self._checked:
                self._checked = True
                self._compare(logits, labels, loss, items)
            found = self._signals(logits.detach(), labels)
            features = self._features(labels)
        self._input = self._output = None
        if weights is not None and not self._differs:
            with torch.autocast(logits.device.type, enabled=False):
                sums, count = terms(self.kind, logits, labels, self.ignore_index)
                weights = weights.to(sums.device, non_blocking=True)
                per = items if self._by_items else count.sum()
                loss = loss + ((weights - 1) * sums).sum() / per * self._factor
        return found, features, loss

    def _signals(self, logits: Tensor, labels: Tensor) -> BatchSignals:
        if self.kind == "classes":
            return of_classes(logits, labels)
        if self.kind == "tokens":
            return of_tokens(logits, labels)
        low = self._output if isinstance(self._output, Tensor) and self._output.dim() == 4 else logits
        return of_pixels(low.detach(), labels, self.ignore_index)

    def _features(self, labels: Tensor) -> Tensor:
        if self._input is None:
            raise ConfigError(
                f"agent.head: the head of {type(bare(self.model)).__name__} was not called in the training forward, so "
                "there are no features. Name the module that makes the logits: agent={'head': ...}."
            )
        if self.kind == "tokens":
            mask = (shifted(labels) != -100).float()
            hidden = self._input.detach()
            total = torch.einsum("bth,bt->bh", hidden.float(), mask)
            return total / mask.sum(1, keepdim=True).clamp(min=1)
        levels = self._input if isinstance(self._input, list | tuple) else [self._input]
        return torch.cat([pooled(level.detach()) for level in levels], 1)

    def _check_shapes(self, logits: Any, labels: Any) -> None:
        """Refuse labels that the stock loss reads in another way."""
        wanted = {"classes": (2, 1), "tokens": (3, 2), "pixels": (4, 3)}[self.kind]
        what = {"classes": "a class of each sample", "tokens": "a token's number at each place", "pixels": "a mask"}
        if not isinstance(logits, Tensor):
            raise ConfigError(
                f"model {type(bare(self.model)).__name__}: it returns no logits in training, so there are no signals. "
                "Leave out what replaces its loss, such as use_liger_kernel."
            )
        if (logits.dim(), labels.dim()) != wanted or labels.dtype != torch.int64 or len(logits) != len(labels):
            raise ConfigError(
                f"labels {tuple(labels.shape)} of {labels.dtype} with logits {tuple(logits.shape)}: labels have to be "
                f"{what[self.kind]}, torch.int64. Change the data set or the collator."
            )

    def _compare(self, logits: Tensor, labels: Tensor, loss: Tensor, items: Any) -> None:
        """Compare the terms of the samples with the host's loss; find what it divides by. Once in a run."""
        sums, count = (float(part.sum()) for part in terms(self.kind, logits, labels, self.ignore_index))
        stock, mean = float(loss.detach()), sums / max(count, 1)
        ways = [(mean * factor, False, factor) for factor in (1.0, float(self.processes))]
        if items is not None:
            ways += [(sums / float(items) * factor, True, factor) for factor in (1.0, float(self.processes))]
        given = self._output if isinstance(self._output, Tensor) else self._input
        dtype = given.dtype if isinstance(given, Tensor) else logits.dtype
        limit = TOLERANCE.get(dtype, COARSE)
        close = [way for way in ways if abs(way[0] - stock) <= limit * max(abs(stock), 1e-6)]
        if close:
            _, self._by_items, self._factor = close[0]
            return
        if not torch.isfinite(loss):
            return
        reason = self._reason()
        text = f"first batch: the loss of the samples is {mean:.4g} on average, that of the host {stock:.4g}: {reason}"
        if self.weighted:
            raise ConfigError(f"{text}, so that samples cannot be weighted. Take a strategy that does not weight them.")
        self._differs = True
        LOGGER.warning(
            f"{text}. The signals are the cross-entropy alone; the training is the host's, and no sample is weighted."
        )

    def _reason(self) -> str:
        model = bare(self.model)
        if getattr(model, "auxiliary_head", None) is not None:
            return "it adds that of the auxiliary head"
        if getattr(model.config, "router_aux_loss_coef", None):
            return "it adds that of the router"
        return "it has more parts, such as label smoothing or a compute_loss_func, than the cross-entropy"


def pooled(level: Tensor) -> Tensor:
    """Return a level (B, F), (B, T, F) or (B, F, h, w) as (B, F) float32, averaged over places."""
    if level.dim() == 2:
        return level.float()
    return level.mean(1 if level.dim() == 3 else (2, 3), dtype=torch.float32)
