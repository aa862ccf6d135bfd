"""Settings of a detection run, and their transfer to child processes. The trainers and the command line use them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import Field

from det_seg_agent.settings import Settings, parse

VARIABLE = "DET_SEG_AGENT_SETTINGS"


class DetSettings(Settings):
    """`Settings` plus those that only detection has."""

    val_json: str | None = Field(None, description="COCO JSON to judge on; by default the one beside the data")
    exact_resume: bool = Field(True, description="keep full-precision weights for an exact resume, true or false")


@contextmanager
def in_environment(settings: DetSettings) -> Iterator[None]:
    """Pass settings to child processes by an environment variable; the host's launcher passes only its own."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = settings.model_dump_json(exclude_unset=True)
    try:
        yield
    finally:  # a later run in this process has its own settings
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def from_environment() -> DetSettings | None:
    """Return the settings that a parent process passed; None if there are none."""
    text = os.environ.get(VARIABLE)
    return parse(DetSettings, json.loads(text), "agent.") if text else None
