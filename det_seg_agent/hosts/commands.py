"""The command lines: the commands of `det-seg-agent` and of `tools/`; bad input ends with exit status 2."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from det_seg_agent.errors import AgentError, ConfigError, HostError, shortened
from det_seg_agent.hosts.recipes import recipe_names, recipe_text

PACKAGE = "det_seg_agent"
MOST_LINES = 10  # most lines in a message: each wrong setting has one
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
