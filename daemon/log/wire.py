"""One connection to nats-server: handshake, requests and publishing; what arrives goes through the compiled splitter.

nats-py costs tens of microseconds per message, this about one. It knows what detectd needs and nothing else: no
reconnecting (the reader and the writer each do that in their own way), one inbox, one subscription to the log or a few
that listen for strangers.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

import msgspec
import numpy as np

from actors.messages import I8
from daemon.log.frames import (
    BODY_LEN,
    BODY_OFF,
    BROKEN,
    ERROR,
    EVENT_COLUMNS,
    EVENTS,
    EVENTS_MAX,
    EXPECTED,
    HEADERS_LEN,
    INBOX_SID,
    KIND,
    LINE,
    LINE_LEN,
    LINE_OFF,
    LOG_SID,
    MESSAGE,
    NEED,
    NEXT_CSEQ,
    NEXT_SEQ,
    READ,
    ROW,
    ROWS,
    SEQ,
    SID,
    SKIPPED,
    STATE,
    STATUS,
    STORED,
    TAIL,
    TIMED,
    split,
)
from daemon.log.sheet import SHEET_BYTES, Sheet

CONNECT_S: Final = 2.0  # a server that is up answers in a millisecond
REQUEST_S: Final = 5.0
READ_MIN: Final = 64 * 1024  # less room than this in a sheet is not worth a system call
FRAME_MAX: Final = 80 * 1024 * 1024  # more than any max_payload that nats-server takes (64 MiB) and its headers


OnState = Callable[[str, str], None]
"""("connected", "") or ("disconnected", why); told when it changes."""


def unheard(state: str, why: str) -> None:
    """Nobody listens."""


class WireError(ConnectionError):
    """The connection can't be had or is gone; the message says why."""


class RequestError(Exception):
    """The server answered a request with an error: JetStream's code, error code and description."""

    def __init__(self, code: int, error_code: int, description: str) -> None:
        super().__init__(f"{description} ({code}/{error_code})")
        self.code, self.error_code = code, error_code


@dataclass(frozen=True, slots=True)
class Access:
    """Where nats-server is and who we are there. `urls`: nats://host:port or tls://host:port; any of them will do.

    `timed`: entries may say when they came, since nobody but detectd can publish there with headers.
    """

    urls: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is no entry of the log. `status` is 0 where it has none; `number` ends its subject, else -1."""

    sid: int
    number: int
    status: int
    reply: str
    headers: str
    body: bytes


class Inbox(Protocol):
    """Who is told what arrives, in order. Called from the event loop; must not block."""

    def entries(self, sheet: Sheet, first: int, last: int) -> None: ...
    def skipped(self, first: int, last: int) -> None: ...
    def message(self, message: Message) -> None: ...
    def stored(self, numbers: I8, seqs: I8, *, doubled: bool) -> None:
        """Publishes with these numbers are in the stream; `doubled`: some of them it had before."""
        ...

    def refused(self, why: str) -> None: ...
    def lost(self, why: str) -> None: ...
    def writable(self, *, yes: bool) -> None: ...


class _Nobody:
    """The inbox of a connection that is being closed."""

    def entries(self, sheet: Sheet, first: int, last: int) -> None: ...
    def skipped(self, first: int, last: int) -> None: ...
    def message(self, message: Message) -> None: ...
    def stored(self, numbers: I8, seqs: I8, *, doubled: bool) -> None:
        """Publishes with these numbers are in the stream; `doubled`: some of them it had before."""

    def refused(self, why: str) -> None: ...
    def lost(self, why: str) -> None: ...
    def writable(self, *, yes: bool) -> None: ...


NOBODY: Final = _Nobody()


class Wire(asyncio.BufferedProtocol):
    """One connection; use `connect`. `heard` counts the bytes that came: who watches it knows that the server lives."""

    def __init__(self, inbox: Inbox, *, inbox_id: str = "", timed: bool = False) -> None:
        self.info: dict[str, Any] = {}
        self.heard = 0
        self.closed = False
        self._inbox: Inbox = inbox
        self._why = ""
        self._sheet = Sheet()
        self._state: I8 = np.zeros(STATE, np.int64)
        self._state[TIMED] = timed
        self._events: I8 = np.zeros((EVENT_COLUMNS, EVENTS_MAX), np.int64)
        self._transport: asyncio.Transport | None = None
        # Answers come to _INBOX.ID.NUMBER; an acknowledgement of a publish calls `Inbox.stored` with its number.
        self._id = inbox_id or token_hex(8)
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs: list[asyncio.Future[None]] = []
        self._requests: dict[int, asyncio.Future[Message]] = {}
        self._asked = 0

    # What others call

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send protocol bytes, that may not change any more; nothing happens on a closed connection."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return 0 if self._transport is None or self.closed else self._transport.get_write_buffer_size()

    @property
    def max_payload(self) -> int:
        return int(self.info.get("max_payload", 1024 * 1024))

    def follow(self, seq: int) -> str:
        """Expect a new ordered consumer's entries, the first being `seq`; gives its delivery subject."""
        self._state[NEXT_SEQ], self._state[NEXT_CSEQ] = seq, 1
        subject = f"_INBOX.{self._id}-log"  # exactly: a wildcard is no interest to a push consumer (2.15)
        self.write(f"SUB {subject} {LOG_SID}\r\n".encode())
        return subject

    @property
    def followed(self) -> tuple[int, int]:
        """(the stream's, the consumer's) sequence of the last entry that came."""
        return int(self._state[NEXT_SEQ]) - 1, int(self._state[NEXT_CSEQ]) - 1

    async def request(self, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's API. Raises RequestError, WireError, TimeoutError."""
        self._asked += 1
        number, future = self._asked, asyncio.get_running_loop().create_future()
        self._requests[number] = future
        payload = msgspec.json.encode(body) if body is not None else b""
        self.write(publish(subject, payload, reply=f"_INBOX.{self._id}.r.{number}"))
        try:
            async with asyncio.timeout(REQUEST_S):
                answer = await future
        finally:
            del self._requests[number]
        return _answer(subject, answer)

    async def ping(self) -> None:
        """Return once the server has seen all that was written before. Raises WireError, TimeoutError."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(future)
        self.write(b"PING\r\n")
        async with asyncio.timeout(REQUEST_S):
            await future

    def pause(self, *, yes: bool) -> None:
        """Stop or go on reading the socket."""
        if self._transport is not None and not self.closed:
            if yes:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def close(self) -> None:
        """Close once all is sent that was written; nobody is told more."""
        self._inbox = NOBODY
        if self._transport is not None and not self.closed:
            self._transport.close()

    def abort(self, why: str) -> None:
        """Close at once; `Inbox.lost` says why."""
        self._why = self._why or why
        if self._transport is not None and not self.closed:
            self._transport.abort()
        self._end()

    async def greet(self, access: Access, host: str, name: str, *, echo: bool) -> None:
        """INFO, TLS where it is wanted, CONNECT, and the PONG that says that we are in."""
        await self._greeted
        if access.tls is not None or self.info.get("tls_required"):
            await self._secure(access.tls or ssl.create_default_context(), host)
        options = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "protocol": 1,
            "echo": echo,
            "lang": "python",
            "version": "detectd",
            "name": name,
        }
        if access.user:
            options |= {"user": access.user, "pass": access.password}
        self.write(b"CONNECT %b\r\n" % msgspec.json.encode(options))
        await self.ping()
        self.write(f"SUB _INBOX.{self._id}.> {INBOX_SID}\r\n".encode())
        if self.closed:  # between the server's PONG and our turn
            raise WireError(self._why)

    async def _secure(self, context: ssl.SSLContext, host: str) -> None:
        loop = asyncio.get_running_loop()
        assert self._transport is not None, "greeted on a transport"
        secured = await loop.start_tls(self._transport, self, context, server_hostname=host)
        if secured is None:
            raise WireError("the connection closed during the TLS handshake")
        self._transport = secured

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def get_buffer(self, _sizehint: int) -> memoryview:
        sheet, read = self._sheet, int(self._state[READ])
        need = max(int(self._state[NEED]) - (sheet.fill - read), READ_MIN)
        if sheet.size - sheet.fill < need:
            self._turn(need)
        return self._sheet.view[self._sheet.fill :]

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += nbytes
        sheet = self._sheet
        sheet.fill += nbytes
        if sheet.fill - self._state[READ] >= self._state[NEED]:
            self._split()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._inbox.writable(yes=False)

    def resume_writing(self) -> None:
        self._inbox.writable(yes=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._why = self._why or (str(exc) if exc else "the server closed the connection")
        self._end()

    # What arrived

    def _split(self) -> None:
        """Take apart what lies in the sheet; one call of the kernel, unless a table is full."""
        while not self.closed:
            sheet, state = self._sheet, self._state
            split(sheet.data, sheet.fill, LOG_SID, sheet.longs, sheet.places, sheet.bits, self._events, state)
            first, sheet.rows = sheet.rows, int(state[ROWS])
            self._tell(sheet, first, int(state[EVENTS]))
            if state[ERROR]:
                self.abort("malformed bytes from the server")
            elif sheet.rows == sheet.longs.shape[1]:
                self._turn(READ_MIN)
            elif state[EVENTS] < EVENTS_MAX:
                if state[NEED] > FRAME_MAX:
                    self.abort(f"a frame of {int(state[NEED])} bytes")
                return

    def _turn(self, need: int) -> None:
        """Go on in a new sheet; of the old one, the bytes of an unfinished frame come along."""
        old, read = self._sheet, int(self._state[READ])
        rest = old.fill - read
        size = max(SHEET_BYTES, rest + need)
        if old.rows == 0 and old.size == size and read >= rest:  # nobody holds it
            old.view[:rest] = old.view[read : old.fill]
        else:
            self._sheet = Sheet(size)
            self._sheet.view[:rest] = old.view[read : old.fill]
        self._sheet.fill = rest
        self._state[READ] = self._state[ROWS] = 0

    def _tell(self, sheet: Sheet, first: int, count: int) -> None:
        if count:
            events = self._events[:, :count]
            acks = events[KIND] == STORED
            others = np.flatnonzero(~acks).tolist()
            if len(others) < count:
                some = events if not others else events[:, acks]
                self._inbox.stored(some[TAIL], some[SEQ], doubled=bool((some[EXPECTED] > 0).any()))
            for k in others:
                row = int(events[ROW, k])
                if row > first:
                    self._inbox.entries(sheet, first, row)
                    first = row
                self._happen(sheet, events[:, k].tolist())
        if sheet.rows > first and not self.closed:
            self._inbox.entries(sheet, first, sheet.rows)

    def _happen(self, sheet: Sheet, event: list[int]) -> None:
        match event[KIND]:
            case kind if kind == LINE:
                self._line(sheet.view[event[LINE_OFF] :][: event[LINE_LEN]].tobytes())
            case kind if kind in (MESSAGE, STATUS):
                self._message(_message(sheet, event))
            case kind if kind == SKIPPED:
                self._inbox.skipped(event[EXPECTED], event[SEQ] - 1)
            case kind if kind == BROKEN:
                self.abort(f"entry {event[SEQ]} came where {event[EXPECTED]} was expected")

    def _line(self, line: bytes) -> None:
        match line[:4]:
            case b"PING":
                self.write(b"PONG\r\n")
            case b"PONG":
                if self._pongs:
                    _resolve(self._pongs.pop(0), None)
            case b"INFO":
                self.info = msgspec.json.decode(line[5:])
                _resolve(self._greeted, None)
            case b"-ERR":
                self._refused(line[5:].decode("utf-8", "replace").strip("' "))

    def _refused(self, why: str) -> None:
        """A refused subject leaves the connection open; all else closes it, and is then the reason."""
        if why.lower().startswith("permissions violation"):
            self._inbox.refused(why)
        else:
            self._why = self._why or f"the server says: {why}"

    def _message(self, message: Message) -> None:
        future = self._requests.get(message.number) if message.sid == INBOX_SID else None
        if future is None:
            self._inbox.message(message)
        else:
            _resolve(future, message)

    def _end(self) -> None:
        """The connection is over: whoever waits is told, once."""
        if self.closed:
            return
        self.closed = True
        error = WireError(self._why)
        waiting: list[asyncio.Future[Any]] = [self._greeted, *self._pongs, *self._requests.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever awaits it still gets it; nobody has to
        self._inbox.lost(self._why)


async def connect(access: Access, inbox: Inbox, name: str, *, inbox_id: str = "", echo: bool = True) -> Wire:
    """Connect to the first server that takes us. Raises WireError (with the last reason) or TimeoutError.

    `inbox_id`: of the inbox, where it is to be the same for each connection; only one at a time may have it. Without
    `echo` subscriptions leave out what the connection itself publishes.
    """
    failure: Exception = WireError("no server is named")
    for url in access.urls:
        try:
            async with asyncio.timeout(CONNECT_S):
                return await _connect(access, url, inbox, name, inbox_id=inbox_id, echo=echo)
        except (OSError, TimeoutError) as error:
            failure = error
    raise WireError(f"{', '.join(access.urls)}: {str(failure) or 'no answer in time'}") from failure


async def _connect(access: Access, url: str, inbox: Inbox, name: str, *, inbox_id: str, echo: bool) -> Wire:
    place = urlsplit(url if "://" in url else f"nats://{url}")
    host = place.hostname or "127.0.0.1"
    wire = Wire(inbox, inbox_id=inbox_id, timed=access.timed)
    await asyncio.get_running_loop().create_connection(lambda: wire, host, place.port or 4222)
    try:
        await wire.greet(access, host, name, echo=echo)
    except BaseException as error:
        wire.abort(str(error))
        raise
    return wire


def publish(subject: str, payload: bytes, *, reply: str = "") -> bytes:
    """The protocol bytes of one publish. The caller sees to it that the subject holds no CR, LF or space."""
    target = f"{subject} {reply}" if reply else subject
    return b"PUB %b %d\r\n%b\r\n" % (target.encode(), len(payload), payload)


def publish_all(messages: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The same for many (subject, payload) without headers."""
    return b"".join([b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload) for subject, payload in messages])


def _message(sheet: Sheet, event: list[int]) -> Message:
    body, skip, size = event[BODY_OFF], event[HEADERS_LEN], event[BODY_LEN]
    fields = sheet.view[event[LINE_OFF] :][: event[LINE_LEN]].tobytes().decode("utf-8", "replace").split(" ")
    bare = 5 if fields[0] == "HMSG" else 4
    headers = sheet.view[body : body + skip].tobytes().decode("utf-8", "replace")
    status = headers[9:12] if event[KIND] == STATUS else ""
    return Message(
        event[SID],
        event[TAIL],
        int(status) if status.isdigit() else 0,
        fields[3] if len(fields) > bare else "",
        headers,
        sheet.view[body + skip : body + size].tobytes(),
    )


def _answer(subject: str, message: Message) -> dict[str, Any]:
    if message.status == 503:
        raise RequestError(503, 0, f"nobody answers {subject}")
    answer = msgspec.json.decode(message.body, type=dict[str, Any])
    if "error" in answer:
        error = answer["error"]
        raise RequestError(error.get("code", 0), error.get("err_code", 0), error.get("description", "refused"))
    return answer


def _resolve(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)
