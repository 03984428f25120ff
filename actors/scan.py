"""Reports in JSON, read by one compiled call per batch: accepted into columns, or deferred to `actors.report`.

The kernel never rejects. What it accepts the reference accepts too, with the same columns; what is not plainly right
(an unknown or repeated key, both spellings of one, an escape, text that is not ASCII, a number that needs more than
15 digits, a custom metric that is a list) it leaves to the reference. It reads nothing outside a report's payload.

Functions that read take where to start and say where they stopped; -1 = deferred (`actors.json_kernels`).
"""

from typing import Any, Final

import numpy as np

from actors.address_kernels import PORT_MAX, remote
from actors.custom_names import column_at
from actors.json_kernels import (
    CLOSE,
    CLOSE_LIST,
    DOT,
    OPEN,
    OPEN_LIST,
    QUOTE,
    Bytes,
    byte_at,
    colon,
    decimal,
    digits_end,
    enter,
    further,
    integer,
    njit_inner,
    njit_typed,
    pointer,
    space,
    string_end,
    wide,
    word_at,
)
from actors.messages import ABSENT, CONTROL, I4, I8, REPORT_JSON, U1, U8
from actors.report_keys import (
    CONNECTION,
    COUNTERS,
    CUSTOM,
    ESTABLISHED,
    HEADER,
    LISTENING,
    METRICS,
    PORT,
    ROOT,
    TCP,
    key_at,
)

DEFERRED: Final = 2  # in `ok`, until the reference has decided

# The sets that the kernel fills, in the order of every schema
TCP_PORTS, UDP_PORTS, ADDRESSES, SETS = 0, 1, 2, 3
START, COUNT = 0, 1  # of places[set]
HI, LO = 0, 1  # of elements[set]

# Scalar columns, in the order of every schema; the four counters are 0-3, as their keys
TCP_TOTAL, UDP_TOTAL, ESTABLISHED_TOTAL = 4, 5, 6

# tally: elements used of each set, then
IGNORED, DEFERRALS, FULL, TALLY = 3, 4, 5, 6


@njit_inner
def _clear(entry: int, report_id: I8, scalars: I8, places: I4) -> None:
    report_id[entry] = ABSENT
    for column in range(scalars.shape[1]):
        scalars[entry, column] = ABSENT
    for which in range(SETS):
        places[which, START, entry] = 0
        places[which, COUNT, entry] = -1


@njit_inner
def _report(
    data: Bytes, at: int, end: int, entry: int, names: U1, slots: I4,
    report_id: I8, scalars: I8, places: I4, elements: U8, tally: I8,
) -> int:  # fmt: skip
    seen = 0
    at, more = enter(data, space(data, at, end), end, OPEN)
    while more:
        key, at = key_at(data, at, end, ROOT)
        if key < 0 or seen >> key & 1:
            return -1
        seen |= 1 << key
        if key == 0:
            report_id[entry], at = _header(data, at, end)
        elif key == 1:
            at = _metrics(data, at, end, entry, scalars, places, elements, tally)
        else:
            at = _customs(data, at, end, entry, names, slots, scalars, tally)
        at, more = further(data, at, end, CLOSE)
    return at if seen & 1 and seen > 1 else -1


@njit_inner
def _header(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(report id, where it stopped)."""
    seen = value = 0
    at, more = enter(data, at, end, OPEN)
    while more:
        key, at = key_at(data, at, end, HEADER)
        if key < 0 or seen >> key & 1:
            return 0, -1
        seen |= 1 << key
        if key == 0:
            value, at = integer(data, at, end)
        else:
            at = _version(data, at, end)
        at, more = further(data, at, end, CLOSE)
    return (value, at) if seen == 3 and value > 0 else (ABSENT, -1)


@njit_inner
def _version(data: Bytes, at: int, end: int) -> int:
    if byte_at(data, at, end) != QUOTE:
        return -1
    dot = digits_end(data, at + 1, end)
    stop = digits_end(data, dot + 1, end)
    if not (1 <= dot - at - 1 <= 9 and 1 <= stop - dot - 1 <= 9):
        return -1
    return stop + 1 if byte_at(data, dot, end) == DOT and byte_at(data, stop, end) == QUOTE else -1


@njit_inner
def _metrics(data: Bytes, at: int, end: int, entry: int, scalars: I8, places: I4, elements: U8, tally: I8) -> int:
    seen = 0
    at, more = enter(data, at, end, OPEN)
    while more:
        key, at = key_at(data, at, end, METRICS)
        if key < 0 or seen >> key & 1:
            return -1
        seen |= 1 << key
        if key <= 1:
            at = _listening(data, at, end, entry, key, scalars, places, elements, tally)
        elif key == 2:
            at = _connected(data, at, end, entry, scalars, places, elements, tally)
        else:
            at = _counters(data, at, end, entry, scalars)
        at, more = further(data, at, end, CLOSE)
    return at if seen else -1  # whether an empty one is enough depends on the custom metrics


@njit_inner
def _counters(data: Bytes, at: int, end: int, entry: int, scalars: I8) -> int:
    at, more = enter(data, at, end, OPEN)
    while more:
        key, at = key_at(data, at, end, COUNTERS)
        if key < 0 or scalars[entry, key] != ABSENT:
            return -1
        scalars[entry, key], at = integer(data, at, end)
        at, more = further(data, at, end, CLOSE)
    return at


@njit_inner
def _listening(
    data: Bytes, at: int, end: int, entry: int, which: int, scalars: I8, places: I4, elements: U8, tally: I8
) -> int:
    """A block of listening ports: `which` is TCP_PORTS or UDP_PORTS."""
    total = ABSENT
    at, more = enter(data, at, end, OPEN)
    while more:
        key, at = key_at(data, at, end, LISTENING)
        if key == 0 and places[which, COUNT, entry] < 0:
            at = _ports(data, at, end, entry, which, places, elements, tally)
        elif key == 1 and total == ABSENT:
            total, at = integer(data, at, end)
        else:
            return -1
        at, more = further(data, at, end, CLOSE)
    if total == ABSENT and places[which, COUNT, entry] >= 0:
        total = places[which, COUNT, entry]
    scalars[entry, TCP_TOTAL + which] = total
    return at


@njit_inner
def _ports(data: Bytes, at: int, end: int, entry: int, which: int, places: I4, elements: U8, tally: I8) -> int:
    first = used = tally[which]
    at, more = enter(data, at, end, OPEN_LIST)
    while more:
        port, at = _port(data, at, end)
        if at < 0:
            return -1
        if used >= elements.shape[2]:
            tally[FULL] = 1
            return -1
        elements[which, HI, used] = 0
        elements[which, LO, used] = port
        used += 1
        at, more = further(data, at, end, CLOSE_LIST)
    _place(which, entry, first, used, places, tally)
    return at


@njit_inner
def _place(which: int, entry: int, first: int, used: int, places: I4, tally: I8) -> None:
    places[which, START, entry] = first
    places[which, COUNT, entry] = used - first
    tally[which] = used


@njit_inner
def _port(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(port, where it stopped)."""
    seen = port = 0
    at, more = enter(data, at, end, OPEN)
    while more:
        key, at = key_at(data, at, end, PORT)
        if key < 0 or seen >> key & 1:
            return 0, -1
        seen |= 1 << key
        if key == 0:
            port, at = integer(data, at, end)
        else:
            at = _interface(data, at, end)
        at, more = further(data, at, end, CLOSE)
    return (port, at) if 1 <= port <= PORT_MAX else (0, -1)


@njit_inner
def _connected(data: Bytes, at: int, end: int, entry: int, scalars: I8, places: I4, elements: U8, tally: I8) -> int:
    """The block `tcp_connections`: an object around the one of the established connections."""
    seen = False
    at, more = enter(data, at, end, OPEN)
    while more:
        key, at = key_at(data, at, end, TCP)
        if key < 0 or seen:
            return -1
        seen = True
        at = _established(data, at, end, entry, scalars, places, elements, tally)
        at, more = further(data, at, end, CLOSE)
    return at


@njit_inner
def _established(data: Bytes, at: int, end: int, entry: int, scalars: I8, places: I4, elements: U8, tally: I8) -> int:
    total = ABSENT
    at, more = enter(data, at, end, OPEN)
    while more:
        key, at = key_at(data, at, end, ESTABLISHED)
        if key == 0 and places[ADDRESSES, COUNT, entry] < 0:
            at = _connections(data, at, end, entry, places, elements, tally)
        elif key == 1 and total == ABSENT:
            total, at = integer(data, at, end)
        else:
            return -1
        at, more = further(data, at, end, CLOSE)
    if total == ABSENT and places[ADDRESSES, COUNT, entry] >= 0:
        total = places[ADDRESSES, COUNT, entry]
    scalars[entry, ESTABLISHED_TOTAL] = total
    return at


@njit_inner
def _connections(data: Bytes, at: int, end: int, entry: int, places: I4, elements: U8, tally: I8) -> int:
    first = used = tally[ADDRESSES]
    at, more = enter(data, at, end, OPEN_LIST)
    while more:
        hi, lo, at = _connection(data, at, end)
        if at < 0:
            return -1
        if used >= elements.shape[2]:
            tally[FULL] = 1
            return -1
        elements[ADDRESSES, HI, used] = hi
        elements[ADDRESSES, LO, used] = lo
        used += 1
        at, more = further(data, at, end, CLOSE_LIST)
    _place(ADDRESSES, entry, first, used, places, tally)
    return at


@njit_inner
def _connection(data: Bytes, at: int, end: int) -> tuple[Any, Any, int]:
    """(hi, lo) of the remote address, and where it stopped."""
    seen = 0
    hi = lo = np.uint64(0)
    at, more = enter(data, at, end, OPEN)
    while more:
        key, at = key_at(data, at, end, CONNECTION)
        if key < 0 or seen >> key & 1:
            return hi, lo, -1
        seen |= 1 << key
        if key == 0:
            hi, lo, at = remote(data, at, end)
        elif key == 1:
            _, at = integer(data, at, end)
        else:
            at = _interface(data, at, end)
        at, more = further(data, at, end, CLOSE)
    return hi, lo, at if seen & 1 else -1


@njit_inner
def _interface(data: Bytes, at: int, end: int) -> int:
    if byte_at(data, at, end) == 110:
        return at + 4 if word_at(data, at, end) & np.uint64(0xFFFF_FFFF) == np.uint64(0x6C6C_756E) else -1  # null
    stopped: int = string_end(data, at, end)
    return stopped


@njit_inner
def _customs(data: Bytes, at: int, end: int, entry: int, names: U1, slots: I4, scalars: I8, tally: I8) -> int:
    """Metrics of the form `"name": [{"number": 1.5}]`. One that is not defined is counted; two could be the same."""
    members = unknown = 0
    at, more = enter(data, at, end, OPEN)
    while more:
        stop = string_end(data, at, end)
        if stop < 0:
            return -1
        column = column_at(data, at + 1, stop - 1, names, slots)
        at = colon(data, stop, end)
        value, at = _custom(data, at, end)
        if column < 0:
            unknown += 1
            tally[IGNORED] += 1
        elif scalars[entry, column] == ABSENT:
            scalars[entry, column] = value
        else:
            return -1
        members += 1
        at, more = further(data, at, end, CLOSE)
    return at if members and unknown <= 1 else -1


@njit_inner
def _custom(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(`key_of` the number in `[{"number": 1.5}]`, where it stopped)."""
    value, more = 0, False
    if at >= 0:
        at, more = enter(data, at, end, OPEN_LIST)
    if more:
        at, more = enter(data, at, end, OPEN)
    if not more:
        return 0, -1
    key, at = key_at(data, at, end, CUSTOM)
    if key < 0:
        return 0, -1
    value, at = decimal(data, at, end)
    at, more = further(data, at, end, CLOSE)
    if more or at < 0:
        return 0, -1
    at, more = further(data, at, end, CLOSE_LIST)
    return (value, -1) if more else (value, at)


@njit_typed(
    "i8(u1[::1],u1[::1],i4[::1],i4[::1],i8,i8,u1[::1],i4[:,::1],"
    "u1[::1],i8[::1],i8[:,::1],i4[:,:,::1],u8[:,:,::1],i8[::1])",
    nogil=True,
    cache=True,
    _nrt=False,
)
def scan(
    data: U1, kind: U1, payload_off: I4, payload_len: I4, first: int, payload_bytes_max: int, names: U1, slots: I4,
    ok: U1, report_id: I8, scalars: I8, places: I4, elements: U8, tally: I8,
) -> int:  # fmt: skip
    """Read entries from `first` on; returns where it stopped: len(kind), or an entry for which `elements` is full.

    ok, report_id [n], scalars [n, c], places [SETS, 2, n] and tally [TALLY] are filled; elements [SETS, 2, capacity].
    """
    text = pointer(data)
    for entry in range(first, len(kind)):
        ok[entry] = 0
        _clear(entry, report_id, scalars, places)
        if kind[entry] == CONTROL:
            continue
        tcp, udp, addresses, ignored = tally[TCP_PORTS], tally[UDP_PORTS], tally[ADDRESSES], tally[IGNORED]
        at = wide(payload_off[entry])
        end = at + payload_len[entry]
        if kind[entry] == REPORT_JSON and end - at <= payload_bytes_max:
            stopped = _report(text, at, end, entry, names, slots, report_id, scalars, places, elements, tally)
            if stopped >= 0 and space(text, stopped, end) == end:
                ok[entry] = 1
                continue
            _clear(entry, report_id, scalars, places)
            tally[TCP_PORTS], tally[UDP_PORTS], tally[ADDRESSES], tally[IGNORED] = tcp, udp, addresses, ignored
            if tally[FULL]:
                tally[FULL] = 0
                return entry
        ok[entry] = DEFERRED
        tally[DEFERRALS] += 1
    return len(kind)
