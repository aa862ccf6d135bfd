"""The `report` mapping of a comparison's YAML: which figure decides, and what is tested. It changes no cell."""

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from det_seg_agent.compare.cells import CONTROLS, FULL, SHORT, Cell
from det_seg_agent.errors import ConfigError, listed

TASKS = ("detection", "segmentation", "classification", "instruction")
UNITS = {
    "detection": "AP", "segmentation": "mIoU", "classification": "accuracy", "instruction": "100/perplexity",
}  # fmt: skip
OWNERS = {"AP": "detection", "AP50": "detection", "mIoU": "segmentation", "accuracy": "classification"}
AGAINST = (SHORT, *CONTROLS)


class Report(BaseModel):
    """What the tables of a task show and test."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    primary: Literal["macro", "rarest", "AP", "mIoU", "AP50", "accuracy"] = Field(
        "macro",
        description="figure that is tested: macro over classes with enough test objects or images, rarest third of "
        "them, or the whole figure",
    )
    min_objects: int = Field(
        20,
        ge=1,
        description="test objects of a class that macro AP counts; with fewer, one object moves AP by over 5 points",
    )
    min_images: int = Field(
        5,
        ge=1,
        description="test images with a class that macro IoU counts; with fewer, one image is over a fifth of them",
    )
    family: list[str] | None = Field(
        None,
        min_length=1,
        description="strategies, or strategies with a ratio, that are tested together; all of them by default",
    )
    against: list[Literal["full, shorter", "random", "even", "quality"]] = Field(
        default=["random"], min_length=1, description="controls that the family is tested against"
    )
    margin: float | None = Field(
        None, gt=0, description="points; differences surely smaller than this are called equivalent"
    )
    reach: float = Field(95, gt=0, le=100, description="percent of full training's last validation, to be reached")
    resamples: int = Field(1000, ge=100, description="bootstrap samples of the test images")

    def tests(self, task: str, cells: Iterable[Cell]) -> list[tuple[str, str]]:
        """Return the tests of the family, each a name of a row and a control, whether their cells are finished or not.

        A rule with its own budget is only tested against the shorter schedule.
        """
        found: dict[tuple[str, str], None] = {}
        for cell in cells:
            wanted = cell.label not in (FULL, *AGAINST)
            if self.family is not None:
                wanted = bool({cell.label, cell.row} & set(self.family))
            if wanted and cell.task == task:
                alike = [c for c in self.against if cell.role != "native" or c == SHORT]
                found |= dict.fromkeys((cell.row, control) for control in alike)
        return list(found)


def check(report: Report, task: str, cells: Sequence[Cell]) -> None:
    """Refuse settings that the cells of a task do not have.

    Raises:
        ConfigError: names the setting.
    """
    if OWNERS.get(report.primary, task) != task:
        raise ConfigError(f"{task}.report.primary={report.primary}: it is a figure of another task; give macro.")
    mine = [cell for cell in cells if cell.task == task and cell.label not in (FULL, *AGAINST)]
    names = list(dict.fromkeys(name for cell in mine for name in (cell.label, cell.row)))
    for name in report.family or []:
        if name not in names:
            raise ConfigError(
                f"{task}.report.family: {name!r} is no strategy here, or not at that ratio. Valid: {listed(names)}."
            )
    for field in ("family", "against"):
        given = getattr(report, field) or []
        if len(set(given)) < len(given):
            raise ConfigError(f"{task}.report.{field}: {given} has one twice; every test counts once.")
