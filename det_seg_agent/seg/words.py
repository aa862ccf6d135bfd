"""Words of the commands on MMEngine configs, key=value each. `seg.evaluation` and `seg.scoring` read them."""

import argparse
from typing import Any

from det_seg_agent.errors import ConfigError


def read_words(words: list[str], own: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the values of a command's own keys, and the options of the config, read as `--cfg-options` are.

    Args:
        words: key=value each.
        own: keys that are not the config's; the last value of each counts.

    Raises:
        ConfigError: for a word that is not key=value.
    """
    from mmengine.config import DictAction

    for word in words:
        if "=" not in word or word.startswith(("-", "=")):
            raise ConfigError(f"{word!r} is not key=value. Write it as in --cfg-options of train-seg.")
    pairs = [(key, value) for key, _, value in (word.partition("=") for word in words) if key in own]
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="*", action=DictAction, default={})
    rest = [word for word in words if word.partition("=")[0] not in own]
    options: dict[str, Any] = parser.parse_args(["--options", *rest]).options
    return dict(pairs), options
