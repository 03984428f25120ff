"""Where log entries lie: bytes as they came or are sent, and tables of what is where in them.

Entries are offsets into the bytes, so no payload is copied. A row is filled by compiled code, which knows the subjects
of reports (`actors.entries` has the same rules in plain words) and the headers of entries.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numba import njit

from actors.messages import (
    BACKLOG,
    BRIDGED,
    CONTROL,
    COPIED,
    I4,
    I8,
    NAME_ENCODED,
    REPORT_CBOR,
    REPORT_JSON,
    U1,
    Frames,
)
from daemon.byte_kernels import CR, LF, number, starts, word

SHEET_BYTES: Final = 2 * 1024 * 1024  # a batch never spans two sheets: about 1 800 entries of 1 kB
SHEET_ROWS: Final = 8192

# Rows of a sheet's tables
S_SEQ, S_TS, S_ORIGIN = 0, 1, 2
B_KIND, B_FLAGS = 0, 1
P_SUBJECT, P_SUBJECT_LEN, P_NAME, P_NAME_LEN, P_PAYLOAD, P_PAYLOAD_LEN = 0, 1, 2, 3, 4, 5

CRLF: Final = b"\r\n"

_THINGS = word(b"$aws.things.")
_METRICS = word(b".defender.metrics.")
_BRIDGE = word(b"detectd.log.report.")
_JSON = word(b"json")
_CBOR = word(b"cbor")
_FIRST_TIME = word(b"Detectd-First-Time:")
_BACKLOG = word(b"Detectd-Backlog: 1")
_TIME = word(b"Detectd-Time:")

SPACE, DOT, SLASH, PERCENT = 32, 46, 47, 37


@dataclass(slots=True)
class Sheet:
    """Bytes as they came, or as they are sent, and the entries in them. Written once, front to back, never again after
    that; but for the positions of what is sent, which come later (daemon/log/echo.py).
    """

    size: int = SHEET_BYTES
    fill: int = 0
    rows: int = 0
    data: U1 = field(init=False)  # [bytes]
    longs: I8 = field(init=False)  # [3, row] seq, ts, origin
    bits: U1 = field(init=False)  # [2, row] kind, flags
    places: I4 = field(init=False)  # [6, row] offset and length of subject, name, payload
    view: memoryview = field(init=False)

    def __post_init__(self) -> None:
        self.data = np.empty(self.size, np.uint8)
        self.longs = np.empty((3, SHEET_ROWS), np.int64)
        self.bits = np.empty((2, SHEET_ROWS), np.uint8)
        self.places = np.empty((6, SHEET_ROWS), np.int32)
        self.view = self.data.data

    def end_of(self, rows: int) -> int:
        """Where the frames of the first so many rows end."""
        places = self.places
        return int(places[P_PAYLOAD, rows - 1] + places[P_PAYLOAD_LEN, rows - 1]) + len(CRLF) if rows else 0

    def extent(self, first: int, last: int) -> int:
        """Bytes that rows [first, last) take up, protocol lines included: what is cut adds up again."""
        return self.end_of(last) - self.end_of(first)

    def frames(self, first: int, last: int) -> Frames:
        """Entries [first, last), as views of the sheet."""
        part = slice(first, last)
        longs, bits, places = self.longs, self.bits, self.places
        return Frames(
            self.data,
            longs[S_SEQ, part],
            longs[S_TS, part],
            longs[S_ORIGIN, part],
            bits[B_KIND, part],
            bits[B_FLAGS, part],
            places[P_SUBJECT, part],
            places[P_SUBJECT_LEN, part],
            places[P_NAME, part],
            places[P_NAME_LEN, part],
            places[P_PAYLOAD, part],
            places[P_PAYLOAD_LEN, part],
        )


@dataclass(slots=True)
class Run:
    """Rows [first, last) of a sheet that nobody has taken yet."""

    sheet: Sheet
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    @property
    def seq(self) -> int:
        """The first one's position."""
        return int(self.sheet.longs[S_SEQ, self.first])

    def cut(self, most: int) -> Frames:
        """The first of them, up to `most`; they leave."""
        first, self.first = self.first, min(self.last, self.first + most)
        return self.sheet.frames(first, self.first)


@njit(nogil=True)
def write_row(
    data: U1,
    fields: I8,
    body: int,
    skip: int,
    size: int,
    seq: int,
    ts: int,
    timed: int,
    longs: I8,
    places: I4,
    bits: U1,
    row: int,
) -> None:
    """Fill a row of a sheet's tables: subject in fields[1], `skip` bytes of headers and the payload at `body`.

    `ts`: when the server stored it; with `timed` the entry's own word goes first.
    """
    start, end = fields[1, 0], fields[1, 1]
    kind, flags, name, name_len = _subject(data, start, end)
    origin, time = -1, -1
    if skip > 0:
        origin, time, backlog = _headers(data, body, body + skip)
        flags |= BACKLOG if backlog else 0
        flags |= COPIED if origin >= 0 else 0
    if timed and time >= 0:
        ts = time
    longs[S_SEQ, row] = seq
    longs[S_TS, row] = ts
    longs[S_ORIGIN, row] = origin if origin >= 0 else ts
    bits[B_KIND, row] = kind
    bits[B_FLAGS, row] = flags
    places[P_SUBJECT, row] = start
    places[P_SUBJECT_LEN, row] = end - start
    places[P_NAME, row] = name
    places[P_NAME_LEN, row] = name_len
    places[P_PAYLOAD, row] = body + skip
    places[P_PAYLOAD_LEN, row] = size - skip


@njit(nogil=True)
def _subject(data: U1, start: int, end: int) -> tuple[int, int, int, int]:
    """(kind, flags, name offset, name length); the rules of `actors.entries.classify`."""
    kind = _format(data, start, end)
    name, stop, flags = _token(data, start, end)
    if kind == CONTROL or stop <= name:
        return CONTROL, 0, 0, 0
    for i in range(name, stop):
        if data[i] == DOT:
            return CONTROL, 0, 0, 0
        if data[i] in (SLASH, PERCENT):
            flags |= NAME_ENCODED
    return kind, flags, name, stop - name


@njit(nogil=True)
def _format(data: U1, start: int, end: int) -> int:
    """What the last of several tokens says: REPORT_JSON, REPORT_CBOR or CONTROL."""
    tail = end - 4
    if tail - 1 > start and data[tail - 1] == DOT:
        if starts(data, tail, end, _JSON):
            return REPORT_JSON
        if starts(data, tail, end, _CBOR):
            return REPORT_CBOR
    return CONTROL


@njit(nogil=True)
def _token(data: U1, start: int, end: int) -> tuple[int, int, int]:
    """(where TOKEN starts, where it stops, BRIDGED or 0), if this is a report; what lies there may still hold dots."""
    if starts(data, start, end, _THINGS):
        stop = end - 4 - len(_METRICS)
        if stop > start and starts(data, stop, end, _METRICS):
            return start + len(_THINGS), stop, 0
    elif starts(data, start, end, _BRIDGE):
        first = start + len(_BRIDGE)
        name = first
        while name < end and data[name] != DOT:
            name += 1
        if name > first:
            return name + 1, end - 5, BRIDGED
    return 0, 0, 0


@njit(nogil=True)
def _headers(data: U1, at: int, end: int) -> tuple[int, int, bool]:
    """(Detectd-First-Time or -1, Detectd-Time or -1, whether Detectd-Backlog: 1 is there)."""
    origin, time, backlog = -1, -1, False
    while at < end:
        stop = at
        while stop < end and not (data[stop] == CR and stop + 1 < end and data[stop + 1] == LF):
            stop += 1
        if starts(data, at, stop, _FIRST_TIME):
            origin = _value(data, at + len(_FIRST_TIME), stop)
        elif starts(data, at, stop, _TIME):
            time = _value(data, at + len(_TIME), stop)
        elif stop - at == len(_BACKLOG) and starts(data, at, stop, _BACKLOG):
            backlog = True
        at = stop + 2
    return origin, time, backlog


@njit(nogil=True)
def _value(data: U1, at: int, end: int) -> int:
    """The number behind a header's colon, -1 where there is none."""
    while at < end and data[at] == SPACE:
        at += 1
    return number(data, at, end)
