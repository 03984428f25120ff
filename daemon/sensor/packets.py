"""The headers of MQTT packets in a piece of a byte stream, found by one compiled call; payloads are stepped over.

A row stands for one packet that matters. PUBLISH packets of one topic that follow each other closely share a row, since
only their number and sizes are wanted: so a piece of a hundred publishes costs Python as much as one. Nothing is kept
between calls but how many bytes of the last packet are still to come; a header that is cut off is left unread, with
the number of bytes that it takes to get on.
"""

from typing import Final

import numpy as np
from numba import njit, types

from actors.messages import I8, U1
from daemon.byte_kernels import starts, word

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL = 1, 2, 3, 4, 5, 6
SUBSCRIBE, SUBACK, DISCONNECT = 8, 9, 14

# How a stream is read; a sum of these
DOWN: Final = 1  # from the broker to the client; else from the client
FIVE: Final = 2  # MQTT 5
JUDGED: Final = 4  # rows for what is judged by the packet: SUBSCRIBE whole, PUBREL
SINGLE: Final = 8  # a row for each PUBLISH
REPORTS: Final = 16  # a row for each report of QoS 0 or 1, when it is there whole

# Columns of a row; offsets are from the beginning of the piece
KIND: Final = 0
START: Final = 1
END: Final = 2  # of the packet; may lie behind the piece
TEXT: Final = 3  # PUBLISH: the topic; SUBSCRIBE: the packet's body
TEXT_LEN: Final = 4
COUNT: Final = 5
SIZE: Final = 6  # of all payloads
SIZE_MIN: Final = 7
SIZE_MAX: Final = 8
QOS: Final = 9
PACKET_ID: Final = 10
CODE: Final = 11  # a reason; SUBACK: how many filters were refused
ALIAS: Final = 12  # MQTT 5; 0 = none
REPORT: Final = 13  # 1: a PUBLISH that is one report, whole
COLUMNS: Final = 14
ROWS_MAX: Final = 256

HEAD_MAX: Final = 160 * 1024
"""Bytes of a PUBLISH before its payload, and of a SUBSCRIBE that is judged: a topic has up to 65 535."""
REPORT_MAX: Final = HEAD_MAX
"""Bytes of a report's packet; a longer one is a PUBLISH like any other. The largest that is judged has 128 KiB."""
SUBACK_MAX: Final = 64 * 1024  # a longer one is passed on unread

# Instead of the bytes needed
MALFORMED: Final = -1
TOO_LONG: Final = -2

NAME_MAX: Final = 128  # of a thing
_THINGS: Final = word(b"$aws/things/")
_JSON: Final = word(b"/defender/metrics/json")
_CBOR: Final = word(b"/defender/metrics/cbor")

LOOK_BACK: Final = 4  # rows among which a topic is looked for
TOPIC_ALIAS: Final = 0x23
FIVE_NUMBERS = types.UniTuple(types.int64, 5)  # type: ignore[no-untyped-call]  # numba has no types
READ_ONLY = types.Array(types.uint8, 1, "C", readonly=True)


@njit(nogil=True)
def _byte(data: U1, at: int) -> int:
    """Signed: numba makes a float of the sum of an int64 and a uint64."""
    return int(np.int64(data[at]))


@njit(nogil=True)
def _length(data: U1, at: int, end: int) -> tuple[int, int]:
    """(a length of one to four bytes, where it ends); -1: cut off; -2: five bytes or more, which is none."""
    value = 0
    for i in range(4):
        if at + i >= end:
            return -1, at
        byte = _byte(data, at + i)
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, at + i + 1
    return -2, at


@njit(nogil=True)
def _short(data: U1, at: int) -> int:
    return (_byte(data, at) << 8) | _byte(data, at + 1)


@njit(nogil=True)
def _size_of(kind: int) -> int:  # noqa: PLR0911 - a table
    """Bytes of an MQTT 5 property's value; -1: a string; -2: two; -3: a number of variable length; 0: unknown."""
    if kind in (0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A):
        return 1
    if kind in (0x13, 0x21, 0x22, 0x23):
        return 2
    if kind in (0x02, 0x11, 0x18, 0x27):
        return 4
    if kind == 0x0B:
        return -3
    if kind == 0x26:
        return -2
    if kind in (0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F):
        return -1
    return 0


@njit(nogil=True)
def _alias(data: U1, at: int, end: int) -> int:
    """The topic alias among the properties in [at, end), 0 without one; -1 where they can't be read."""
    found = 0
    while at < end:
        kind = _byte(data, at)
        size = _size_of(kind)
        at += 1
        if size == 0:
            return -1
        if size == -3:
            value, at = _length(data, at, end)
            if value < 0:
                return -1
        elif size > 0:
            if at + size > end:
                return -1
            if kind == TOPIC_ALIAS:
                found = _short(data, at)
                if found == 0:
                    return -1
            at += size
        else:
            for _ in range(-size):
                if at + 2 > end:
                    return -1
                at += 2 + _short(data, at)
    return found if at == end else -1


@njit(nogil=True)
def _same(data: U1, at: int, other: int, length: int) -> bool:
    for i in range(length):  # noqa: SIM110 - a kernel knows no generators
        if data[at + i] != data[other + i]:
            return False
    return True


@njit(nogil=True)
def _is_report(data: U1, at: int, length: int) -> bool:
    """Whether this topic is one that reports come on, of a thing whose name AWS would take."""
    end = at + length
    name, stop = at + len(_THINGS), end - len(_JSON)
    if not 1 <= stop - name <= NAME_MAX or not starts(data, at, end, _THINGS):
        return False
    if not (starts(data, stop, end, _JSON) or starts(data, stop, end, _CBOR)):
        return False
    for i in range(name, stop):
        c = data[i]
        if not (97 <= c <= 122 or 65 <= c <= 90 or 48 <= c <= 58 or c in (95, 45)):  # a-z A-Z 0-9 : _ -
            return False
    return True


@njit(nogil=True)
def _row(rows: I8, row: int, kind: int, start: int, end: int) -> None:
    for column in range(COLUMNS):
        rows[row, column] = 0
    rows[row, KIND] = kind
    rows[row, START] = start
    rows[row, END] = end
    rows[row, COUNT] = 1


@njit(nogil=True)
def _publish(  # noqa: PLR0911 - a kernel
    data: U1, start: int, body: int, end: int, mode: int, rows: I8, count: int
) -> tuple[int, int]:
    """(rows after this packet, 0); without progress (count, bytes of the packet that are needed, or an error)."""
    n = len(data)
    if end - body < 2:
        return count, MALFORMED
    if body + 2 > n:
        return count, body + 2 - start
    qos = (_byte(data, start) >> 1) & 3
    text = body + 2
    length = _short(data, body)
    after = text + length
    head = after + (2 if qos > 0 else 0)
    if head > end or qos == 3:
        return count, MALFORMED
    alias = 0
    if mode & FIVE:
        if head + 1 > end:
            return count, MALFORMED
        size, properties = _length(data, head, min(n, end))
        if size == -2 or (size == -1 and end <= n):
            return count, MALFORMED
        if size == -1:
            return count, n + 1 - start
        head = properties + size
        if head > end:
            return count, MALFORMED
        if head - start > HEAD_MAX:
            return count, TOO_LONG
        if head > n:
            return count, head - start
        alias = _alias(data, properties, head)
        if alias < 0:
            return count, MALFORMED
    if head > n:
        return count, head - start
    if length == 0 and alias == 0:
        return count, MALFORMED
    payload = end - head
    packet_id = _short(data, after) if qos > 0 else 0
    report = bool(mode & REPORTS) and qos < 2 and end - start <= REPORT_MAX and _is_report(data, text, length)
    if qos == 1 and packet_id == 0:  # which is no MQTT: the broker's to judge
        report = False
    if report and end > n:
        return count, end - start
    if not (mode & SINGLE or report):
        for i in range(count - 1, max(-1, count - 1 - LOOK_BACK), -1):
            if (
                rows[i, KIND] == PUBLISH
                and rows[i, REPORT] == 0
                and rows[i, TEXT_LEN] == length
                and rows[i, ALIAS] == alias
                and (alias == 0 or length == 0)
                and _same(data, text, rows[i, TEXT], length)
            ):
                rows[i, COUNT] += 1
                rows[i, SIZE] += payload
                rows[i, SIZE_MIN] = min(rows[i, SIZE_MIN], payload)
                rows[i, SIZE_MAX] = max(rows[i, SIZE_MAX], payload)
                return count, 0
    _row(rows, count, PUBLISH, start, end)
    rows[count, TEXT] = text
    rows[count, TEXT_LEN] = length
    rows[count, SIZE] = payload
    rows[count, SIZE_MIN] = payload
    rows[count, SIZE_MAX] = payload
    rows[count, QOS] = qos
    rows[count, PACKET_ID] = packet_id
    rows[count, ALIAS] = alias
    rows[count, REPORT] = 1 if report else 0
    return count + 1, 0


@njit(nogil=True)
def _is_refusal(code: int) -> bool:
    """MQTT 5: the other reasons speak of wrong filters, of numbers in use, of what the broker can't do."""
    return code in (0x80, 0x83, 0x87)


@njit(nogil=True)
def _refusals(data: U1, body: int, end: int, mode: int) -> int:
    """Filters that a SUBACK refuses; -1 where it can't be read."""
    at = body + 2
    if at > end:
        return -1
    if mode & FIVE:
        size, at = _length(data, at, end)
        if size < 0 or at + size > end:
            return -1
        at += size
    refused = 0
    for i in range(at, end):
        refused += _is_refusal(data[i]) if mode & FIVE else data[i] >= 0x80
    return refused


@njit(nogil=True)
def _wanted(kind: int, mode: int) -> bool:
    """Whether a packet that is no PUBLISH is to be seen whole."""
    if mode & DOWN:
        acknowledged = kind in (PUBACK, PUBREC) and mode & FIVE
        return kind in (CONNACK, SUBACK, DISCONNECT) or bool(acknowledged)
    return kind in (CONNECT, DISCONNECT) or bool(mode & JUDGED and kind in (SUBSCRIBE, PUBREL))


@njit(nogil=True)
def _other(  # noqa: PLR0911 - a kernel
    data: U1, kind: int, start: int, body: int, end: int, mode: int, rows: I8, count: int
) -> tuple[int, int]:
    """As `_publish`, for another packet that is wanted."""
    if kind == SUBACK and end - start > SUBACK_MAX:
        return count, 0
    if end - start > HEAD_MAX or kind == CONNECT:
        return count, TOO_LONG if kind != CONNECT else MALFORMED
    if end > len(data):
        return count, end - start
    size = end - body
    code = 0
    if kind == CONNACK or (kind in (PUBACK, PUBREC) and size > 2):
        code = _byte(data, body + (1 if kind == CONNACK else 2)) if size >= 2 else -1
    elif kind == DISCONNECT and size > 0:
        code = _byte(data, body)
    elif kind == SUBACK:
        code = _refusals(data, body, end, mode)
    if code < 0 or (kind in (PUBACK, PUBREC, PUBREL, SUBSCRIBE) and size < 2):
        return count, MALFORMED
    if kind in (PUBACK, PUBREC) and not _is_refusal(code):
        return count, 0
    if kind == SUBACK and code == 0:
        return count, 0
    _row(rows, count, kind, start, end)
    rows[count, TEXT] = body
    rows[count, TEXT_LEN] = size
    rows[count, CODE] = code
    rows[count, PACKET_ID] = _short(data, body) if kind in (PUBACK, PUBREC, PUBREL, SUBSCRIBE, SUBACK) else 0
    return count + 1, 0


# Last, since an explicit signature compiles at import, when all that it calls must exist.
@njit(
    FIVE_NUMBERS(READ_ONLY, types.int64, types.int64, types.int64, types.int64[:, ::1]),
    nogil=True,
    cache=True,
)
def scan(data: U1, at: int, skip: int, mode: int, rows: I8) -> tuple[int, int, int, int, int]:
    """Read data[at:], the first `skip` bytes of which belong to a packet that was seen before.

    (bytes of `data` that are done with, bytes of the last packet that are still to come, rows, need, edge).
    need: 0; or the bytes that the packet at `done` must have before it can be read; or MALFORMED, TOO_LONG.
    edge: where the last packet ends that ends in `data[at:]` or where the one begins that doesn't; -1: neither does.
    Stops at a full table, too: call again from `done` with a skip of 0.
    """
    n = len(data)
    count = 0
    edge = -1
    step = min(skip, n - at)
    at += step
    skip -= step
    if skip == 0:
        edge = at
    while at < n and skip == 0 and count < rows.shape[0]:
        edge = at
        kind = _byte(data, at) >> 4
        size, body = _length(data, at + 1, n)
        if kind == 0 or size == -2:
            return at, 0, count, MALFORMED, edge
        if size == -1:
            return at, 0, count, n + 1 - at, edge
        end = body + size
        need = 0
        if kind == PUBLISH:
            count, need = _publish(data, at, body, end, mode, rows, count)
        elif _wanted(kind, mode):
            count, need = _other(data, kind, at, body, end, mode, rows, count)
        if need != 0:
            return at, 0, count, need, edge
        skip = max(0, end - n)
        at = min(end, n)
        if skip == 0:
            edge = at
    return at, skip, count, 0, edge
