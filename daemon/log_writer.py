"""Writing the log: an entry counts once the server has said where it is; and replies, which nobody waits for.

Every entry is sent with an id (`Nats-Msg-Id`) and asks for its own acknowledgement, which the compiled splitter reads:
so each position is known, and what got lost is known one by one. (A closing acknowledgement alone can't tell: other
clients write in between, and nats-server sheds publishes beyond 10 000 waiting ones.) After a lost connection all that
is unconfirmed is sent again, in order; what the server has already is recognised by its id, within the stream's
`duplicate_window`, which must be longer than `deadline_s`.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any, Final, NamedTuple, Protocol, Self

import msgspec
import numpy as np

from actors.messages import I8
from daemon.frames import INBOX_SID, Sheet
from daemon.wire import Access, Message, Wire, connect, publish

DEADLINE_S: Final = 30.0
ACKNOWLEDGED_S: Final = 5.0  # after which a silent connection is given up
RETRY_S: Final = (0.01, 0.1)
AGAIN_S: Final = 0.05  # between attempts at what the server refused for now
WINDOW: Final = 1024  # entries sent at a time
WINDOW_BITS: Final = 10
PIECE: Final = 64  # entries written at a time: memory for larger pieces would come from the kernel each time anew
WINDOW_BYTES: Final = 4 * 1024 * 1024
FLYING_MAX: Final = 4096  # unacknowledged entries; the server sheds beyond 10 000
UNSENT_MAX: Final = 8 * 1024 * 1024  # bytes that the socket has not taken: entries wait, replies are dropped
MSG_ID: Final = "Nats-Msg-Id"
_MSG_ID: Final = MSG_ID.encode()
PERMANENT: Final = frozenset({400, 401, 403, 404})  # 429 and 5xx (no room, no leader, too busy) pass
HEADER_BYTES: Final = 1024  # kept free of max_payload for headers

OnState = Callable[[str, str], None]

_subject = re.compile(r"[^\x00-\x20\x7f]+").fullmatch
_header = re.compile(r"[^\x00-\x1f\x7f]*").fullmatch


class Unsaid(Protocol):
    """An entry to be. A `Nats-Msg-Id` among the headers makes a repetition by the caller recognisable, too."""

    @property
    def subject(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Entry(NamedTuple):
    """The plainest `Unsaid`."""

    subject: str
    payload: bytes
    headers: Mapping[str, str] = {}


class _Line(NamedTuple):
    """An entry in protocol bytes, but for the subject that its acknowledgement goes to, which comes between the two."""

    subject: bytes
    rest: bytes  # the sizes and what is sized
    payload_bytes: int


class NotStored(Exception):
    """An entry could not be confirmed in time. It may be in the log all the same."""


class Refused(NotStored):
    """The server, or we, will never take this entry: too large, a bad subject, no permission."""


class LogWriter:
    """Appends to the log (the stream that has the subject), and publishes replies. `async with`, or `start`, `close`.

    Bounds: FLYING_MAX entries unacknowledged (callers wait), UNSENT_MAX bytes of replies (`dropped` counts).
    """

    def __init__(self, access: Access, *, deadline_s: float = DEADLINE_S, on_state: OnState | None = None) -> None:
        self.appended = 0
        self.replied = 0
        self.dropped = 0
        self.resent = 0
        self.refusals = 0
        self._access, self._deadline_s = access, deadline_s
        self._on_state = on_state or _unheard
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected, self._lost, self._poked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._ebb = asyncio.Event()
        self._turn = asyncio.Lock()  # windows leave one after the other, so that calls keep their order
        self._windows: dict[int, _Window] = {}
        self._flying = 0
        self._counter = 1 << WINDOW_BITS  # far from the numbers of requests
        self._run_id = token_hex(6).encode()
        self._ids = 0
        self._replies: list[bytes] = []
        self._replies_bytes = 0
        self._state = self._why = ""
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to connect, and stay connected; returns at once: appends wait until it worked."""
        self._task = asyncio.create_task(self._run(), name="log writer")

    async def close(self) -> None:
        """Send the replies that wait, and end. Appends that are under way fail with NotStored."""
        if self._wire is not None:
            self._flush()
            with suppress(OSError, TimeoutError):
                await self._wire.ping()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._closed = True
        self.lost("the writer was closed")
        self._connected.set()  # whoever waits for it is told

    def poke(self) -> None:
        """The server is back: try again now instead of in up to 0.1 s."""
        self._poked.set()

    async def append(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, msg_id: str | None = None
    ) -> int:
        """Store one entry and give its position. Raises Refused, NotStored (after the deadline)."""
        named = {MSG_ID: msg_id} if msg_id else {}
        return (await self.append_many([Entry(subject, payload, {**(headers or {}), **named})]))[0]

    async def append_many(self, entries: Sequence[Unsaid]) -> list[int]:
        """Store entries in this order and give their positions. Raises Refused, NotStored; some may be stored then.

        Other writers' entries may lie between. Where the server sheds one of a window (it tells), that one is
        repeated and so comes after the others.
        """
        windows = [self._window(part) for part in _parts([self._line(entry) for entry in entries])]
        try:
            async with asyncio.timeout(self._deadline_s):
                while missing := [window for window in windows if window.left]:
                    await self._attempt(missing)
        except TimeoutError:
            left = sum(window.left for window in windows)
            why = next((window.trouble for window in windows if window.trouble), self._why or "no acknowledgement")
            raise NotStored(
                f"{left} of {len(entries)} entries not stored within {self._deadline_s:g} s: {why}"
            ) from None
        finally:
            for window in windows:
                self._land(window, window.flying)
                del self._windows[window.number]
        self.appended += len(entries)
        return [seq for window in windows for seq in window.seqs.tolist()]

    def reply(self, subject: str, payload: bytes) -> None:
        """Publish once, without proof; all that is said in one turn of the loop leaves in one write."""
        if _is_subject(subject):
            self.replies(publish(subject, payload))
        else:
            self.dropped += 1

    def replies(self, data: bytes, count: int = 1) -> bool:
        """As `reply`, for `count` publishes already in protocol bytes (`daemon.wire.publish`); whether they leave."""
        wire = self._wire
        if wire is None or wire.unsent + self._replies_bytes > UNSENT_MAX:
            self.dropped += count
            return False
        if not self._replies:
            asyncio.get_running_loop().call_soon(self._flush)
        self._replies.append(data)
        self._replies_bytes += len(data)
        self.replied += count
        return True

    def _flush(self) -> None:
        if self._wire is not None and self._replies:
            self._wire.write(b"".join(self._replies))
        self._replies, self._replies_bytes = [], 0

    # Sending windows

    def _window(self, lines: Sequence[_Line]) -> "_Window":
        self._counter += 1
        window = _Window(self._counter, lines)
        self._windows[window.number] = window
        return window

    def _line(self, entry: Unsaid) -> _Line:
        """The entry as it is sent, with an id. Raises Refused."""
        headers, payload = entry.headers, entry.payload
        if not _is_subject(entry.subject) or (headers and not all(map(_header, headers.values()))):
            raise Refused(f"{entry.subject!r} or a header of it holds a space or a control character")
        named = b""
        if MSG_ID not in headers:
            self._ids += 1
            named = b"%b: %b%x\r\n" % (_MSG_ID, self._run_id, self._ids)
        if headers:
            named += "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode()
        head = b"NATS/1.0\r\n%b\r\n" % named
        rest = b"%d %d\r\n%b%b\r\n" % (len(head), len(head) + len(payload), head, payload)
        return _Line(entry.subject.encode(), rest, len(payload))

    async def _attempt(self, windows: Sequence["_Window"]) -> None:
        """Send all that is missing; return when it is stored, or has to be tried again."""
        await self._connected.wait()
        if self._closed:
            raise NotStored("the log writer is closed")
        wire = self._wire
        for window in windows:
            async with self._turn:
                await self._room(wire, window)
                if wire is None or wire.closed:
                    return
                self._send(wire, window)
        await asyncio.wait([window.settled for window in windows], timeout=ACKNOWLEDGED_S)
        if refusal := next((window.refusal for window in windows if window.refusal), None):
            raise refusal
        if any(window.trouble for window in windows):
            await asyncio.sleep(AGAIN_S)

    async def _room(self, wire: Wire | None, window: "_Window") -> None:
        while wire is not None and not wire.closed:
            crowded = self._flying > 0 and self._flying + window.left > FLYING_MAX
            if not crowded and wire.unsent <= UNSENT_MAX:
                return
            self._ebb.clear()
            await self._ebb.wait()

    def _send(self, wire: Wire, window: "_Window") -> None:
        missing = np.flatnonzero(window.seqs == 0).tolist()
        if not missing:  # the last acknowledgement came while it waited for its turn
            return
        largest = max(window.lines[i].payload_bytes for i in missing)
        if largest + HEADER_BYTES > wire.max_payload:
            raise Refused(f"a payload of {largest} bytes is more than the server takes ({wire.max_payload})")
        inbox, lines, base = wire.inbox, window.lines, window.number << WINDOW_BITS
        for first in range(0, len(missing), PIECE):
            some = missing[first : first + PIECE]
            wire.write(
                b"".join([b"HPUB %b %b%d %b" % (lines[i].subject, inbox, base + i, lines[i].rest) for i in some])
            )
        self.resent += len(missing) if window.sent else 0
        self._flying += len(missing) - window.flying
        window.begin(len(missing))

    def _land(self, window: "_Window", count: int) -> None:
        count = min(count, window.flying)
        window.flying -= count
        self._flying -= count
        self._ebb.set()

    # What the wire tells

    def stored(self, numbers: I8, seqs: I8) -> None:
        ids = numbers >> WINDOW_BITS
        for number in np.unique(ids).tolist() if ids[0] != ids[-1] else [int(ids[0])]:
            window = self._windows.get(number)
            if window is not None:
                mine = ids == number
                self._land(window, window.take(numbers[mine] & (WINDOW - 1), seqs[mine]))

    def message(self, message: Message) -> None:
        """An acknowledgement that is none: the server says why."""
        window = self._windows.get(message.number >> WINDOW_BITS) if message.sid == INBOX_SID else None
        if window is not None:
            why, final = _refusal(message)
            window.refuse(why, final=final)

    def lost(self, why: str) -> None:
        self._wire, self._why = None, why
        self._connected.clear()
        self._replies, self._replies_bytes = [], 0
        for window in self._windows.values():
            self._land(window, window.flying)
            window.settle()
        self._lost.set()
        self._ebb.set()

    def writable(self, *, yes: bool) -> None:
        if yes:
            self._ebb.set()

    def refused(self, why: str) -> None:
        """No permission for a subject: an append times out with this reason, a reply is just not sent."""
        self._why = why
        self.refusals += 1

    def entries(self, sheet: Sheet, first: int, last: int) -> None:
        """The writer reads nothing."""

    def skipped(self, first: int, last: int) -> None:
        """The writer reads nothing."""

    # The connection

    async def _run(self) -> None:
        delay_s = RETRY_S[0]
        while True:
            try:
                wire = await connect(self._access, self, "detectd log writer")
            except (OSError, TimeoutError) as error:
                self._why = str(error)
                self._tell("disconnected", self._why)
            else:
                delay_s = RETRY_S[0]
                await self._hold(wire)
            self._poked.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._poked.wait()
            delay_s = min(2 * delay_s, RETRY_S[1])

    async def _hold(self, wire: Wire) -> None:
        """Use a connection until it is lost, or nothing comes over it while entries are unacknowledged."""
        self._lost.clear()
        self._wire = wire
        self._connected.set()
        self._tell("connected", "")
        try:
            while not wire.closed:
                heard = wire.heard
                with suppress(TimeoutError):
                    async with asyncio.timeout(ACKNOWLEDGED_S):
                        await self._lost.wait()
                if self._flying and wire.heard == heard:
                    wire.abort(f"no acknowledgement within {ACKNOWLEDGED_S:g} s")
            self._tell("disconnected", self._why)
        finally:
            wire.close()

    def _tell(self, state: str, why: str) -> None:
        if state != self._state:
            self._state = state
            self._on_state(state, why)


class _Window:
    """Entries that are sent together, and where the server stored them."""

    def __init__(self, number: int, lines: Sequence[_Line]) -> None:
        self.number, self.lines = number, lines
        self.seqs: I8 = np.zeros(len(lines), np.int64)  # [entry] 0 = not known
        self.left = len(lines)
        self.flying = 0
        self.sent = False
        self.trouble = ""
        self.refusal: Refused | None = None
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self, flying: int) -> None:
        """It is on its way, once more."""
        self.flying, self.sent, self.trouble = flying, True, ""
        if self.settled.done():
            self.settled = asyncio.get_running_loop().create_future()

    def take(self, places: I8, seqs: I8) -> int:
        """Note where entries are; gives how many of them are news."""
        before = self.left
        self.seqs[places] = seqs
        self.left = len(self.seqs) - int(np.count_nonzero(self.seqs))
        if not self.left:
            self.settle()
        return before - self.left

    def refuse(self, why: str, *, final: bool) -> None:
        self.trouble = why
        if final:
            self.refusal = Refused(why)
        self.settle()

    def settle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)


def _parts(lines: Sequence[_Line]) -> list[Sequence[_Line]]:
    """Cut into windows: at most WINDOW entries and, but for a single large one, WINDOW_BYTES."""
    parts: list[Sequence[_Line]] = []
    start = size = 0
    for i, line in enumerate(lines):
        size += line.payload_bytes
        if i > start and (i - start == WINDOW or size > WINDOW_BYTES):
            parts.append(lines[start:i])
            start, size = i, line.payload_bytes
    return [*parts, lines[start:]] if len(lines) > start else parts


def _is_subject(text: str) -> bool:
    # Nearly all can be printed, and are known at once to be good.
    return bool(text) and " " not in text and (text.isprintable() or _subject(text) is not None)


def _refusal(message: Message) -> tuple[str, bool]:
    """(why, whether it is for good)."""
    if message.status:
        return f"no stream takes this subject ({message.status})", False
    try:
        error = msgspec.json.decode(message.body, type=dict[str, Any]).get("error")
    except msgspec.MsgspecError:
        error = None
    if not isinstance(error, dict):
        return "an acknowledgement that can't be read", False
    code = error.get("code", 0)
    return str(error.get("description", "refused")), isinstance(code, int) and code in PERMANENT


def _unheard(state: str, why: str) -> None:
    """Nobody listens."""
