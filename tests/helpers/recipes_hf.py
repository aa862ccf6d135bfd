"""Data and a tokenizer for the recipes of `train-hf`, made here."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_tokenizer(folder: Path) -> str:
    """Write a tokenizer of words, and return its folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<pad>", "</s>", *"abcdefghijklmnopqrstuvwxyz", *".:#", "Response", "Instruction", "reverse"]
    raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", pad_token="<pad>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_rows(path: Path, count: int, seed: int) -> str:
    """Write instructions to reverse letters, a row a line."""
    draw, rows = np.random.default_rng(seed), []
    for _ in range(count):
        letters = draw.choice(list("abcdefghij"), int(draw.integers(2, 5))).tolist()
        row = {"instruction": f"reverse {' '.join(letters)}", "input": "", "output": " ".join(reversed(letters))}
        rows.append(json.dumps(row))
    path.write_text("\n".join(rows))
    return str(path)


def write_images(folder: Path, train: int = 30, val: int = 9) -> str:
    """Write an image folder of three classes, each a colour."""
    draw = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            name = ("red", "green", "blue")[number % 3]
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            image = draw.integers(0, 120, (40, 40, 3), dtype=np.uint8)
            image[..., number % 3] += 120
            Image.fromarray(image).save(folder / split / name / f"{number:03}.png")
    return str(folder)
