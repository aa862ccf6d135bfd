"""Errors of bad input: those that a host raises become one line, and a folder of a run is checked before it."""

import contextlib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from det_seg_agent.errors import LIMIT, AgentError, ConfigError, shortened

# Errors that the hosts raise on bad input. Bugs raise them too, so `input_errors` also checks where they come from.
KINDS = (OSError, SyntaxError, TypeError, ValueError, RuntimeError, LookupError, AssertionError, ImportError)

PATHS = re.compile(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+(?=[^\s/'\"]+/[^\s/'\"]+)")  # a path without its last two names


@contextlib.contextmanager
def input_errors(
    what: str,
    *hosts: str,
    remedy: str = "",
    begun: Callable[[], bool] = lambda: False,
    kinds: tuple[type[Exception], ...] = KINDS,
) -> Iterator[None]:
    """Turn an error that a host raises on bad input into a `ConfigError` of one line.

    All other exceptions propagate: other types, errors during training, and errors from our own code.

    Args:
        what: name of the input, for the message.
        hosts: names of the host's packages.
        remedy: appended to the message.
        begun: returns whether training has begun.
        kinds: types of errors to convert.

    Raises:
        ConfigError: in place of such an error.
    """
    try:
        yield
    except AgentError:
        raise
    except kinds as error:
        if begun() or not _raised_by(error, hosts):
            raise
        given = what.partition("=")[2]
        short = what if len(what) <= LIMIT // 4 else shortened(PATHS.sub(".../", what), LIMIT // 3)
        room = max(80, LIMIT - len(short) - len(remedy) - 4)
        text = f"{short}: {one_line(error, room, given)}"
        raise ConfigError(f"{text.rstrip('.')}. {remedy}" if remedy else text) from error


@contextlib.contextmanager
def tidied(folder: Path, begun: Callable[[], bool]) -> Iterator[None]:
    """Remove the run's folder after an `AgentError`, unless it existed before or training has begun."""
    new = not os.path.exists(folder)  # not Path.exists, see `check_folder`
    try:
        yield
    except AgentError:
        if new and not begun():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def check_folder(key: str, folder: Path) -> None:
    """Refuse a run's folder that cannot be created or written to; nothing is created.

    Raises:
        ConfigError: naming the key, the folder and the obstacle.
    """
    # Not Path.exists: it raises for a name that is too long.
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not there.is_dir():
        raise ConfigError(f"{key}={str(folder)!r}: {there} is a file, and a folder is needed; choose another {key}.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}={str(folder)!r}: {there} cannot be written to; choose another {key}.")


def one_line(error: BaseException, limit: int = LIMIT, given: str = "") -> str:
    """Return an error's message on one line, without colour codes; a very short message is prefixed by the type.

    Messages of more than five lines keep the first three, the last, and the number of the others. If the result still
    exceeds `limit` characters, long paths are cut to their end, long lines lose their middle, and the path `given`,
    which already precedes the message, is reduced to its name.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()] or [""]
    if len(lines) > 5:
        lines[3:-1] = [f"(and {len(lines) - 4:,} more)"]
    if sum(map(len, lines)) + len(lines) > limit:
        lines = [PATHS.sub(".../", line.replace(given, Path(given).name) if given else line) for line in lines]
        room = limit - len(lines) + 1
        lines[0] = shortened(lines[0], max(2 * room // 3, room - sum(map(len, lines[1:]))))
        room -= len(lines[0])
        # Shortest first: the room that short lines do not use goes to longer ones.
        for done, i in enumerate(sorted(range(1, len(lines)), key=lambda i: len(lines[i])), 1):
            lines[i] = shortened(lines[i], room // (len(lines) - done))
            room -= len(lines[i])
    text = " ".join(lines)
    return text if len(text.split()) > 2 else f"{type(error).__name__}: {text}"


def _raised_by(error: BaseException, hosts: tuple[str, ...]) -> bool:
    """Return whether the error comes from a host: of the frames in a host or in our code, the innermost is the host's.

    The hosts' registries re-raise errors with more text, so the original error counts. If it was caught inside a
    library, it has frames of that library only, and the next error in the chain counts.
    """
    chain = [error]
    while (cause := chain[-1].__context__) is not None and str(cause) in str(error):
        chain.append(cause)
    ours = Path(__file__).parents[1]
    theirs = [Path(sys.modules[name].__file__ or "").parent for name in hosts if name in sys.modules]
    for raised in reversed(chain):
        for frame in reversed(traceback.extract_tb(raised.__traceback__)):
            parents = Path(frame.filename).parents
            if ours in parents:
                return False
            if any(folder in parents for folder in theirs):
                return True
    return False
