"""Measure what the adapter for transformers adds to a step, paired in one process: `python tools/bench_hf.py vit`.

Both trainers take the same batches from their own loaders, forward, backward and optimizer step; CPU time is compared.
"""

import argparse
import copy
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from det_seg_agent.hf import AgentTrainer
from det_seg_agent.hf.run import Run

SAMPLES = 64


class Made(Dataset[Any]):
    """Samples in memory, made once."""

    def __init__(self, rows: list[dict[str, Any]]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])


def images(size: int, masks: bool = False, classes: int = 10) -> Made:
    """Return images, with a class or a mask each."""
    draw = torch.Generator().manual_seed(0)
    shape = (size, size) if masks else ()
    return Made([
        {"pixel_values": torch.randn(3, size, size, generator=draw),
         "labels": torch.randint(0, classes, shape, generator=draw) if masks else i % classes}
        for i in range(SAMPLES)
    ])  # fmt: skip


def texts(length: int, words: int) -> Made:
    """Return texts, the first half of each its prompt."""
    draw = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(SAMPLES):
        tokens = torch.randint(1, words, (length,), generator=draw)
        labels = tokens.clone()
        labels[: length // 2] = -100
        rows.append({"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels})
    return Made(rows)


def case(name: str) -> tuple[Any, Made, int, str]:
    """Return a model, its data, its batch size and what they are."""
    if name == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=10
        )
        return transformers.ResNetForImageClassification(config), images(128), 8, "ResNet-18, 128 px"
    if name == "vit":
        config = transformers.ViTConfig(
            hidden_size=192, num_attention_heads=3, intermediate_size=768, image_size=128, num_labels=10
        )
        return transformers.ViTForImageClassification(config), images(128), 8, "ViT-Ti/16, 128 px"
    if name == "llama":
        config = transformers.LlamaConfig(
            vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8
        )
        return (
            transformers.LlamaForCausalLM(config),
            texts(128, 8192),
            4,
            "Llama, 8 layers of 512, 8,192 words, 128 tokens",
        )
    config = transformers.SegformerConfig(num_labels=10)
    model = transformers.SegformerForSemanticSegmentation(config)
    return model, images(128, masks=True), 8, "SegFormer-B0, 128 px"


def steps(trainer: Any) -> Iterator[float]:
    """Yield the CPU seconds of each step, without end."""
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    while True:
        batches = iter(trainer.get_train_dataloader())
        for _ in range(SAMPLES // trainer.args.train_batch_size):
            start = time.process_time()
            [batch], items = trainer.get_batch_samples(batches, 1, trainer.args.device)
            trainer.training_step(trainer.model, batch, items)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            yield time.process_time() - start


def measure(name: str, pairs: int) -> dict[str, Any]:
    """Return the ratio of the medians of CPU time of our step and the stock step."""
    model, data, batch, what = case(name)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, per_device_train_batch_size=batch, report_to="none", use_cpu=True, dataloader_pin_memory=False,
            num_train_epochs=100,
        )  # fmt: skip
        stock = Trainer(copy.deepcopy(model), args, train_dataset=data)
        ours = AgentTrainer(model, args, train_dataset=data, agent={"ratio": 0.5})
        ours.run = Run(ours, None)
        ours.run.start(ours.model)
        ours.run.begin_pass()
        spent: dict[str, list[float]] = {"stock": [], "ours": []}
        walks = {"stock": steps(stock), "ours": steps(ours)}
        for i in itertools.islice(itertools.count(), pairs + 3):
            for each in ("stock", "ours") if i % 2 else ("ours", "stock"):
                seconds = next(walks[each])
                if i >= 3:
                    spent[each].append(seconds)
    medians = {each: statistics.median(values) for each, values in spent.items()}
    paired = [ours / stock for ours, stock in zip(spent["ours"], spent["stock"], strict=True)]
    return {
        "model": f"{what}, batches of {batch}", "pairs": pairs, "stock_s": round(medians["stock"], 4),
        "ours_s": round(medians["ours"], 4), "ratio_of_medians": round(medians["ours"] / medians["stock"], 4),
        "quartiles_of_ratios": [round(q, 4) for q in statistics.quantiles(paired, n=4)],
    }  # fmt: skip


def main() -> None:
    """Measure the models that are named, and print a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["resnet", "vit", "segformer", "llama"])
    parser.add_argument("--pairs", type=int, default=30)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    for name in options.models:
        print(json.dumps(measure(name, options.pairs)), flush=True)


if __name__ == "__main__":
    main()
