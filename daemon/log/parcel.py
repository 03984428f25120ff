"""Entries on their way into the log, as they lie in memory: the publishes in protocol bytes, and the rows that a reader
knows them by.

A parcel is written once, sent from where it lies, sent again from there if need be, and read there (log/echo.py).
Every entry has a number of its own: its acknowledgement comes back with it, and it makes the entry's `Nats-Msg-Id`, by
which the server knows a repetition (within the stream's `duplicate_window`).
"""

from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from typing import Final, Protocol

import numpy as np
from numba import njit

from actors.messages import I4, I8, U1, Frames
from daemon.byte_kernels import copy, number, put, put_break, put_digits, put_number, word
from daemon.log.frames import FIELDS_MAX, fields_of
from daemon.log.sheet import CRLF, DOT, P_PAYLOAD_LEN, SHEET_BYTES, SLASH, SPACE, Sheet, write_row

WINDOW_BITS: Final = 10
WINDOW: Final = 1 << WINDOW_BITS  # entries of a parcel at most
MSG_ID: Final = "Nats-Msg-Id"
TIME: Final = "Detectd-Time"
DIGITS: Final = 19  # of a number, and of a time in ns
HPUB: Final = b"HPUB "
HEAD_BYTES: Final = 300  # more than a publish has beside its subject and its payload, if it has no headers of its own
ROOM_MIN: Final = 64 * 1024  # bytes; a sheet with less room is left


class Unsaid(Protocol):
    """An entry to be. A `Nats-Msg-Id` among the headers makes a repetition by the caller recognisable, too."""

    @property
    def subject(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Form:
    """What all publishes of one writer have in common. With a clock, every entry says when it came."""

    def __init__(self, now_ns: Callable[[], int] | None = None) -> None:
        self.inbox = token_hex(8)  # acknowledgements come to _INBOX.THIS.NUMBER
        self.reply = f" _INBOX.{self.inbox}.".encode()
        self.named = f"NATS/1.0\r\n{MSG_ID}: {token_hex(6)}-".encode()
        self.timed = f"\r\n{TIME}: ".encode() if now_ns is not None else b""
        self._now_ns = now_ns
        self.text: U1 = np.frombuffer(b"%b\0%b\0%b\0" % (self.reply, self.named, self.timed), np.uint8)
        self.headers_len = len(self.named) + DIGITS + (len(self.timed) + DIGITS if self.timed else 0) + 2 * len(CRLF)

    def now_ns(self) -> int:
        """0 without a clock."""
        return self._now_ns() if self._now_ns is not None else 0


class Roll:
    """Sheets for parcels that are filled one after the other."""

    def __init__(self) -> None:
        self._sheet = Sheet(0)

    def sheet(self, size: int) -> Sheet:
        """One with room for a parcel of so many bytes."""
        sheet = self._sheet
        if sheet.size - sheet.fill < max(size, ROOM_MIN) or sheet.rows + WINDOW > sheet.longs.shape[1]:
            sheet = self._sheet = Sheet(max(size, SHEET_BYTES))
        return sheet


class Parcel:
    """Rows [first, last) of a sheet, its bytes [start, end); nobody else writes there while it is being filled."""

    __slots__ = ("end", "first", "form", "last", "number", "sheet", "start", "was_sent")

    def __init__(self, form: Form, sheet: Sheet, window: int) -> None:
        self.form, self.sheet = form, sheet
        self.number = window << WINDOW_BITS  # of the first entry; the others follow
        self.start = self.end = sheet.fill
        self.first = self.last = sheet.rows
        self.was_sent = False  # before now

    def __len__(self) -> int:
        return self.last - self.first

    def has_room(self, count: int, size: int) -> bool:
        """For so many entries more, of so many bytes in all."""
        return len(self) + count <= WINDOW and self.sheet.size - self.end >= size

    def put(self, entries: Sequence[Unsaid]) -> None:
        """Add entries; their subjects and headers have been looked at (`daemon.log.writer`)."""
        now_ns, first = self.form.now_ns(), self.number + len(self)
        data = b"".join([_publish(self.form, entry, first + i, now_ns) for i, entry in enumerate(entries)])
        sheet, at = self.sheet, self.end
        end = at + len(data)
        sheet.view[at:end] = data
        self.grown(end, write_rows(sheet.data, at, end, sheet.longs, sheet.places, sheet.bits, self.last))

    def grown(self, end: int, last: int) -> None:
        """Its bytes and rows go so far now."""
        self.sheet.fill = self.end = end
        self.sheet.rows = self.last = last

    def frames(self) -> Frames:
        """Its entries as a reader sees them; they have no position yet."""
        return self.sheet.frames(self.first, self.last)

    def publishes(self, first: int, last: int) -> memoryview:
        """The bytes of entries [first, last), counted from its own first one."""
        sheet = self.sheet
        return sheet.view[sheet.end_of(self.first + first) : sheet.end_of(self.first + last)]

    @property
    def largest(self) -> int:
        """Bytes of the largest payload."""
        return int(self.sheet.places[P_PAYLOAD_LEN, self.first : self.last].max())


def size_of(entry: Unsaid) -> int:
    """Bytes that its publish takes at most."""
    own = sum(len(name) + 4 * len(value) + 4 for name, value in entry.headers.items()) if entry.headers else 0
    return HEAD_BYTES + 4 * len(entry.subject) + own + len(entry.payload)


def _publish(form: Form, entry: Unsaid, mark: int, now_ns: int) -> bytes:
    headers, payload = entry.headers, entry.payload
    if not headers:
        head = b"%b%019d%b" % (form.named, mark, form.timed)
    else:
        named = form.named.partition(CRLF)[0] if MSG_ID in headers else b"%b%019d" % (form.named, mark)
        own = "".join([f"\r\n{name}: {value}" for name, value in headers.items()]).encode()
        head = b"%b%b%b" % (named, own, form.timed)
    head = b"%b%019d\r\n\r\n" % (head, now_ns) if form.timed else head + b"\r\n\r\n"
    sizes = b" %d %d\r\n" % (len(head), len(head) + len(payload))
    return b"".join((HPUB, entry.subject.encode(), form.reply, b"%019d" % mark, sizes, head, payload, CRLF))


# Kernels

_HPUB = word(HPUB)


@njit("i8(u1[::1], i8, i8, i8[:,::1], i4[:,::1], u1[:,::1], i8)", nogil=True, cache=True)
def write_rows(data: U1, at: int, end: int, longs: I8, places: I4, bits: U1, row: int) -> int:
    """Make a row of every `HPUB subject reply headers total` in data[at:end], from `row` on. Gives where they end."""
    fields = np.empty((FIELDS_MAX, 2), np.int64)
    while at < end:
        eol, _ = fields_of(data, at, end, fields)
        skip = number(data, fields[3, 0], fields[3, 1])
        size = number(data, fields[4, 0], fields[4, 1])
        write_row(data, fields, eol + 2, skip, size, 0, 0, 1, longs, places, bits, row)
        at = eol + 2 + size + 2
        row += 1
    return row


@njit(nogil=True)
def _put_text(into: U1, at: int, text: U1, start: int) -> tuple[int, int]:
    """Copy text[start:] up to a zero; (where it ends in `into`, where the next text starts)."""
    i = start
    while text[i] != 0:
        into[at + i - start] = text[i]
        i += 1
    return at + i - start, i + 1


@njit(nogil=True)
def put_publish(
    into: U1, at: int, source: U1, topic: int, topic_len: int, payload: int, size: int, form: U1, headers_len: int,
    mark: int, now_ns: int,
) -> int:  # fmt: skip
    """Write into[at:] the publish of source[payload:][:size] on an MQTT topic without empty levels, dots or spaces.

    The same bytes as `Parcel.put` makes of such an entry. Gives where they end.
    """
    at = put(into, at, _HPUB)
    for i in range(topic_len):
        c = source[topic + i]
        into[at + i] = DOT if c == SLASH else c
    at, text = _put_text(into, at + topic_len, form, 0)
    at = put_digits(into, at, mark, DIGITS)
    into[at] = SPACE
    at = put_number(into, at + 1, headers_len)
    into[at] = SPACE
    at = put_break(into, put_number(into, at + 1, headers_len + size))
    at, text = _put_text(into, at, form, text)
    at = put_digits(into, at, mark, DIGITS)
    if form[text] != 0:
        at, text = _put_text(into, at, form, text)
        at = put_digits(into, at, now_ns, DIGITS)
    at = put_break(into, put_break(into, at))
    return put_break(into, copy(into, at, source, payload, size))
