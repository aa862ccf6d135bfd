"""Instructions and answers in a file of JSON lines, as Alpaca's. `hf.recipe` builds it."""

import json
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from det_seg_agent.errors import ConfigError
from det_seg_agent.hf.signals import IGNORED

# Of Alpaca (https://github.com/tatsu-lab/stanford_alpaca).
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n"
    "### Response:\n"
)
WITHOUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


class Instructions(Dataset[dict[str, Any]]):
    """Tokens of prompt and answer, where only the answer's tokens are labelled.

    Args:
        path: a row a line, {"instruction": ..., "input": ..., "output": ...}; `input` may lack.
        tokenizer: the host's tokenizer.
        longest: most tokens of a row; the rest of the answer is cut off.

    Raises:
        ConfigError: if a line cannot be read, or no answer is left of it.
    """

    def __init__(self, path: Path, tokenizer: Any, longest: int):
        if not path.is_file():
            raise ConfigError(f"data={str(path)!r}: there is no such file; give one of JSON lines.")
        self.rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                self.rows.append(self._tokens(f"{path}:{number}", line, tokenizer, longest))
        if not self.rows:
            raise ConfigError(f"data={str(path)!r}: it has no lines.")

    @staticmethod
    def _tokens(where: str, line: str, tokenizer: Any, longest: int) -> dict[str, list[int]]:
        try:
            row = json.loads(line)
            prompt = (WITH_INPUT if row.get("input") else WITHOUT).format(**row)
            answer = str(row["output"])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"{where}: it is no row such as "
                '{"instruction": "...", "input": "...", "output": "..."} '
                f"({type(error).__name__}: {error})."
            ) from error
        first = tokenizer(prompt)["input_ids"]
        eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        rest = [*tokenizer(answer, add_special_tokens=False)["input_ids"], *eos]
        if first and eos and first[-1] == eos[0]:
            first = first[:-1]  # some tokenizers end every text
        tokens = [*first, *rest][:longest]
        labels = [*[IGNORED] * len(first), *rest][:longest]
        if len(tokens) <= len(first):
            raise ConfigError(
                f"{where}: the prompt alone has {len(first)} tokens, and max_length={longest} leaves no answer. Raise "
                "max_length, or take the line out."
            )
        return {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])
