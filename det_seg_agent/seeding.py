"""Random generators that depend only on (seed, pass, purpose), and the state of the process's global ones."""

import hashlib
import random
from typing import Any

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends only on `parts`, on every machine and in every process.

    It is a cryptographic hash because torch's CPU generator and NumPy use only the low 32 bits, which must differ too.
    """
    text = "/".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed(*parts)`; torch's global generator is not affected."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def random_state() -> dict[str, Any]:
    """Return the state of this process's Python, NumPy and torch generators, as tensors and primitives."""
    version, words, gauss = random.getstate()
    _, keys, *rest = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the state that `random_state` returned; its tensors may be on any device."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
