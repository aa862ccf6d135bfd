"""Settings of a detection run, and how they reach the trainer in every process."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import Field

from det_seg_agent.settings import Settings, parse

VARIABLE = "DET_SEG_AGENT_SETTINGS"


class DetSettings(Settings):
    """`Settings` and what only detection has."""

    val_json: str | None = Field(None, description="COCO JSON to judge on; by default the one beside the data")
    exact_resume: bool = Field(True, description="keep full-precision weights for an exact resume, true or false")


@contextmanager
def in_environment(settings: DetSettings) -> Iterator[None]:
    """Hand settings to child processes: the host's launcher rebuilds trainers from its own arguments alone."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = settings.model_dump_json(exclude_unset=True)
    try:
        yield
    finally:  # a later run of this process has its own
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def from_environment() -> DetSettings | None:
    """Return the settings that a parent process left, if any."""
    text = os.environ.get(VARIABLE)
    return parse(DetSettings, json.loads(text), "agent.") if text else None
