"""Runs of the real `Trainer`: tiny models from configuration, on data made here. Nothing is downloaded."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from det_seg_agent.hf import AgentTrainer

transformers.logging.set_verbosity_error()
COUNT, EPOCHS = 40, 4  # samples and epochs of a run
WORDS = 64


class Images(Dataset[Any]):
    """Images of 32 px whose class is their colour; some draw noise, as augmentation does."""

    def __init__(self, count: int = COUNT, classes: int = 3, noise: bool = False, seed: int = 0):
        draw = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, classes, (count,), generator=draw)
        self.images = torch.randn(count, 3, 32, 32, generator=draw)
        self.images[torch.arange(count), self.labels % 3] += 1
        self.noise = noise

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[index]
        if self.noise:
            image = image + 0.1 * torch.randn(image.shape) + float(np.random.rand())
        return {"pixel_values": image, "labels": int(self.labels[index])}


class Masks(Dataset[Any]):
    """Scenes with a mask each, and some pixels that do not count."""

    def __init__(self, scenes: Path):
        from PIL import Image

        self.files = [str(path) for path in sorted((scenes / "train").iterdir())][:COUNT]
        self.images = [np.array(Image.open(path).convert("RGB").resize((32, 32))) for path in self.files]
        self.masks = [
            np.array(Image.open(scenes / "masks/train" / f"{Path(path).stem}.png").resize((32, 32), 0))
            for path in self.files
        ]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 128 - 1
        mask = torch.from_numpy(self.masks[index].astype(np.int64))
        return {"pixel_values": image, "labels": mask}


class Texts(Dataset[Any]):
    """Instructions of random tokens with their reversal as the answer; prompts do not count."""

    def __init__(self, count: int = COUNT, seed: int = 0):
        draw = torch.Generator().manual_seed(seed)
        self.rows = []
        for _ in range(count):
            prompt = torch.randint(2, WORDS, (int(torch.randint(3, 8, (1,), generator=draw)),), generator=draw)
            self.rows.append((prompt, prompt.flip(0)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        prompt, answer = self.rows[index]
        tokens = torch.cat([prompt, answer, torch.zeros(20 - 2 * len(prompt), dtype=torch.int64)])
        labels = torch.full((20,), -100)
        labels[len(prompt) : 2 * len(prompt)] = answer
        return {"input_ids": tokens, "attention_mask": (tokens > 0).long(), "labels": labels}


def vit(**more: Any) -> Any:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        num_labels=3, hidden_dropout_prob=0.1, **more,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def swin() -> Any:
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, num_labels=3
    )
    return transformers.SwinForImageClassification(config)


def resnet() -> Any:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config)


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def segformer(classes: int = 3) -> Any:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=classes,
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config)


def upernet(classes: int = 3, auxiliary: bool = True) -> Any:
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, pool_scales=[1, 2], use_auxiliary_head=auxiliary,
        auxiliary_channels=8, auxiliary_in_channels=16, num_labels=classes,
    )  # fmt: skip
    return transformers.UperNetForSemanticSegmentation(config)


MODELS: dict[str, Any] = {
    "vit": vit, "swin": swin, "resnet": resnet, "llama": llama, "segformer": segformer, "upernet": upernet
}  # fmt: skip


def data_of(name: str, scenes: Path | None = None) -> Any:
    """Return the training set of a model."""
    if name == "llama":
        return Texts()
    if name in ("segformer", "upernet"):
        assert scenes is not None
        return Masks(scenes)
    return Images()


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    """Return the host's arguments of a run."""
    given: dict[str, Any] = {
        "num_train_epochs": EPOCHS, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 2,
        "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True, "seed": 3,
        "dataloader_pin_memory": False, **more,
    }  # fmt: skip
    return TrainingArguments(str(folder), **given)


def trainer_of(
    model: Any, data: Any, folder: Path, agent: dict[str, Any] | None = None, stock: bool = False, cls: Any = None,
    callbacks: Any = None, trainer_given: dict[str, Any] | None = None, **more: Any,
) -> Any:  # fmt: skip
    """Return a trainer of a model, built with the seed of the run; `stock` for the host's own."""
    transformers.set_seed(3)
    built = model() if callable(model) and not isinstance(model, torch.nn.Module) else model
    given = {"args": arguments(folder, **more), "train_dataset": data, "callbacks": callbacks, **(trainer_given or {})}
    if stock:
        return (cls or Trainer)(built, **given)
    return (cls or AgentTrainer)(built, agent=agent, **given)


class Recorded(Dataset[Any]):
    """A data set that notes which samples are asked for."""

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        self.seen.append(index)
        return self.dataset[index]


def model_of(name: str, data: Any) -> Any:
    """Return a function that builds a model for its data."""
    if not isinstance(data, Masks):
        return MODELS[name]
    classes = int(max(mask[mask < 255].max() for mask in data.masks)) + 1
    return lambda: MODELS[name](classes)


def same(one: Any, two: Any) -> bool:
    """Return whether two models are equal bit for bit."""
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
