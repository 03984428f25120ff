"""What aiohttp says of bytes that are no request: a line, not a stack trace each, and only some a second.

A stranger can send as many of them as it likes. What breaks in a handler never comes here (daemon/http/guards.py).
"""

import logging
from typing import Final

from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

from config.model import NS
from daemon.logs import RateLimited

LOGGER: Final = logging.getLogger("aiohttp.server")
PER_S: Final = 5
SHOWN_MAX: Final = 200
NO_REQUEST: Final = (HttpProcessingError, RequestPayloadError, ClientPayloadError)


class Noise(logging.Filter):
    """For `LOGGER`. `suppressed`: lines held back."""

    def __init__(self) -> None:
        super().__init__()
        self._limited = RateLimited(PER_S)

    @property
    def suppressed(self) -> int:
        return self._limited.suppressed

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, NO_REQUEST):
            return True
        held = self._limited.allow("malformed", int(record.created * NS))
        said = " ".join(str(error).split())[:SHOWN_MAX]
        record.msg, record.args, record.exc_info = "http.malformed: %s (%s suppressed)", (said, held), None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return held is not None


NOISE: Final = Noise()


def quieten() -> None:
    """From now on, for all listeners. Again is harmless."""
    LOGGER.addFilter(NOISE)
