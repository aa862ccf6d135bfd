"""Files that are replaced at once or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` to write to; it takes `path`'s place once it is whole, and goes if it cannot be."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # left by a kill; it may be a link to a file that is in use
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace `path` by JSON at once or not at all."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def printable(text: str) -> str:
    """Return `text` with escapes for what cannot be printed or encoded, as the bytes of a file name may be."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
