"""det_seg_agent: select the images to train on next from each image's loss, entropy and features during training.

The public names below suffice for plain PyTorch; the adapters for Ultralytics and MMSegmentation are `det` and `seg`.
"""

from det_seg_agent.errors import AgentError, ConfigError, StateError
from det_seg_agent.pass_report import PassReport
from det_seg_agent.sampler import SelectionSampler
from det_seg_agent.selector import Selector
from det_seg_agent.settings import Settings
from det_seg_agent.strategies import Request, Selection, Strategy, register
from det_seg_agent.version import VERSION

__version__ = VERSION

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
