"""Entry points of the command lines, and what they share: bad input ends with a short message and exit status 2."""

import contextlib
import importlib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from det_seg_agent.errors import LIMIT, AgentError, ConfigError, HostError, shortened
from det_seg_agent.hosts.recipes import recipe_names, recipe_text

# Errors that the hosts raise on bad input. Bugs raise them too, so `input_errors` also checks where they come from.
KINDS = (OSError, SyntaxError, TypeError, ValueError, RuntimeError, LookupError, AssertionError, ImportError)

PACKAGE = "det_seg_agent"
MOST_LINES = 10  # most lines in a message: each wrong setting has one
PATHS = re.compile(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+(?=[^\s/'\"]+/[^\s/'\"]+)")  # a path without its last two names


USAGE = """usage: det-seg-agent COMMAND ...

  train-det   train an Ultralytics model: model=yolov8n.pt data=my.yaml agent.ratio=0.6
  train-seg   train an MMSegmentation config: CONFIG --cfg-options agent.ratio=0.6
  train-hf    train a model of transformers by a recipe: RECIPE.yaml data=PATH agent.ratio=0.6
  evaluate    judge a finished run again: RUN [key=value ...]
  compare     train strategies and their controls, and write one page: [YAML] [--data PATH] [--jobs N]
  demo        the comparison on generated scenes, two runs at a time
  score       show a data set to trained weights once, without training: weights=best.pt data=my.yaml or CONFIG.py
  inspect     tell what a data set is like and what selection can do for it: data=my.yaml [ratio=0.5] [images=true]
  export      write the list of images to keep, by what a run knows of them: RUN --where "suspect<0.7"
  recipe      list the recipes of the package, or print one to start from: [NAME]

COMMAND --help says more."""


def main(arguments: list[str] | None = None) -> int:
    """Run `det-seg-agent`; return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(USAGE)
        return 0

    def work() -> int:
        if name not in COMMANDS:
            raise ConfigError(f"det-seg-agent {name}: there is no such command. Valid: {', '.join(COMMANDS)}.")
        return COMMANDS[name](rest)

    return guarded(work)


def main_of(module: str) -> Callable[[list[str] | None], int]:
    """Return the command line of a module, which is imported when it runs: each needs its own toolbox."""

    def run(words: list[str] | None) -> int:
        try:
            found = importlib.import_module(f"det_seg_agent.{module}")
        except ModuleNotFoundError as error:
            if (error.name or PACKAGE).startswith(PACKAGE):
                raise
            raise HostError(f"{error.name} not installed: pip install 'det_seg_agent[det]', [seg] or [hf]") from error
        status: int = found.main(words)
        return status

    return run


def demo(words: list[str]) -> int:
    """Compare on the embedded scenes."""
    jobs = [] if {"--jobs", "--devices"} & set(words) else ["--jobs", "2"]
    return main_of("compare.cli")([*jobs, *words])


def recipe(words: list[str]) -> int:
    """List the recipes, or print one."""
    if {"-h", "--help"} & set(words) or len(words) > 1:
        print("usage: det-seg-agent recipe [NAME] > my_config.py")
        return 0 if {"-h", "--help"} & set(words) else 2
    print(recipe_text(words[0]).rstrip() if words else "\n".join(recipe_names()))
    return 0


def evaluate(words: list[str]) -> int:
    """Judge a finished run of either toolbox."""
    if not words or {"-h", "--help"} & set(words):
        print(
            "usage: det-seg-agent evaluate RUN [weights=FILE] [key=value ...]\n\nRUN is the folder of a run. Keys are "
            "those of `yolo val` (data=, imgsz=, batch=, device=, agent.val_json=)\nor, as in --cfg-options, of the "
            "MMEngine config. Prints COCO's metrics or IoUMetric's, and writes evaluation.json\nbeside the run's files."
        )
        return 0 if words else 2
    folder = Path(words[0])
    if (folder / "weights").is_dir():
        return main_of("det.evaluation")(words)
    if folder.is_dir() and any(folder.glob("*.pth")):
        return main_of("seg.evaluation")(words)
    raise ConfigError(f"evaluate {folder}: it is no folder of a run, which has weights/ or *.pth files.")


def inspect(words: list[str]) -> int:
    """Inspect a data set of either toolbox."""
    data = next((word.partition("=")[2] for word in words if word.startswith("data=")), "")
    return main_of("seg.inspection" if data.endswith(".py") else "det.inspection")(words)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train-det": main_of("det.cli"),
    "train-seg": main_of("seg.cli"),
    "train-hf": main_of("hf.cli"),
    "evaluate": evaluate,
    "compare": main_of("compare.cli"),
    "demo": demo,
    "export": main_of("hosts.export"),
    "inspect": inspect,
    "score": main_of("hosts.score"),
    "recipe": recipe,
}


def train_det() -> int:
    """Run `tools/train_det.py`; return the exit status."""
    return guarded(lambda: main_of("det.cli")(None))


def train_seg() -> int:
    """Run `tools/train_seg.py`; return the exit status."""
    return guarded(lambda: main_of("seg.cli")(None))


def train_hf() -> int:
    """Run `tools/train_hf.py`; return the exit status."""
    return guarded(lambda: main_of("hf.cli")(None))


def guarded(work: Callable[[], int | None], stopped: str = "stopped") -> int:
    """Run `work` and return its exit status (None counts as 0).

    An `AgentError` prints its message to stderr and returns 2. Ctrl-C prints `stopped` to stderr and returns 130, the
    shell's convention.
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
