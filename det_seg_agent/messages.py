"""The package's logger, `det_seg_agent`. Adapters connect it to their toolbox's logger; the core knows no other."""

import copy
import logging

LOGGER = logging.getLogger("det_seg_agent")


class _Forward(logging.Handler):
    """Hands records to another logger, whose level, filters and handlers (also later ones) decide what becomes of them.

    It hands over copies without arguments, as hosts compare `record.msg` or write a prefix into it.
    """

    def __init__(self, host: logging.Logger):
        super().__init__()
        self.host = host

    def emit(self, record: logging.LogRecord) -> None:
        if self.host.isEnabledFor(record.levelno):
            mine = copy.copy(record)
            mine.msg, mine.args = record.getMessage(), None
            self.host.handle(mine)


def connect(host: logging.Logger) -> None:
    """Send our messages to a toolbox's logger: its level counts, and they reach its terminal and its log files.

    A process has one such logger; a later call replaces it. The root logger no longer gets our messages, as it would
    show them twice. A level that a user has set for the logger `det_seg_agent` stays in force.

    Args:
        host: the toolbox's logger.
    """
    for handler in [handler for handler in LOGGER.handlers if isinstance(handler, _Forward)]:
        LOGGER.removeHandler(handler)
    LOGGER.addHandler(_Forward(host))
    LOGGER.propagate = False
    if LOGGER.level == logging.NOTSET:  # it would have the root's level, WARNING
        LOGGER.setLevel(logging.DEBUG)
