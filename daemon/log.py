"""Reading the log: in order, once, without a silent hole, as fast as it comes (design.md §2, §4.2).

An ordered push consumer over a connection of its own. The server sends as much as its flow control allows (at most
32 MiB); we answer a flow control request when all that came before it has been taken, so a slow taker makes the
server wait. Whatever has arrived is one batch: at rest one entry at once, under load up to `most`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from math import exp
from secrets import token_hex
from typing import Any, Final, TypeVar, assert_never

import numpy as np

from actors.controls import part
from actors.messages import I8, Frames
from config.model import NS
from daemon.frames import LOG_SID, P_PAYLOAD, P_PAYLOAD_LEN, Sheet
from daemon.log_writer import Entry, LogWriter, NotStored, Refused
from daemon.wire import Access, Message, RequestError, Wire, WireError, connect, publish

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

HEARTBEAT_S: Final = 1.0  # the server's sign of life on an idle log
SILENT_MAX: Final = 3  # heartbeats missed before the connection is given up
RETRY_S: Final = (0.01, 0.1)
HELD_MAX: Final = 48 * 1024 * 1024  # bytes; above the server's own window, so reached only if that fails
BUSY_PER_S: Final = 4000.0  # entries; above it small batches are let grow for REST_S: at 20 000/s that spares a quarter
SMALL: Final = 256
REST_S: Final = 0.005
MEMORY_S: Final = 0.1  # how far back the rate looks
UNUSED_S: Final = 10.0  # after which the server forgets a consumer that nobody listens to

IN_CONTROL: Final = 100  # the status of flow control and heartbeats
IDENTITY: Final = "detectd_identity"
CRLF: Final = "\r\n"

T = TypeVar("T")

OnState = Callable[[str, str], None]
"""("connected", "") or ("disconnected", why); told when it changes."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The log no longer has positions [first, last]: they were dropped before they could be read."""

    first: int
    last: int


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

    One reader may serve several iterations at a time; each has a connection of its own.
    """

    def __init__(
        self, access: Access, stream: str = "LOG", *, most: int = 1024, on_state: OnState | None = None
    ) -> None:
        self.messages = 0
        self.bytes = 0
        self.gaps = 0
        self.connections = 0
        self._access, self._stream, self._most = access, stream, most
        self._on_state = on_state or _unheard
        self._state = ""
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """The server is back: try again now instead of in up to 0.1 s."""
        self._poked.set()

    async def batches(self, after: int) -> AsyncGenerator[Frames | Gap, None]:
        """Every entry after position `after`, for ever; `aclose()` it when done. Raises LogWentBack."""
        first = after + 1
        while True:
            session = await self._session(first)
            try:
                while (item := await session.take(self._most)) is not None:
                    self._count(item)
                    yield item
                    first = _end_of(item) + 1
                    await session.rest(item)
            finally:
                session.close()

    async def read_range(self, first: int, last: int) -> AsyncGenerator[Frames | Gap, None]:
        """Entries [first, last] as far as the log has them now. Waits for a server that is away. Raises LogWentBack."""
        last = min(last, (await self._retry(self.info, _unheard)).last)
        while first <= last:
            session = await self._session(first, finite=True)
            try:
                while first <= last and (item := await session.take(self._most)) is not None:
                    item = _until(item, last)
                    first = _end_of(item) + 1
                    self._count(item)
                    yield item
            finally:
                session.close()

    async def info(self) -> LogInfo:
        """What the server says about the stream now. Raises WireError, RequestError (404: no stream), TimeoutError."""
        session = _Session(_unheard)
        wire = session.wire = await connect(self._access, session, "detectd log info")
        try:
            return await _info(wire, self._stream)
        finally:
            wire.close()

    async def last_seq(self) -> int:
        """The position of the newest entry; 0 for a log that never had one. Raises as `info`."""
        return (await self.info()).last

    async def _session(self, first: int, *, finite: bool = False) -> "_Session":
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

    async def _open(self, first: int, *, finite: bool) -> "_Session":
        """A connection and a new consumer whose first entry is `first`, or the oldest that there is."""
        session = _Session(self._unheard_if(finite), finite=finite)
        wire = session.wire = await connect(self._access, session, "detectd log reader")
        try:
            info = await _info(wire, self._stream)
            _check(first, info)
            if info.first > first:
                session.skipped(first, info.first - 1)
            session.drop = await _subscribe(wire, self._stream, max(first, info.first))
        except BaseException as error:
            wire.abort(str(error))
            raise
        self.connections += 1
        session.begin()
        return session

    def _unheard_if(self, finite: bool) -> OnState:
        return _unheard if finite else self._tell

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


@dataclass(slots=True)
class _Run:
    """Entries [first, last) of a sheet that nobody has taken yet."""

    sheet: Sheet
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """The server asks whether all before this was taken: answer on this subject."""

    subject: str


@dataclass(frozen=True, slots=True)
class _Quiet:
    """The server has nothing more to send up to position `last`."""

    last: int


@dataclass(frozen=True, slots=True)
class _Over:
    """The connection is gone; what came before it is good."""


class _Session:
    """One connection with one consumer: what came over it and was not taken yet, in order."""

    def __init__(self, tell: OnState, *, finite: bool = False) -> None:
        self.wire: Wire | None = None
        self.drop = b""  # protocol bytes that end the consumer
        self._tell, self._finite = tell, finite
        self._queue: deque[_Run | Gap | _Answer | _Quiet | _Over] = deque()
        self._held = 0
        self._paused = False
        self._looked, self._rate = 0.0, 0.0  # when an entry was last taken, and how many come per second
        self._arrived = asyncio.Event()
        self._heard = self._silent = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The consumer exists: from now on silence means that the connection is dead."""
        self._timer = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._watch)
        if not self._wire.closed:
            self._tell("connected", "")

    async def take(self, most: int) -> Frames | Gap | None:
        """The next entries, up to `most`; None when the connection is lost. Whoever asks is done with the last ones."""
        while True:
            while self._queue:
                match self._queue[0]:
                    case _Run() as run:
                        return self._cut(run, most)
                    case Gap() as gap:
                        self._queue.popleft()
                        return gap
                    case _Answer(subject):
                        self._queue.popleft()
                        self._wire.write(publish(subject, b""))
                    case _Quiet(last):
                        self._queue.popleft()
                        return Gap(self._wire.followed[0] + 1, last)
                    case _Over():
                        return None
                    case never:
                        assert_never(never)
            self._arrived.clear()
            await self._arrived.wait()

    async def rest(self, item: Frames | Gap) -> None:
        """Where much arrives in small pieces, read nothing for a moment: each batch has its price, however small."""
        loop = asyncio.get_running_loop()
        count = len(item) if isinstance(item, Frames) else 0
        now = loop.time()
        kept = exp((self._looked - now) / MEMORY_S)
        self._looked, self._rate = now, self._rate * kept + count / MEMORY_S
        if self._rate > BUSY_PER_S and count < SMALL and not self._paused:
            self._wire.pause(yes=True)
            await asyncio.sleep(REST_S)
            if not self._paused:
                self._wire.pause(yes=False)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tell = _unheard
        self._wire.write(self.drop)
        self._wire.close()

    # What the wire tells

    def entries(self, sheet: Sheet, first: int, last: int) -> None:
        self._held += _extent(sheet, first, last)
        tail = self._queue[-1] if self._queue else None
        if isinstance(tail, _Run) and tail.sheet is sheet:
            tail.last = last
        else:
            self._put(_Run(sheet, first, last))
        if self._held > HELD_MAX and not self._paused:
            self._paused = True
            self._wire.pause(yes=True)

    def skipped(self, first: int, last: int) -> None:
        self._put(Gap(first, last))

    def message(self, message: Message) -> None:
        if message.sid != LOG_SID:
            return
        if message.status != IN_CONTROL:
            self._wire.abort(f"the consumer ended: {message.headers.partition(CRLF)[0]}")
        elif message.reply:
            self._put(_Answer(message.reply))
        else:
            self._heartbeat(_fields(message.headers))

    def stored(self, numbers: I8, seqs: I8) -> None:
        """Nothing is published here that the log stores."""

    def refused(self, why: str) -> None:
        self._wire.abort(why)

    def lost(self, why: str) -> None:
        self._tell("disconnected", why)
        self._put(_Over())

    def writable(self, *, yes: bool) -> None:
        """What is written here is too little to mind."""

    @property
    def _wire(self) -> Wire:
        assert self.wire is not None, "a session is used once it is connected"
        return self.wire

    def _put(self, item: _Run | Gap | _Answer | _Quiet | _Over) -> None:
        self._queue.append(item)
        self._arrived.set()

    def _cut(self, run: _Run, most: int) -> Frames:
        first, last = run.first, min(run.last, run.first + most)
        run.first = last
        if last == run.last:
            self._queue.popleft()
        self._held -= _extent(run.sheet, first, last)
        if self._paused and self._held < HELD_MAX // 2:
            self._paused = False
            self._wire.pause(yes=False)
        return run.sheet.frames(first, last)

    def _heartbeat(self, fields: dict[str, str]) -> None:
        """A heartbeat says what was sent last: had it been lost, nothing else would tell on an idle log."""
        _, ours = self._wire.followed
        sent = fields.get("Nats-Last-Consumer", "")
        # An entry may overtake the heartbeat that was made before it: fewer than came is no loss.
        if sent.isdigit() and int(sent) > ours:
            self._wire.abort(f"the server sent {sent} entries, {ours} came")
        elif stalled := fields.get("Nats-Consumer-Stalled"):
            self._put(_Answer(stalled))
        elif self._finite:
            self._put(_Quiet(int(fields.get("Nats-Last-Stream", "0"))))

    def _watch(self) -> None:
        """Every heartbeat: has anything come since the last one?"""
        wire = self._wire
        alive = self._paused or wire.heard != self._heard
        self._heard, self._silent = wire.heard, 0 if alive else self._silent + 1
        if self._silent >= SILENT_MAX:
            wire.abort(f"no sign of life for {SILENT_MAX * HEARTBEAT_S:g} s")
        elif not wire.closed:
            self._timer = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._watch)


async def _info(wire: Wire, stream: str) -> LogInfo:
    answer = await wire.request(f"$JS.API.STREAM.INFO.{stream}")
    state = answer["state"]
    metadata = answer["config"].get("metadata") or {}
    # An empty stream that never had an entry says first 0, one that was emptied last + 1.
    first = state["first_seq"] or state["last_seq"] + 1
    return LogInfo(first, state["last_seq"], state["messages"], state["bytes"], metadata.get(IDENTITY, ""))


async def _subscribe(wire: Wire, stream: str, first: int) -> bytes:
    """Make the consumer; gives the bytes that end it. It lives in the server's memory: we know where we are."""
    name = f"detectd-{token_hex(8)}"
    config: dict[str, Any] = {
        "name": name,
        "deliver_subject": wire.follow(first),
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": first,
        "ack_policy": "none",
        "max_deliver": 1,
        "flow_control": True,
        "idle_heartbeat": int(HEARTBEAT_S * NS),
        "inactive_threshold": int(UNUSED_S * NS),
        "mem_storage": True,
        "num_replicas": 1,
    }
    body = {"stream_name": stream, "config": config, "action": "create"}
    await wire.request(f"$JS.API.CONSUMER.CREATE.{stream}.{name}", body)
    return publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"")


def _check(first: int, info: LogInfo) -> None:
    if info.last < first - 1:
        raise LogWentBack(first - 1, info.last)


def _extent(sheet: Sheet, first: int, last: int) -> int:
    """Bytes of the sheet that entries [first, last) take up, protocol lines included: what is cut adds up again."""
    return _end(sheet, last) - _end(sheet, first)


def _end(sheet: Sheet, rows: int) -> int:
    return int(sheet.places[P_PAYLOAD, rows - 1] + sheet.places[P_PAYLOAD_LEN, rows - 1]) if rows else 0


def _fields(headers: str) -> dict[str, str]:
    pairs = (line.split(": ", 1) for line in headers.split(CRLF)[1:] if ": " in line)
    return {name: value.strip() for name, value in pairs}


def _end_of(item: Frames | Gap) -> int:
    return item.last if isinstance(item, Gap) else int(item.seq[-1])


def _until(item: Frames | Gap, last: int) -> Frames | Gap:
    """Cut off what is after position `last`; the item begins at or before it."""
    if isinstance(item, Gap):
        return Gap(item.first, min(item.last, last))
    keep = int(np.searchsorted(item.seq, last, side="right"))
    return item if keep == len(item) else part(item, 0, keep)


def _unheard(state: str, why: str) -> None:
    """Nobody listens."""
