"""Our logger, connected to that of Ultralytics by importing this module. The modules of `det` log through it."""

from ultralytics.utils import LOGGER as HOST

from det_seg_agent.messages import LOGGER, connect

__all__ = ["HOST", "LOGGER", "connect"]

connect(HOST)
