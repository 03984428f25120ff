"""The bytes of the NATS protocol, split into log entries by one compiled call per chunk of the socket.

What arrives lies in a sheet (`daemon.log.sheet`) and stays there. The kernel knows the protocol of nats-server towards
a client (INFO, PING, PONG, +OK, -ERR, MSG, HMSG) and the reply subjects of JetStream (`$JS.ACK.…`: stream sequence,
consumer sequence, time). All else becomes an event, for Python to look at.

Fields of a protocol line are separated by single spaces, as nats-server writes them. It lets no space, tab, CR, LF or
NUL into a subject, from MQTT neither (tried with 2.15: such a client is disconnected).
"""

from typing import Final

import numpy as np
from numba import njit

from actors.messages import I4, I8, U1
from daemon.byte_kernels import CR, LF, NINE, ZERO, number, starts, word
from daemon.log.sheet import DOT, SPACE, write_row

EVENTS_MAX: Final = 1024
LINE_MAX: Final = 64 * 1024  # bytes; longer than any INFO or subject

INBOX_SID: Final = 1  # answers to requests and publishes; the log's own subscription is another
LOG_SID: Final = 2
STRANGE_SID: Final = 3  # and above: what others publish to the log's subjects (daemon/log/echo.py)

# Kinds of events
LINE: Final = 0  # INFO, PING, PONG, +OK, -ERR
STATUS: Final = 1  # a message that is only headers: flow control, heartbeat, no responders …
MESSAGE: Final = 2  # any other message to us
STORED: Final = 3  # a publish was stored: TAIL says which, SEQ where
SKIPPED: Final = 4  # the stream has no entries in [EXPECTED, SEQ)
BROKEN: Final = 5  # the consumer's own count has a hole, or the log went back: nothing after it is read

# Columns of an event
KIND: Final = 0
ROW: Final = 1  # entries of the sheet that came before it
LINE_OFF: Final = 2
LINE_LEN: Final = 3
BODY_OFF: Final = 4  # headers and payload
HEADERS_LEN: Final = 5
BODY_LEN: Final = 6  # headers included
SID: Final = 7
TAIL: Final = 8  # the number at the end of the subject, else -1
SEQ: Final = 9
EXPECTED: Final = 10  # of a STORED: 1 where the stream had it before
EVENT_COLUMNS: Final = 11

# The kernel's state
READ: Final = 0  # bytes of the sheet that are done with
ROWS: Final = 1  # entries in the sheet
EVENTS: Final = 2  # events of this call
NEED: Final = 3  # bytes from READ on that the next frame has; 0 = not known yet
ERROR: Final = 4
NEXT_SEQ: Final = 5  # of the stream, expected of the next entry
NEXT_CSEQ: Final = 6  # of the consumer
TIMED: Final = 7  # 1: an entry's own word on its time is taken
STATE: Final = 8

GOOD: Final = 0
MALFORMED: Final = 1


_JS_ACK = word(b"$JS.ACK.")
_VERSION = word(b"NATS/1.0")
_STORED = word(b'{"stream":"')
_SEQ = word(b'"seq":')
_DOUBLED = word(b'"duplicate":true')

QUOTE, LETTER_H = 34, 72
FIELDS_MAX = 6
SIZE_MAX: Final = 1 << 30  # bytes; offsets have 31 bits


@njit(nogil=True)
def fields_of(data: U1, at: int, end: int, fields: I8) -> tuple[int, int]:
    """(where the line's CR is, how many fields it has); the CR is -1 while the line is incomplete."""
    count = 0
    start = at
    i = at
    while i < end:
        c = data[i]
        if c in (SPACE, CR):
            if c == CR and i + 1 == end:
                return -1, 0
            if c == SPACE or data[i + 1] == LF:
                if count < FIELDS_MAX:
                    fields[count, 0] = start
                    fields[count, 1] = i
                count += 1
                start = i + 1
                if c == CR:
                    return i, count
        i += 1
    return -1, 0


@njit(nogil=True)
def _is_message(data: U1, at: int, eol: int, fields: I8) -> bool:
    """MSG or HMSG."""
    h = at + 1 if data[at] == 72 else at
    return fields[0, 1] == h + 3 and eol > h + 3 and data[h] == 77 and data[h + 1] == 83 and data[h + 2] == 71


@njit(nogil=True)
def _is_line(data: U1, at: int, eol: int) -> bool:
    """INFO, PING, PONG, +OK, -ERR: told apart by Python; here only what can't be one of them is malformed."""
    if eol - at < 3:
        return False
    info = data[at] == 73 and data[at + 1] == 78 and data[at + 2] == 70
    ping = data[at] == 80 and (data[at + 1] == 73 or data[at + 1] == 79) and data[at + 2] == 78
    good = data[at] == 43 and data[at + 1] == 79 and data[at + 2] == 75
    bad = data[at] == 45 and data[at + 1] == 69 and data[at + 2] == 82
    return bool(info or ping or good or bad)


@njit(nogil=True)
def _position(data: U1, at: int, end: int, numbers: I8) -> bool:
    """Read stream sequence, consumer sequence and time off `$JS.ACK.…`: 9 tokens, or 11 and 12 with a domain."""
    if not starts(data, at, end, _JS_ACK):
        return False
    dots = 0
    for i in range(at, end):
        dots += data[i] == DOT
    if dots not in (8, 10, 11):
        return False
    wanted = 5 if dots == 8 else 7
    token = 0
    start = at
    for i in range(at, end + 1):
        if i == end or data[i] == DOT:
            if wanted <= token < wanted + 3:
                numbers[token - wanted] = number(data, start, i)
            token += 1
            start = i + 1
    return bool(numbers[0] >= 0 and numbers[1] >= 0 and numbers[2] >= 0)


@njit(nogil=True)
def _in_order(numbers: I8, events: I8, state: I8, at: int, eol: int) -> bool:
    """Whether this entry is the next one. A skip that the server itself made is stated and crossed."""
    seq, cseq = numbers[0], numbers[1]
    if cseq != state[NEXT_CSEQ] or seq < state[NEXT_SEQ]:
        _event(events, state, BROKEN, at, eol - at, eol, 0, 0)
        events[SEQ, state[EVENTS] - 1] = seq
        events[EXPECTED, state[EVENTS] - 1] = state[NEXT_SEQ]
        return False
    if seq != state[NEXT_SEQ]:
        _event(events, state, SKIPPED, at, eol - at, eol, 0, 0)
        events[SEQ, state[EVENTS] - 1] = seq
        events[EXPECTED, state[EVENTS] - 1] = state[NEXT_SEQ]
    state[NEXT_SEQ] = seq + 1
    state[NEXT_CSEQ] = cseq + 1
    return True


@njit(nogil=True)
def _event(events: I8, state: I8, kind: int, at: int, length: int, body: int, skip: int, size: int) -> None:
    k = state[EVENTS]
    events[KIND, k] = kind
    events[ROW, k] = state[ROWS]
    events[LINE_OFF, k] = at
    events[LINE_LEN, k] = length
    events[BODY_OFF, k] = body
    events[HEADERS_LEN, k] = skip
    events[BODY_LEN, k] = size
    events[SID, k] = -1
    events[TAIL, k] = -1
    events[SEQ, k] = -1
    events[EXPECTED, k] = -1
    state[EVENTS] = k + 1


@njit(nogil=True)
def _other(
    data: U1, fields: I8, at: int, eol: int, body: int, skip: int, size: int, sid: int, events: I8, state: I8
) -> None:
    """A message that is no entry of the log: what is it?"""
    tail = fields[1, 1]
    while tail > fields[1, 0] and data[tail - 1] != DOT:
        tail -= 1
    ending = number(data, tail, fields[1, 1])
    seq, doubled = -1, -1
    kind = MESSAGE
    if skip > len(_VERSION) and data[body + len(_VERSION)] == SPACE and starts(data, body, body + skip, _VERSION):
        kind = STATUS
    elif sid == INBOX_SID and ending >= 0 and skip == 0:
        seq = _stored_at(data, body, body + size)
        kind = STORED if seq > 0 else MESSAGE
        doubled = 1 if _has(data, body, body + size, _DOUBLED) else 0
    _event(events, state, kind, at, eol - at, body, skip, size)
    events[SID, state[EVENTS] - 1] = sid
    events[TAIL, state[EVENTS] - 1] = ending
    events[SEQ, state[EVENTS] - 1] = seq
    events[EXPECTED, state[EVENTS] - 1] = doubled


@njit(nogil=True)
def _has(data: U1, at: int, end: int, word: U1) -> bool:
    for i in range(at, end - len(word) + 1):  # noqa: SIM110 - a kernel knows no generators
        if starts(data, i, end, word):
            return True
    return False


@njit(nogil=True)
def _stored_at(data: U1, at: int, end: int) -> int:
    """The sequence in `{"stream":"LOG","seq":17…}`, else -1; a refusal begins with its error instead."""
    if not starts(data, at, end, _STORED):
        return -1
    i = at + len(_STORED)
    while i < end and data[i] != QUOTE:
        i += 1
    i += 1
    while i < end and not starts(data, i, end, _SEQ):
        i += 1
    start = i + len(_SEQ)
    while start < end and data[start] == SPACE:
        start += 1
    stop = start
    while stop < end and ZERO <= data[stop] <= NINE:
        stop += 1
    return number(data, start, stop)


@njit(nogil=True)
def _sizes(data: U1, at: int, fields: I8, found: int) -> tuple[int, int, int]:
    """(length of headers and payload, of the headers, sid) of a message line; the first is -1 if it is malformed."""
    headers = data[at] == LETTER_H
    bare = 5 if headers else 4  # fields without a reply subject
    if found < bare or found > bare + 1:
        return -1, 0, 0
    size = number(data, fields[found - 1, 0], fields[found - 1, 1])
    skip = number(data, fields[found - 2, 0], fields[found - 2, 1]) if headers else 0
    to = number(data, fields[2, 0], fields[2, 1])
    if skip < 0 or skip > size or to < 0 or size > SIZE_MAX:
        return -1, 0, 0
    return size, skip, to


@njit(nogil=True)
def _message(
    data: U1,
    fields: I8,
    found: int,
    at: int,
    eol: int,
    skip: int,
    size: int,
    to: int,
    sid: int,
    numbers: I8,
    longs: I8,
    places: I4,
    bits: U1,
    events: I8,
    state: I8,
) -> bool:
    """An entry of the log becomes a row, another message to us an event. False: an entry that is not the next one."""
    replies = found == (6 if data[at] == LETTER_H else 5)
    if to == sid and replies and _position(data, fields[3, 0], fields[3, 1], numbers):
        if not _in_order(numbers, events, state, at, eol):
            return False
        seq, ts, timed = numbers[0], numbers[2], state[TIMED]
        write_row(data, fields, eol + 2, skip, size, seq, ts, timed, longs, places, bits, state[ROWS])
        state[ROWS] += 1
    elif to in (sid, INBOX_SID) or to >= STRANGE_SID:
        _other(data, fields, at, eol, eol + 2, skip, size, to, events, state)
    return True


# Last, since an explicit signature compiles at import, when all that it calls must exist.
@njit(
    "void(u1[::1], i8, i8, i8[:,::1], i4[:,::1], u1[:,::1], i8[:,::1], i8[::1])",
    nogil=True,
    cache=True,
)
def split(data: U1, end: int, sid: int, longs: I8, places: I4, bits: U1, events: I8, state: I8) -> None:
    """Split data[state[READ]:end]; fill the tables from row state[ROWS] on. `sid`: the log's subscription.

    Stops at an incomplete frame, a full table (call again), a BROKEN event or malformed bytes (state[ERROR]).
    """
    fields = np.empty((FIELDS_MAX, 2), np.int64)  # [field, (start, end)]
    numbers = np.empty(3, np.int64)
    state[EVENTS] = 0
    state[NEED] = 0
    while state[READ] < end and state[ROWS] < longs.shape[1] and state[EVENTS] < events.shape[1]:
        at = state[READ]
        eol, found = fields_of(data, at, end, fields)
        if eol < 0:
            state[ERROR] = MALFORMED if end - at > LINE_MAX else GOOD
            return
        next_at = eol + 2
        if _is_message(data, at, eol, fields):
            size, skip, to = _sizes(data, at, fields, found)
            next_at += size + 2
            if size < 0 or (next_at <= end and (data[next_at - 2] != CR or data[next_at - 1] != LF)):
                state[ERROR] = MALFORMED
                return
            state[NEED] = next_at - at
            if next_at > end or not _message(
                data, fields, found, at, eol, skip, size, to, sid, numbers, longs, places, bits, events, state
            ):
                return
            state[NEED] = 0
        elif _is_line(data, at, eol):
            _event(events, state, LINE, at, eol - at, eol, 0, 0)
        else:
            state[ERROR] = MALFORMED
            return
        state[READ] = next_at
