"""One connection to the log with one ordered consumer: what came over it and was not taken yet, in order.

The server sends as much as its flow control allows (at most 32 MiB); we answer a flow control request when all that
came before it has been taken, so a slow taker makes the server wait. It is given up when the server is silent.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final, assert_never

from actors.messages import I8, Frames
from config.model import NS
from daemon.log.frames import LOG_SID
from daemon.log.sheet import Run, Sheet
from daemon.log.wire import Message, OnState, Wire, publish, unheard

HEARTBEAT_S: Final = 1.0  # the server's sign of life on an idle log
SILENT_MAX: Final = 3  # heartbeats missed before the connection is given up
HELD_MAX: Final = 48 * 1024 * 1024  # bytes; above the server's own window, so reached only if that fails
UNUSED_S: Final = 10.0  # after which the server forgets a consumer that nobody listens to
IN_CONTROL: Final = 100  # the status of flow control and heartbeats
CRLF: Final = "\r\n"


@dataclass(frozen=True, slots=True)
class Gap:
    """The log no longer has positions [first, last]: they were dropped before they could be read."""

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


class Session:
    """One connection with one consumer: what came over it and was not taken yet, in order."""

    def __init__(self, tell: OnState, *, finite: bool = False) -> None:
        self.wire: Wire | None = None
        self.drop = b""  # protocol bytes that end the consumer
        self._tell, self._finite = tell, finite
        self._queue: deque[Run | Gap | _Answer | _Quiet | _Over] = deque()
        self._held = 0
        self._paused = False
        self._arrived = asyncio.Event()
        self._heard = self._silent = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The consumer exists: from now on silence means that the connection is dead."""
        self._timer = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._watch)
        if not self._wire.closed:
            self._tell("connected", "")

    async def take(self, _first: int, most: int) -> Frames | Gap | None:
        """The next entries, up to `most`; None when the connection is lost. Whoever asks is done with the last ones."""
        while True:
            while self._queue:
                match self._queue[0]:
                    case Run() as run:
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

    async def rest(self, rest_s: float) -> None:
        """Read nothing for so long."""
        if rest_s > 0 and not self._paused:
            self._wire.pause(yes=True)
            await asyncio.sleep(rest_s)
            if not self._paused:
                self._wire.pause(yes=False)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tell = unheard
        self._wire.write(self.drop)
        self._wire.close()

    # What the wire tells

    def entries(self, sheet: Sheet, first: int, last: int) -> None:
        self._held += sheet.extent(first, last)
        tail = self._queue[-1] if self._queue else None
        if isinstance(tail, Run) and tail.sheet is sheet:
            tail.last = last
        else:
            self._put(Run(sheet, first, last))
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

    def stored(self, numbers: I8, seqs: I8, *, doubled: bool) -> None:
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

    def _put(self, item: Run | Gap | _Answer | _Quiet | _Over) -> None:
        self._queue.append(item)
        self._arrived.set()

    def _cut(self, run: Run, most: int) -> Frames:
        first = run.first
        frames = run.cut(most)
        self._held -= run.sheet.extent(first, run.first)
        if not run:
            self._queue.popleft()
        if self._paused and self._held < HELD_MAX // 2:
            self._paused = False
            self._wire.pause(yes=False)
        return frames

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


async def subscribe(wire: Wire, stream: str, first: int) -> bytes:
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


def _fields(headers: str) -> dict[str, str]:
    pairs = (line.split(": ", 1) for line in headers.split(CRLF)[1:] if ": " in line)
    return {name: value.strip() for name, value in pairs}
