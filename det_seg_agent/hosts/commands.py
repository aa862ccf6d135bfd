"""The commands of both toolboxes: bad input ends in one line and exit status 2."""

import contextlib
import importlib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from det_seg_agent.errors import LIMIT, AgentError, ConfigError, shortened

# What the hosts raise on bad input; also what programming errors raise, so see `input_errors`.
KINDS = (OSError, SyntaxError, TypeError, ValueError, RuntimeError, LookupError, AssertionError, ImportError)

MOST_LINES = 10  # of a message: settings get a line each
PATHS = re.compile(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+(?=[^\s/'\"]+/[^\s/'\"]+)")  # a path but for its last two names


def train_det() -> int:
    """Run `tools/train_det.py`; return the exit status."""
    return guarded(lambda: importlib.import_module("det_seg_agent.det.cli").main())


def train_seg() -> int:
    """Run `tools/train_seg.py`; return the exit status."""
    return guarded(lambda: importlib.import_module("det_seg_agent.seg.cli").main())


def guarded(work: Callable[[], int | None], stopped: str = "stopped") -> int:
    """Return what `work` returns, 0 for None; or 2 and the message on stderr for input that cannot work.

    After Ctrl-C `stopped` goes to stderr, and the status is 130, as the shell has it.
    """
    try:
        return work() or 0
    except AgentError as error:
        lines = str(error).splitlines() or [type(error).__name__]
        if len(lines) > MOST_LINES:
            lines[MOST_LINES - 1 :] = [f"and {len(lines) - MOST_LINES + 1:,} lines more"]
        print("error: " + "\n".join(map(shortened, lines)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130


@contextlib.contextmanager
def input_errors(
    what: str,
    *hosts: str,
    remedy: str = "",
    begun: Callable[[], bool] = lambda: False,
    kinds: tuple[type[Exception], ...] = KINDS,
) -> Iterator[None]:
    """Turn what a host raises on bad input into a `ConfigError` of one line.

    Everything else passes: errors once training has begun, of other kinds, or raised in our own code.

    Args:
        what: the input that is looked at.
        hosts: names of the host's packages.
        remedy: joins the message.
        begun: whether training has begun.
        kinds: of the errors.

    Raises:
        ConfigError: instead of such an error.
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
    """Remove the run's folder that bad input leaves, unless it was there before or training has begun."""
    new = not os.path.exists(folder)  # as below
    try:
        yield
    except AgentError:
        if new and not begun():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def check_folder(key: str, folder: Path) -> None:
    """Refuse, without making anything, a run's folder that cannot be made or written to.

    Raises:
        ConfigError: naming the key, the folder and what is in the way.
    """
    # Not Path.exists: it raises for a name that is too long.
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not there.is_dir():
        raise ConfigError(f"{key}={str(folder)!r}: {there} is a file, and a folder is needed; choose another {key}.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}={str(folder)!r}: {there} cannot be written to; choose another {key}.")


def one_line(error: BaseException, limit: int = LIMIT, given: str = "") -> str:
    """Return an error's message on one line and without colours; with its kind where it says little.

    Of a message with a line for each of many files the first three lines, the last one, and the count of the others
    are left; of long paths the end, and of long lines the start and the end, so that all fit `limit` characters. A
    path that was `given` and stands before the message is its name there.
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
        # Short lines leave room to long ones.
        for done, i in enumerate(sorted(range(1, len(lines)), key=lambda i: len(lines[i])), 1):
            lines[i] = shortened(lines[i], room // (len(lines) - done))
            room -= len(lines[i])
    text = " ".join(lines)
    return text if len(text.split()) > 2 else f"{type(error).__name__}: {text}"


def _raised_by(error: BaseException, hosts: tuple[str, ...]) -> bool:
    """Return whether the innermost frame of a host or of ours is a host's.

    The host's registries raise an error anew with more words; what counts is the first. Where that was caught within
    a library its frames are the library's alone, and the next one counts.
    """
    chain = [error]
    while (cause := chain[-1].__context__) is not None and str(cause) in str(error):
        chain.append(cause)
    ours = Path(__file__).parent
    theirs = [Path(sys.modules[name].__file__ or "").parent for name in hosts if name in sys.modules]
    for raised in reversed(chain):
        for frame in reversed(traceback.extract_tb(raised.__traceback__)):
            parents = Path(frame.filename).parents
            if ours in parents:
                return False
            if any(folder in parents for folder in theirs):
                return True
    return False
