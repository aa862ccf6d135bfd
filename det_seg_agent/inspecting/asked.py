"""Settings of `det-seg-agent inspect`."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from det_seg_agent.errors import ConfigError
from det_seg_agent.settings import parse

USAGE = """usage: det-seg-agent inspect data=DATA [ratio=0.6] [images=true] [pace=IMAGES_A_SECOND] [key=value ...]

DATA is an Ultralytics data YAML, the folder of an MS-COCO download or one of its JSONs, or an MMEngine config (.py).
Prints what the training labels say and what selection can do for them, and writes one page, inspect.html.

  ratio=0.6      share of the images in a selection
  images=true    also read the images: near-duplicates and video-like runs; writes duplicates.csv
  pace=50        images a second in training, for hours beside numbers of images
  epochs=100     passes of the run
  imgsz=640      longer side in training, for what counts as tiny
  run=FOLDER     with images=true: fill the column `duplicates` of that run's samples
  out=FOLDER     by default inspect/ in the current folder"""


class Asked(BaseModel):
    """Settings of an inspection."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: str = Field(description="an Ultralytics data YAML, a COCO folder or JSON, or an MMEngine config")
    ratio: float = Field(0.6, gt=0, le=1, description="share of the images in a selection, 0 < ratio <= 1")
    images: bool = Field(False, description="also read the images, true or false")
    pace: float | None = Field(None, gt=0, description="images a second in training, > 0")
    epochs: int = Field(100, ge=1, description="passes of the run, >= 1")
    imgsz: int = Field(640, ge=1, description="longer side of images in training, in pixels")
    run: str | None = Field(None, description="folder of a run over these images, whose samples get the duplicates")
    out: str = Field("inspect", description="folder to write to")


def asked_of(words: Sequence[str]) -> Asked:
    """Return the settings that the user gave as key=value.

    Raises:
        ConfigError: if a word is not key=value, or a setting is unknown or invalid.
    """
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is not key=value, such as data=my.yaml.")
    given = dict(word.split("=", 1) for word in words)
    if not given.get("data"):
        raise ConfigError("data= is missing; give an Ultralytics data YAML, a COCO folder or an MMEngine config.")
    asked = parse(Asked, given)
    if asked.run is not None and not asked.images:
        raise ConfigError(f"run={asked.run} needs images=true, as near-duplicates are found by the images.")
    return asked
