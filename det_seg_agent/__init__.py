"""det_seg_agent: detectors and segmenters learn while they train which images are worth training on next."""

from det_seg_agent.errors import AgentError, ConfigError, StateError
from det_seg_agent.sampler import SelectionSampler
from det_seg_agent.selector import PassReport, Selector
from det_seg_agent.settings import Settings
from det_seg_agent.strategies import Request, Selection, Strategy, register

__version__ = "0.2.0"

__all__ = [
    "AgentError",
    "ConfigError",
    "PassReport",
    "Request",
    "Selection",
    "SelectionSampler",
    "Selector",
    "Settings",
    "StateError",
    "Strategy",
    "register",
]
