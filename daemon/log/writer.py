"""Writing the log: an entry counts once the server has said where it is; and replies, which nobody waits for.

Every entry is sent with an id (`Nats-Msg-Id`) and asks for its own acknowledgement, which the compiled splitter reads:
so each position is known, and what got lost is known one by one. (A closing acknowledgement alone can't tell: other
clients write in between, and nats-server sheds publishes beyond 10 000 waiting ones.) After a lost connection all that
is unconfirmed is sent again, in order; what the server has already is recognised by its id, within the stream's
`duplicate_window`, which must be longer than `deadline_s`.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np

from actors.messages import I8
from daemon.log.echo import Echo
from daemon.log.frames import INBOX_SID, STRANGE_SID
from daemon.log.parcel import MSG_ID, WINDOW, WINDOW_BITS, Form, Parcel, Roll, Unsaid, size_of
from daemon.log.sheet import Sheet
from daemon.log.window import ACKNOWLEDGED_S, NotStored, Refused, Window
from daemon.log.wire import Access, Message, OnState, Wire, connect, publish, unheard

DEADLINE_S: Final = 30.0
RETRY_S: Final = (0.01, 0.1)
AGAIN_S: Final = 0.05  # between attempts at what the server refused for now
FLYING_MAX: Final = 4096  # unacknowledged entries; the server sheds beyond 10 000
WINDOW_BYTES: Final = 1024 * 1024  # of a parcel, but for a single large entry
UNSENT_MAX: Final = 8 * 1024 * 1024  # bytes that the socket has not taken: entries wait, replies are dropped
PERMANENT: Final = frozenset({400, 401, 403, 404})  # 429 and 5xx (no room, no leader, too busy) pass
HEADER_BYTES: Final = 1024  # kept free of max_payload for headers

_subject = re.compile(r"[^\x00-\x20\x7f]+").fullmatch
_header = re.compile(r"[^\x00-\x1f\x7f]*").fullmatch


class Entry(NamedTuple):
    """The plainest `Unsaid`."""

    subject: str
    payload: bytes
    headers: Mapping[str, str] = {}


class LogWriter:
    """Appends to the log (the stream that has the subject), and publishes replies. `async with`, or `start`, `close`.

    Bounds: FLYING_MAX entries unacknowledged (callers wait), UNSENT_MAX bytes of replies (`dropped` counts).
    With an echo every entry says when it was first to be stored, and the echo hears of all that is sent.
    """

    def __init__(
        self, access: Access, *, deadline_s: float = DEADLINE_S, on_state: OnState | None = None,
        echo: Echo | None = None,
    ) -> None:  # fmt: skip
        self.appended = 0
        self.replied = 0
        self.dropped = 0
        self.resent = 0
        self.refusals = 0
        self._access, self._deadline_s = access, deadline_s
        self._on_state = on_state or unheard
        self._echo = echo
        self._form = Form(echo.now_ns if echo is not None else None)
        self._roll = Roll()
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected, self._lost, self._poked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._ebb = asyncio.Event()
        self._turn = asyncio.Lock()  # windows leave one after the other, so that calls keep their order
        self._windows: dict[int, Window] = {}
        self._flying = 0
        self._counter = 1 << WINDOW_BITS  # far from the numbers of requests
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
        for entry in entries:
            _check(entry)
        return await self._append(self._packed(entries))

    def parcel(self, roll: Roll, size: int) -> Parcel:
        """A new one, with room for so many bytes, to be filled and then appended."""
        self._counter += 1
        return Parcel(self._form, roll.sheet(size), self._counter)

    async def append_parcel(self, parcel: Parcel) -> None:
        """Store its entries, in order. Raises Refused, NotStored.

        Handed over again within the stream's `duplicate_window`, none is stored twice.
        """
        await self._append([parcel])

    async def _append(self, parcels: Sequence[Parcel]) -> list[int]:
        windows = [self._window(parcel) for parcel in parcels]
        try:
            async with asyncio.timeout(self._deadline_s):
                while missing := [window for window in windows if window.left]:
                    await self._attempt(missing)
        except TimeoutError:
            left, count = sum(window.left for window in windows), sum(map(len, parcels))
            why = next((window.trouble for window in windows if window.trouble), self._why or "no acknowledgement")
            raise NotStored(f"{left} of {count} entries not stored within {self._deadline_s:g} s: {why}") from None
        finally:
            for window in windows:
                self._land(window, window.flying)
                window.settle()
                del self._windows[window.number]
        self.appended += sum(map(len, parcels))
        return [seq for window in windows for seq in window.seqs.tolist()]

    def reply(self, subject: str, payload: bytes) -> None:
        """Publish once, without proof; all that is said in one turn of the loop leaves in one write."""
        if _is_subject(subject):
            self.replies(publish(subject, payload))
        else:
            self.dropped += 1

    def replies(self, data: bytes, count: int = 1) -> bool:
        """As `reply`, for `count` publishes already in protocol bytes (`wire.publish`); whether they leave."""
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

    def _window(self, parcel: Parcel) -> Window:
        window = Window(parcel)
        self._windows[window.number] = window
        return window

    def _packed(self, entries: Sequence[Unsaid]) -> list[Parcel]:
        parcels: list[Parcel] = []
        first = size = 0
        for i, entry in enumerate(entries):
            own = size_of(entry)
            if i - first == WINDOW or size + own > WINDOW_BYTES:
                parcels.append(self._pack(entries[first:i], size))
                first, size = i, 0
            size += own
        return [*parcels, self._pack(entries[first:], size)] if len(entries) > first else parcels

    def _pack(self, entries: Sequence[Unsaid], size: int) -> Parcel:
        parcel = self.parcel(self._roll, size)
        parcel.put(entries)
        return parcel

    async def _attempt(self, windows: Sequence[Window]) -> None:
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
        for window in windows:
            await window.settled
        if refusal := next((window.refusal for window in windows if window.refusal), None):
            raise refusal
        if any(window.trouble for window in windows):
            await asyncio.sleep(AGAIN_S)

    async def _room(self, wire: Wire | None, window: Window) -> None:
        while wire is not None and not wire.closed:
            crowded = self._flying > 0 and self._flying + window.left > FLYING_MAX
            if not crowded and wire.unsent <= UNSENT_MAX:
                return
            self._ebb.clear()
            await self._ebb.wait()

    def _send(self, wire: Wire, window: Window) -> None:
        if not window.left:  # the last acknowledgement came while it waited for its turn
            return
        parcel = window.parcel
        # As a rule all of it is smaller than the largest of them might be.
        if parcel.end - parcel.start > wire.max_payload and parcel.largest + HEADER_BYTES > wire.max_payload:
            raise Refused(f"a payload of {parcel.largest} bytes is more than the server takes ({wire.max_payload})")
        for first, last in window.missing():
            wire.write(parcel.publishes(first, last))
        if self._echo is not None:
            self._echo.sent(parcel)
        self.resent += window.left if parcel.was_sent else 0
        parcel.was_sent = True
        self._flying += window.left - window.flying
        window.begin()

    def _land(self, window: Window, count: int) -> None:
        count = min(count, window.flying)
        window.flying -= count
        self._flying -= count
        self._ebb.set()

    # What the wire tells

    def stored(self, numbers: I8, seqs: I8, *, doubled: bool) -> None:
        ids = numbers >> WINDOW_BITS
        among = [int(ids[0])] if (ids == ids[0]).all() else np.unique(ids).tolist()
        for number in among:
            window = self._windows.get(number)
            if window is not None:
                mine = ids == number if len(among) > 1 else slice(None)
                self._land(window, window.take(numbers[mine] & (WINDOW - 1), seqs[mine]))
        if self._echo is not None:
            self._echo.stored(numbers, seqs, doubled=doubled)

    def message(self, message: Message) -> None:
        """An acknowledgement that is none: the server says why. Or a stranger's entry, for the echo to know of."""
        if message.sid >= STRANGE_SID and self._echo is not None:
            self._echo.strange()
            return
        window = self._windows.get(message.number >> WINDOW_BITS) if message.sid == INBOX_SID else None
        if window is not None:
            why, final = _refusal(message)
            window.refuse(why, final=final)

    def lost(self, why: str) -> None:
        self._wire, self._why = None, why
        self._connected.clear()
        if self._echo is not None:
            self._echo.lost()
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
                wire = await connect(
                    self._access, self, "detectd log writer", inbox_id=self._form.inbox, echo=self._echo is None
                )
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
        if self._echo is not None:
            self._echo.connected(wire)
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


def _check(entry: Unsaid) -> None:
    """Raises Refused."""
    if not _is_subject(entry.subject) or (entry.headers and not all(map(_header, entry.headers.values()))):
        raise Refused(f"{entry.subject!r} or a header of it holds a space or a control character")


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
