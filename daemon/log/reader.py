"""Reading the log: in order, once, without a silent hole, as fast as it comes (design.md §2, §4.2).

An ordered push consumer over a connection of its own (daemon/log/session.py). What has arrived is one batch: at rest
one entry at once, under load up to `most`. What our own writer has sent does not come over that connection, but from
the writer (daemon/log/echo.py), as long as nobody else writes.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from actors.controls import part
from actors.messages import Frames
from daemon.log.echo import Echo
from daemon.log.session import Gap, Session, subscribe
from daemon.log.window import NotStored, Refused
from daemon.log.wire import Access, OnState, RequestError, Wire, WireError, connect, unheard
from daemon.log.writer import Entry, LogWriter
from daemon.pace import Pace

__all__ = [
    "Access",
    "Entry",
    "Gap",
    "LogInfo",
    "LogReader",
    "LogWentBack",
    "LogWriter",
    "NotStored",
    "Refused",
    "RequestError",
    "WireError",
]

RETRY_S: Final = (0.01, 0.1)
IDENTITY: Final = "detectd_identity"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogInfo:
    """What the server says about the stream. `first` may be `last + 1`: an empty log."""

    first: int
    last: int
    messages: int
    bytes: int
    identity: str  # detectd's own, from the stream's metadata; "" where there is none


class LogWentBack(Exception):
    """The log ends before a position that was already read from it: it lost its tail, or it is another log."""

    def __init__(self, position: int, last: int) -> None:
        super().__init__(f"the log ends at {last}, but {position} was read from it before")
        self.position, self.last = position, last


class LogReader:
    """The log of one stream. Counters are plain attributes; `on_state` hears of the connection of `batches`.

    One reader may serve several iterations at a time; each has a connection of its own. With an echo, only one of
    `batches`: where the echo has what is next, it comes from there.
    """

    def __init__(
        self, access: Access, stream: str = "LOG", *, most: int = 1024, on_state: OnState | None = None,
        echo: Echo | None = None,
    ) -> None:  # fmt: skip
        self.messages = 0
        self.bytes = 0
        self.gaps = 0
        self.connections = 0
        self._access, self._stream, self._most = access, stream, most
        self._on_state = on_state or unheard
        self._echo = echo
        self._state = ""
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """The server is back: try again now instead of in up to 0.1 s."""
        self._poked.set()

    async def batches(self, after: int) -> AsyncGenerator[Frames | Gap, None]:
        """Every entry after position `after`, for ever; `aclose()` it when done. Raises LogWentBack."""
        first, pace, echo = after + 1, Pace(), self._echo
        while True:
            source = echo if echo is not None and echo.has(first) else await self._session(first)
            try:
                while (item := await source.take(first, self._most)) is not None:
                    self._count(item)
                    yield item
                    first = _end_of(item) + 1
                    await source.rest(pace.rest_s(len(item) if isinstance(item, Frames) else 0))
                    if echo is not None and source is not echo and echo.has(first):
                        break
            finally:
                source.close()

    async def read_range(self, first: int, last: int) -> AsyncGenerator[Frames | Gap, None]:
        """Entries [first, last] as far as the log has them now. Waits for a server that is away. Raises LogWentBack."""
        last = min(last, await self.last_seq())
        while first <= last:
            session = await self._session(first, finite=True)
            try:
                while first <= last and (item := await session.take(first, self._most)) is not None:
                    item = _until(item, last)
                    first = _end_of(item) + 1
                    self._count(item)
                    yield item
            finally:
                session.close()

    async def info(self) -> LogInfo:
        """What the server says about the stream now. Raises WireError, RequestError (404: no stream), TimeoutError."""
        session = Session(unheard)
        wire = session.wire = await connect(self._access, session, "detectd log info")
        try:
            return await _info(wire, self._stream)
        finally:
            wire.close()

    async def last_seq(self) -> int:
        """The position of the newest entry; 0 for a log that never had one. Waits for a server that is away."""
        return (await self._retry(self.info, unheard)).last

    async def _session(self, first: int, *, finite: bool = False) -> Session:
        return await self._retry(lambda: self._open(first, finite=finite), self._unheard_if(finite))

    async def _retry(self, attempt: Callable[[], Awaitable[T]], tell: OnState) -> T:
        """Until it works. The server may be away, starting, or still without its stream."""
        delay_s = RETRY_S[0]
        while True:
            try:
                return await attempt()
            except (OSError, RequestError, TimeoutError) as error:
                tell("disconnected", str(error))
            await self._poked_within(delay_s)
            delay_s = min(2 * delay_s, RETRY_S[1])

    async def _poked_within(self, delay_s: float) -> None:
        self._poked.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._poked.wait()

    async def _open(self, first: int, *, finite: bool) -> Session:
        """A connection and a new consumer whose first entry is `first`, or the oldest that there is."""
        session = Session(self._unheard_if(finite), finite=finite)
        wire = session.wire = await connect(self._access, session, "detectd log reader")
        try:
            info = await _info(wire, self._stream)
            _check(first, info)
            if info.first > first:
                session.skipped(first, info.first - 1)
            session.drop = await subscribe(wire, self._stream, max(first, info.first))
        except BaseException as error:
            wire.abort(str(error))
            raise
        self.connections += 1
        session.begin()
        return session

    def _unheard_if(self, finite: bool) -> OnState:
        return unheard if finite else self._tell

    def _tell(self, state: str, why: str) -> None:
        if state != self._state:
            self._state = state
            self._on_state(state, why)

    def _count(self, item: Frames | Gap) -> None:
        if isinstance(item, Gap):
            self.gaps += 1
        else:
            self.messages += len(item)
            self.bytes += int(item.payload_len.sum())


async def _info(wire: Wire, stream: str) -> LogInfo:
    answer = await wire.request(f"$JS.API.STREAM.INFO.{stream}")
    state = answer["state"]
    metadata = answer["config"].get("metadata") or {}
    # An empty stream that never had an entry says first 0, one that was emptied last + 1.
    first = state["first_seq"] or state["last_seq"] + 1
    return LogInfo(first, state["last_seq"], state["messages"], state["bytes"], metadata.get(IDENTITY, ""))


def _check(first: int, info: LogInfo) -> None:
    if info.last < first - 1:
        raise LogWentBack(first - 1, info.last)


def _end_of(item: Frames | Gap) -> int:
    return item.last if isinstance(item, Gap) else int(item.seq[-1])


def _until(item: Frames | Gap, last: int) -> Frames | Gap:
    """Cut off what is after position `last`; the item begins at or before it."""
    if isinstance(item, Gap):
        return Gap(item.first, min(item.last, last))
    keep = int(np.searchsorted(item.seq, last, side="right"))
    return item if keep == len(item) else part(item, 0, keep)
