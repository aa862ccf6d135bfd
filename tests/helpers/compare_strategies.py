"""Strategies of comparisons. The processes of cells import them, so that no toolbox is imported here."""

import os
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from det_seg_agent import Strategy
from det_seg_agent.strategies.baselines import TopLoss

WAITS = "COMPARE_WAITS"  # environment variable: a file that says that the strategy waits


class Patient(TopLoss):
    """Is top loss; with `WAITS` in the environment it waits half way through the run until its process is stopped."""

    def select(self, request: Any) -> Any:
        """Return the samples with the largest loss."""
        if WAITS in os.environ and request.pass_index == request.total_passes // 2:
            Path(os.environ[WAITS]).touch()
            time.sleep(600)
        return super().select(request)


class Broken(Strategy):
    """Fails when it is asked."""

    def select(self, request: Any) -> Any:
        """Raise."""
        raise RuntimeError("on purpose")


class NativeOptions(BaseModel):
    """Whether the budget follows from the rule."""

    native: bool = False


class Rule(Strategy):
    """Has a rule that may set its own budget."""

    Options = NativeOptions

    def select(self, request: Any) -> Any:
        """Raise."""
        raise NotImplementedError
