"""How the daemon talks: all loggers in one stream, JSON or console, secrets kept out, floods held back."""

import logging
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from config.model import Logging
from config.secret import Secret

_USERINFO = re.compile(r"(\w+://)[^/@\s]+@")


def configure(settings: Logging, stream: TextIO | None = None) -> None:
    """Route every logger of the process, ours and the libraries', to `stream` (default stderr: stdout is for output).

    May be called again: a reload changes level and format at once, for loggers that exist too.
    """
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(settings, out))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(settings.level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a cached one would keep the format of before a reload
    )


def set_level(level: str) -> None:
    """The least severity that is written; takes effect at once. Libraries' chatter stays one step above ours."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in ("aiohttp.access", "botocore", "mqtt", "nats", "watchfiles"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def keep_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: a `Secret` anywhere in a line becomes `<secret>`, and so does what stands before @ in a URL."""
    return {key: _masked(value) for key, value in event.items()}


class RateLimited:
    """Lets at most `per_s` lines a second pass for each key, and says how many it held back.

    The time is handed in. Bounded: at most `keys_max` keys are remembered; the one unused for longest is forgotten
    (its count with it, which `forgotten` adds up).
    """

    def __init__(self, per_s: int = 5, keys_max: int = 256) -> None:
        self.suppressed = 0  # lines held back, ever
        self.forgotten = 0  # of these, those that no line will ever mention
        self._per_s = per_s
        self._keys_max = keys_max
        self._windows: OrderedDict[str, list[int]] = OrderedDict()  # key -> [second, passed in it, held back]

    def allow(self, key: str, now_ns: int) -> int | None:
        """None: hold this line back. A number: write it, saying that so many like it were held back since the last."""
        window = self._window(key, now_ns // 1_000_000_000)
        if window[1] >= self._per_s:
            window[2] += 1
            self.suppressed += 1
            return None
        window[1] += 1
        held, window[2] = window[2], 0
        return held

    def warning(self, log: FilteringBoundLogger, event: str, now_ns: int, **fields: Any) -> None:
        """A warning under its own limit; `suppressed` is added where lines were held back."""
        held = self.allow(event, now_ns)
        if held is not None:
            log.warning(event, **fields, **({"suppressed": held} if held else {}))

    def drain(self) -> Mapping[str, int]:
        """What was held back and not yet told, by key: for the last word after a flood has ended."""
        told = {key: window[2] for key, window in self._windows.items() if window[2]}
        for key in told:
            self._windows[key][2] = 0
        return told

    def _window(self, key: str, second: int) -> list[int]:
        window = self._windows.setdefault(key, [second, 0, 0])
        self._windows.move_to_end(key)
        if window[0] != second:
            window[0], window[1] = second, 0
        if len(self._windows) > self._keys_max:
            self.forgotten += self._windows.popitem(last=False)[1][2]
        return window


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        keep_secrets,
    ]


def _formatter(settings: Logging, out: TextIO) -> logging.Formatter:
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    last = _console(out.isatty()) if console else _json()
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(allow=()), *_shared()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            keep_secrets,  # once more: a traceback has only now become text, and may quote a URL
            *last,
        ],
    )


def _console(colors: bool) -> list[Processor]:
    # structlog's own choice of traceback shows local variables, where a revealed secret may lie.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="ts", exception_formatter=plain)]


def _json() -> list[Processor]:
    return [
        structlog.processors.EventRenamer("msg"),
        _in_order,
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
    ]


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # Whoever reads the lines as they are looks for these first.
    first = {key: event[key] for key in ("ts", "level", "msg", "logger") if key in event}
    return {**first, **event}


def _masked(value: Any) -> Any:
    match value:
        case Secret():
            return "<secret>"
        case str():
            return _USERINFO.sub(r"\1<secret>@", value) if "://" in value else value
        case Mapping():
            return {key: _masked(inner) for key, inner in value.items()}
        case tuple():  # stays one: exc_info is a tuple too
            return tuple(_masked(inner) for inner in value)
        case list() | set() | frozenset():
            return [_masked(inner) for inner in value]
    return value
