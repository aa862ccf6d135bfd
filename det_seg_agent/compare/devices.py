"""The devices of a comparison: `--devices cpu:2` or `0,1:2`, a slot for each cell at a time. `compare.pool` uses it."""

import os
import re
from dataclasses import dataclass

from det_seg_agent.errors import ConfigError


@dataclass(frozen=True)
class Slot:
    """Room for one cell at a time.

    Attributes:
        device: "cpu", the index of an accelerator, or None for the device that the YAML says.
    """

    device: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that show a cell its device alone; an index counts among the visible devices."""
        if self.device is None:
            return {}
        if self.device == "cpu":
            return {"CUDA_VISIBLE_DEVICES": ""}
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        if given is None:
            return {"CUDA_VISIBLE_DEVICES": self.device}
        visible = [name.strip() for name in given.split(",") if name.strip()]
        if int(self.device) >= len(visible):
            raise ConfigError(
                f"--devices: {self.device} is not among the {len(visible)} devices of CUDA_VISIBLE_DEVICES={given!r}; "
                "indices count those, from 0."
            )
        return {"CUDA_VISIBLE_DEVICES": visible[int(self.device)]}

    def words(self) -> list[str]:
        """Return the arguments of the child process; the one device that it sees has index 0."""
        if self.device is None:
            return []
        return ["--device", "cpu" if self.device == "cpu" else "0"]


def slots_of(devices: str | None, jobs: int | None) -> list[Slot]:
    """Return the slots of `--devices`, or `--jobs` slots on the device that the YAML says.

    Args:
        devices: names by commas, "cpu" or indices, each with :N for N slots; or None.
        jobs: number of slots without `devices`; None means 1.

    Raises:
        ConfigError: if they are invalid or both are given.
    """
    if devices is None:
        if jobs is not None and jobs < 1:
            raise ConfigError(f"--jobs {jobs}: at least 1.")
        return [Slot()] * (jobs or 1)
    if jobs is not None:
        raise ConfigError(f"--jobs {jobs} and --devices {devices}: give the slots of each device, as in 0:2.")
    slots: list[Slot] = []
    for word in devices.split(","):
        found = re.fullmatch(r"(cpu|\d+)(?::([1-9]\d*))?", word.strip())
        if found is None:
            raise ConfigError(f"--devices {devices}: {word!r} is not cpu or an index, with :N for N cells at a time.")
        slots += [Slot(found[1])] * int(found[2] or 1)
    for slot in slots:
        slot.environment()
    return slots
