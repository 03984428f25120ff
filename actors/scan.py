"""Reports in JSON, read by one compiled call per batch: accepted into columns, or deferred to `actors.report`.

The kernel never rejects. What it accepts the reference accepts too, with the same columns; what is not plainly right
(an unknown or repeated key, both spellings of one, an escape, text that is not ASCII, a number that needs more than
15 digits, a custom metric that is a list) it leaves to the reference. It reads nothing outside a report's payload.

Positions: functions that read take where to start and say where they stopped; -1 = deferred. `end` is the payload's.
`data` is a pointer in all of them: an array is seven words to hand over. Nothing is allocated, so nothing needs to be
counted (`_nrt`): the counting of arrays at every call took half of the time.
"""

from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from actors.messages import ABSENT, CONTROL, I4, I8, REPORT_JSON, U1, U8
from actors.numbers import compiled_key_of

DEFERRED: Final = 2  # in `ok`, until the reference has decided

# The sets that the kernel fills, in the order of every schema
TCP_PORTS, UDP_PORTS, ADDRESSES, SETS = 0, 1, 2, 3
START, COUNT = 0, 1  # of places[set]
HI, LO = 0, 1  # of elements[set]

# Scalar columns, in the order of every schema; the four counters are 0-3, as their keys
TCP_TOTAL, UDP_TOTAL, ESTABLISHED_TOTAL = 4, 5, 6

# tally: elements used of each set, then
IGNORED, DEFERRALS, FULL, TALLY = 3, 4, 5, 6

QUOTE, COMMA, COLON, DOT, MINUS, PLUS, ZERO = 34, 44, 58, 46, 45, 43, 48
OPEN_LIST, CLOSE_LIST, OPEN, CLOSE = 91, 93, 123, 125

PORT_MAX: Final = 65_535
DIGITS_MAX: Final = 15  # a decimal of so many digits, scaled by at most 10^22, is one exact division or product
SCALE_MAX: Final = 22
INTEGER_DIGITS_MAX: Final = 18  # they always fit an int64
_POWERS = np.array([10.0**i for i in range(SCALE_MAX + 1)])

_KEYS: Final = (
    (("header", "hed"), ("metrics", "met"), ("custom_metrics", "cmet")),
    (("report_id", "rid"), ("version", "v")),
    (("listening_tcp_ports", "tp"), ("listening_udp_ports", "up"), ("tcp_connections", "tc"), ("network_stats", "ns")),
    (("bytes_in", "bi"), ("bytes_out", "bo"), ("packets_in", "pi"), ("packets_out", "po")),
    (("ports", "pts"), ("total", "t")),
    (("port", "pt"), ("interface", "if")),
    (("established_connections", "ec"),),
    (("connections", "cs"), ("total", "t")),
    (("remote_addr", "rad"), ("local_port", "lp"), ("local_interface", "li")),
    (("number",),),
)
# The objects, by their place in _KEYS. Keys of an object are numbered as they stand there.
# Not plain ints: the compiler would make a `_key` for each of these.
ROOT, HEADER, METRICS, COUNTERS, LISTENING, PORT, TCP, ESTABLISHED, CONNECTION, CUSTOM = map(np.int64, range(10))

_WORDS_MAX: Final = 3  # of 8 bytes, for the longest key with its closing quote


def _key_tables() -> tuple[U8, U8, I8, I8]:
    """(words, masks [spelling, _WORDS_MAX], (bytes, key) [spelling, 2], first spelling [object + 1])."""
    words, masks, meanings, firsts = [], [], [], [0]
    for keys in _KEYS:
        for number, spellings in enumerate(keys):
            for spelling in spellings:
                text = spelling.encode() + b'"'
                words.append(np.frombuffer(text.ljust(8 * _WORDS_MAX, b"\0"), "<u8"))
                masks.append(np.frombuffer((b"\xff" * len(text)).ljust(8 * _WORDS_MAX, b"\0"), "<u8"))
                meanings.append((len(text), number))
        firsts.append(len(words))
    return np.array(words, np.uint64), np.array(masks, np.uint64), np.array(meanings), np.array(firsts)


_njit: Any = njit  # numba's types do not know `_nrt`
_njit_inner = _njit(nogil=True, _nrt=False)

Bytes = Any  # a pointer to the bytes of `data`, in compiled code only

_WORDS, _MASKS, _MEANINGS, _FIRSTS = _key_tables()
_BYTE = np.uint64(8)
_ONES = np.uint64(0x0101_0101_0101_0101)
_HIGHS = np.uint64(0x8080_8080_8080_8080)
_SPACES = np.uint64(0x2020_2020_2020_2020)
_QUOTES = np.uint64(0x2222_2222_2222_2222)
_BACKSLASHES = np.uint64(0x5C5C_5C5C_5C5C_5C5C)


class Names:
    """Custom metrics that are numbers, by name: an open-addressing table that the kernel searches.

    text [bytes] the names; slots [power of two, 3] (offset, length, scalar column); length 0 = a free slot.
    """

    def __init__(self, columns: dict[str, int]) -> None:
        size = 4
        while size < 2 * len(columns):
            size *= 2
        text = bytearray()
        self.slots: I4 = np.zeros((size, 3), np.int32)
        for name, column in columns.items():
            slot = _hash(name.encode()) & (size - 1)
            while self.slots[slot, 1]:
                slot = (slot + 1) & (size - 1)
            self.slots[slot] = len(text), len(name.encode()), column
            text += name.encode()
        self.text: U1 = np.frombuffer(text or bytearray(1), np.uint8)


def _hash(name: bytes) -> int:
    value = 0
    for byte in name:
        value = (value * 31 + byte) & 0xFFFF_FFFF
    return value


@_njit_inner
def _clear(entry: int, report_id: I8, scalars: I8, places: I4) -> None:
    report_id[entry] = ABSENT
    for column in range(scalars.shape[1]):
        scalars[entry, column] = ABSENT
    for which in range(SETS):
        places[which, START, entry] = 0
        places[which, COUNT, entry] = -1


@_njit_inner
def _report(
    data: Bytes, at: int, end: int, entry: int, names: U1, slots: I4,
    report_id: I8, scalars: I8, places: I4, elements: U8, tally: I8,
) -> int:  # fmt: skip
    seen = 0
    at, more = _enter(data, _space(data, at, end), end, OPEN)
    while more:
        key, at = _key(data, at, end, ROOT)
        if key < 0 or seen >> key & 1:
            return -1
        seen |= 1 << key
        if key == 0:
            report_id[entry], at = _header(data, at, end)
        elif key == 1:
            at = _metrics(data, at, end, entry, scalars, places, elements, tally)
        else:
            at = _customs(data, at, end, entry, names, slots, scalars, tally)
        at, more = _further(data, at, end, CLOSE)
    return at if seen & 1 and seen > 1 else -1


@_njit_inner
def _header(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(report id, where it stopped)."""
    seen = value = 0
    at, more = _enter(data, at, end, OPEN)
    while more:
        key, at = _key(data, at, end, HEADER)
        if key < 0 or seen >> key & 1:
            return 0, -1
        seen |= 1 << key
        if key == 0:
            value, at = _integer(data, at, end)
        else:
            at = _version(data, at, end)
        at, more = _further(data, at, end, CLOSE)
    return (value, at) if seen == 3 and value > 0 else (ABSENT, -1)


@_njit_inner
def _version(data: Bytes, at: int, end: int) -> int:
    if _byte(data, at, end) != QUOTE:
        return -1
    dot = _digits_end(data, at + 1, end)
    stop = _digits_end(data, dot + 1, end)
    if not (1 <= dot - at - 1 <= 9 and 1 <= stop - dot - 1 <= 9):
        return -1
    return stop + 1 if _byte(data, dot, end) == DOT and _byte(data, stop, end) == QUOTE else -1


@_njit_inner
def _metrics(data: Bytes, at: int, end: int, entry: int, scalars: I8, places: I4, elements: U8, tally: I8) -> int:
    seen = 0
    at, more = _enter(data, at, end, OPEN)
    while more:
        key, at = _key(data, at, end, METRICS)
        if key < 0 or seen >> key & 1:
            return -1
        seen |= 1 << key
        if key <= 1:
            at = _listening(data, at, end, entry, key, scalars, places, elements, tally)
        elif key == 2:
            at = _connected(data, at, end, entry, scalars, places, elements, tally)
        else:
            at = _counters(data, at, end, entry, scalars)
        at, more = _further(data, at, end, CLOSE)
    return at if seen else -1  # whether an empty one is enough depends on the custom metrics


@_njit_inner
def _counters(data: Bytes, at: int, end: int, entry: int, scalars: I8) -> int:
    at, more = _enter(data, at, end, OPEN)
    while more:
        key, at = _key(data, at, end, COUNTERS)
        if key < 0 or scalars[entry, key] != ABSENT:
            return -1
        scalars[entry, key], at = _integer(data, at, end)
        at, more = _further(data, at, end, CLOSE)
    return at


@_njit_inner
def _listening(
    data: Bytes, at: int, end: int, entry: int, which: int, scalars: I8, places: I4, elements: U8, tally: I8
) -> int:
    """A block of listening ports: `which` is TCP_PORTS or UDP_PORTS."""
    total = ABSENT
    at, more = _enter(data, at, end, OPEN)
    while more:
        key, at = _key(data, at, end, LISTENING)
        if key == 0 and places[which, COUNT, entry] < 0:
            at = _ports(data, at, end, entry, which, places, elements, tally)
        elif key == 1 and total == ABSENT:
            total, at = _integer(data, at, end)
        else:
            return -1
        at, more = _further(data, at, end, CLOSE)
    if total == ABSENT and places[which, COUNT, entry] >= 0:
        total = places[which, COUNT, entry]
    scalars[entry, TCP_TOTAL + which] = total
    return at


@_njit_inner
def _ports(data: Bytes, at: int, end: int, entry: int, which: int, places: I4, elements: U8, tally: I8) -> int:
    first = used = tally[which]
    at, more = _enter(data, at, end, OPEN_LIST)
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
        at, more = _further(data, at, end, CLOSE_LIST)
    _place(which, entry, first, used, places, tally)
    return at


@_njit_inner
def _place(which: int, entry: int, first: int, used: int, places: I4, tally: I8) -> None:
    places[which, START, entry] = first
    places[which, COUNT, entry] = used - first
    tally[which] = used


@_njit_inner
def _port(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(port, where it stopped)."""
    seen = port = 0
    at, more = _enter(data, at, end, OPEN)
    while more:
        key, at = _key(data, at, end, PORT)
        if key < 0 or seen >> key & 1:
            return 0, -1
        seen |= 1 << key
        if key == 0:
            port, at = _integer(data, at, end)
        else:
            at = _interface(data, at, end)
        at, more = _further(data, at, end, CLOSE)
    return (port, at) if 1 <= port <= PORT_MAX else (0, -1)


@_njit_inner
def _connected(data: Bytes, at: int, end: int, entry: int, scalars: I8, places: I4, elements: U8, tally: I8) -> int:
    """The block `tcp_connections`: an object around the one of the established connections."""
    seen = False
    at, more = _enter(data, at, end, OPEN)
    while more:
        key, at = _key(data, at, end, TCP)
        if key < 0 or seen:
            return -1
        seen = True
        at = _established(data, at, end, entry, scalars, places, elements, tally)
        at, more = _further(data, at, end, CLOSE)
    return at


@_njit_inner
def _established(data: Bytes, at: int, end: int, entry: int, scalars: I8, places: I4, elements: U8, tally: I8) -> int:
    total = ABSENT
    at, more = _enter(data, at, end, OPEN)
    while more:
        key, at = _key(data, at, end, ESTABLISHED)
        if key == 0 and places[ADDRESSES, COUNT, entry] < 0:
            at = _connections(data, at, end, entry, places, elements, tally)
        elif key == 1 and total == ABSENT:
            total, at = _integer(data, at, end)
        else:
            return -1
        at, more = _further(data, at, end, CLOSE)
    if total == ABSENT and places[ADDRESSES, COUNT, entry] >= 0:
        total = places[ADDRESSES, COUNT, entry]
    scalars[entry, ESTABLISHED_TOTAL] = total
    return at


@_njit_inner
def _connections(data: Bytes, at: int, end: int, entry: int, places: I4, elements: U8, tally: I8) -> int:
    first = used = tally[ADDRESSES]
    at, more = _enter(data, at, end, OPEN_LIST)
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
        at, more = _further(data, at, end, CLOSE_LIST)
    _place(ADDRESSES, entry, first, used, places, tally)
    return at


@_njit_inner
def _connection(data: Bytes, at: int, end: int) -> tuple[Any, Any, int]:
    """(hi, lo) of the remote address, and where it stopped."""
    seen = 0
    hi = lo = np.uint64(0)
    at, more = _enter(data, at, end, OPEN)
    while more:
        key, at = _key(data, at, end, CONNECTION)
        if key < 0 or seen >> key & 1:
            return hi, lo, -1
        seen |= 1 << key
        if key == 0:
            hi, lo, at = _remote(data, at, end)
        elif key == 1:
            _, at = _integer(data, at, end)
        else:
            at = _interface(data, at, end)
        at, more = _further(data, at, end, CLOSE)
    return hi, lo, at if seen & 1 else -1


@_njit_inner
def _remote(data: Bytes, at: int, end: int) -> tuple[Any, Any, int]:
    """A string `ip:port`: (hi, lo) of the address, and where it stopped."""
    hi, lo = np.uint64(0), np.uint64(0)
    if _byte(data, at, end) != QUOTE:
        return hi, lo, -1
    ipv4, stop = _ipv4(data, at + 1, end)
    if stop >= 0 and _byte(data, stop, end) == COLON:
        return hi, np.uint64(0xFFFF_0000_0000 | ipv4), _after_port(data, stop, end)
    start, colon = at + 1, _last_colon(data, at + 1, end)
    stop = colon
    if _byte(data, start, end) == OPEN_LIST:
        start, stop = start + 1, colon - 1
        if stop < start or data[stop] != CLOSE_LIST:
            return hi, lo, -1
    hi, lo, good = _ipv6(data, start, stop)
    return hi, lo, _after_port(data, colon, end) if good else -1


@_njit_inner
def _after_port(data: Bytes, colon: int, end: int) -> int:
    """Where a string that ends in `:port` ends; -1 if it does not."""
    stop = _digits_end(data, colon + 1, end)
    if not 1 <= stop - colon - 1 <= 5 or _byte(data, stop, end) != QUOTE:
        return -1
    port = 0
    for i in range(colon + 1, stop):
        port = port * 10 + data[i] - ZERO
    return stop + 1 if port <= PORT_MAX else -1


@_njit_inner
def _last_colon(data: Bytes, at: int, end: int) -> int:
    """The last colon before the quote; `at` where there is none."""
    colon = at
    while at < end and data[at] != QUOTE:
        if data[at] == COLON:
            colon = at
        at += 1
    return colon


@_njit_inner
def _ipv4(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(32 bits, where it stopped); no octet has a leading zero."""
    address = 0
    for part in range(4):
        octet = _byte(data, at, end) - ZERO
        if octet < 0 or octet > 9:
            return 0, -1
        at += 1
        while octet > 0 and at < end and ZERO <= data[at] <= ZERO + 9:
            octet = octet * 10 + data[at] - ZERO
            if octet > 255:
                return 0, -1
            at += 1
        address = address << 8 | octet
        if part < 3:
            if _byte(data, at, end) != DOT:
                return 0, -1
            at += 1
    return address, at


@_njit_inner
def _ipv6(data: Bytes, at: int, stop: int) -> tuple[Any, Any, bool]:  # noqa: PLR0911 - one for each way to be none
    """(hi, lo, whether it is one) of the literal that fills [at, stop); its last 32 bits may be written as IPv4."""
    hi = lo = np.uint64(0)  # of the groups so far, as if they were the last
    groups, gap = 0, -1  # gap: groups before `::`
    head_hi = head_lo = np.uint64(0)
    if stop - at >= 2 and data[at] == COLON and data[at + 1] == COLON:
        gap = 0
        at += 2
    while at < stop:
        if groups == 8:
            return hi, lo, False
        value, after = _group(data, at, stop)
        width = 1
        if after < stop and data[after] == DOT and groups < 7:
            value, after = _ipv4(data, at, stop)
            width = 2
            if after != stop:
                return hi, lo, False
        if after <= at:
            return hi, lo, False
        for i in range(width):
            hi = hi << np.uint64(16) | lo >> np.uint64(48)
            lo = lo << np.uint64(16) | np.uint64(value >> 16 * (width - 1 - i) & 0xFFFF)
        groups += width
        at = after
        if at == stop:
            break
        if data[at] != COLON or at + 1 == stop:
            return hi, lo, False
        at += 1
        if data[at] == COLON:
            if gap >= 0:
                return hi, lo, False
            gap = groups
            head_hi, head_lo = hi, lo
            hi = lo = np.uint64(0)
            at += 1
    if gap < 0:
        return hi, lo, groups == 8
    for _ in range(8 - gap):
        head_hi = head_hi << np.uint64(16) | head_lo >> np.uint64(48)
        head_lo = head_lo << np.uint64(16)
    return hi | head_hi, lo | head_lo, groups <= 7


@_njit_inner
def _group(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    """(value, where it stopped) of up to four hexadecimal digits."""
    value = 0
    most = min(stop, at + 4)
    while at < most:
        c = _int(data[at])
        if ZERO <= c <= ZERO + 9:
            digit = c - ZERO
        elif 97 <= c | 32 <= 102:
            digit = (c | 32) - 87
        else:
            break
        value = value << 4 | digit
        at += 1
    return value, at


@_njit_inner
def _interface(data: Bytes, at: int, end: int) -> int:
    if _byte(data, at, end) == 110:
        return at + 4 if _word(data, at, end) & np.uint64(0xFFFF_FFFF) == np.uint64(0x6C6C_756E) else -1  # null
    stopped: int = _string_end(data, at, end)
    return stopped


@_njit_inner
def _customs(data: Bytes, at: int, end: int, entry: int, names: U1, slots: I4, scalars: I8, tally: I8) -> int:
    """Metrics of the form `"name": [{"number": 1.5}]`. One that is not defined is counted; two could be the same."""
    members = unknown = 0
    at, more = _enter(data, at, end, OPEN)
    while more:
        stop = _string_end(data, at, end)
        if stop < 0:
            return -1
        column = _column(data, at + 1, stop - 1, names, slots)
        at = _colon(data, stop, end)
        value, at = _custom(data, at, end)
        if column < 0:
            unknown += 1
            tally[IGNORED] += 1
        elif scalars[entry, column] == ABSENT:
            scalars[entry, column] = value
        else:
            return -1
        members += 1
        at, more = _further(data, at, end, CLOSE)
    return at if members and unknown <= 1 else -1


@_njit_inner
def _column(data: Bytes, at: int, stop: int, names: U1, slots: I4) -> int:
    """The scalar column of the custom metric whose name fills [at, stop); -1 = no number is defined by that name."""
    value = 0
    for i in range(at, stop):
        value = (value * 31 + data[i]) & 0xFFFF_FFFF
    slot = value & (len(slots) - 1)
    while slots[slot, 1]:
        if slots[slot, 1] == stop - at:
            same = True
            for i in range(stop - at):
                same = same and data[at + i] == names[slots[slot, 0] + i]
            if same:
                column: int = _int(slots[slot, 2])
                return column
        slot = (slot + 1) & (len(slots) - 1)
    return -1


@_njit_inner
def _custom(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(`key_of` the number in `[{"number": 1.5}]`, where it stopped)."""
    value, more = 0, False
    if at >= 0:
        at, more = _enter(data, at, end, OPEN_LIST)
    if more:
        at, more = _enter(data, at, end, OPEN)
    if not more:
        return 0, -1
    key, at = _key(data, at, end, CUSTOM)
    if key < 0:
        return 0, -1
    value, at = _decimal(data, at, end)
    at, more = _further(data, at, end, CLOSE)
    if more or at < 0:
        return 0, -1
    at, more = _further(data, at, end, CLOSE_LIST)
    return (value, -1) if more else (value, at)


@_njit(nogil=True, _nrt=False, error_model="numpy")
def _decimal(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(`key_of` the number, where it stopped). Clinger's fast path: one rounding, hence exact."""
    negative = _byte(data, at, end) == MINUS
    first = at + 1 if negative else at
    point = _digits_end(data, first, end)
    stop = point
    if _byte(data, point, end) == DOT:
        stop = _digits_end(data, point + 1, end)
        if stop == point + 1:
            return 0, -1
    digits, mantissa = 0, 0
    for i in range(first, stop):
        if i != point:
            mantissa = mantissa * 10 + data[i] - ZERO
            digits += 1 if digits > 0 or data[i] != ZERO else 0
            if digits > DIGITS_MAX:
                return 0, -1
    exponent, at = _exponent(data, stop, end)
    scale = exponent - max(stop - point - 1, 0)
    if point == first or (point > first + 1 and data[first] == ZERO) or at < 0 or abs(scale) > SCALE_MAX:
        return 0, -1
    value = mantissa / _POWERS[-scale] if scale < 0 else mantissa * _POWERS[scale]
    return compiled_key_of(-value if negative else value), at


@_njit_inner
def _exponent(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(power of ten, where it stopped); 0 where none is written."""
    if _byte(data, at, end) | 32 != 101:
        return 0, at
    sign = _byte(data, at + 1, end)
    first = at + 2 if sign in (MINUS, PLUS) else at + 1
    stop = _digits_end(data, first, end)
    if not 1 <= stop - first <= 2:
        return 0, -1
    value = 0
    for i in range(first, stop):
        value = value * 10 + data[i] - ZERO
    return -value if sign == MINUS else value, stop


@_njit_inner
def _integer(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(a non-negative integer, where it stopped)."""
    value, first = 0, at
    while at < end:
        digit = _int(data[at]) - ZERO
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        at += 1
    digits = at - first
    if digits == 0 or digits > INTEGER_DIGITS_MAX or (digits > 1 and data[first] == ZERO):
        return 0, -1
    return value, at


@_njit_inner
def _digits_end(data: Bytes, at: int, end: int) -> int:
    while at < end and ZERO <= data[at] <= ZERO + 9:
        at += 1
    return at


@_njit_inner
def _enter(data: Bytes, at: int, end: int, bracket: int) -> tuple[int, bool]:
    """(the first member, True), or (after the closing bracket, False), or (-1, False)."""
    if _byte(data, at, end) != bracket:
        return -1, False
    at = _space(data, at + 1, end)
    if _byte(data, at, end) == bracket + 2:  # as [ and ], { and }
        return at + 1, False
    return at, True


@_njit_inner
def _further(data: Bytes, at: int, end: int, bracket: int) -> tuple[int, bool]:
    """After a member: (the next one, True), or (after the closing bracket, False), or (-1, False)."""
    if at < 0:
        return -1, False
    at = _space(data, at, end)
    c = _byte(data, at, end)
    if c == COMMA:
        return _space(data, at + 1, end), True
    return at + 1 if c == bracket else -1, False


@_njit_inner
def _key(data: Bytes, at: int, end: int, which: Any) -> tuple[int, int]:
    """(number of the key of object `which`, where its value begins); (-1, -1) where it is none."""
    if _byte(data, at, end) != QUOTE:
        return -1, -1
    at += 1
    head = _word(data, at, end)
    for i in range(_FIRSTS[which], _FIRSTS[which + 1]):
        if head & _MASKS[i, 0] == _WORDS[i, 0]:
            size = _MEANINGS[i, 0]
            if size > 8 and _word(data, at + 8, end) & _MASKS[i, 1] != _WORDS[i, 1]:
                continue
            if size > 16 and _word(data, at + 16, end) & _MASKS[i, 2] != _WORDS[i, 2]:
                continue
            value = _colon(data, at + size, end)
            return (_MEANINGS[i, 1], value) if value >= 0 else (-1, -1)
    return -1, -1


@_njit_inner
def _colon(data: Bytes, at: int, end: int) -> int:
    """Where the value after a key begins."""
    at = _space(data, at, end)
    return _space(data, at + 1, end) if _byte(data, at, end) == COLON else -1


@_njit_inner
def _string_end(data: Bytes, at: int, end: int) -> int:
    """After the closing quote of a string of plain ASCII."""
    if _byte(data, at, end) != QUOTE:
        return -1
    at += 1
    while True:
        word = _word(data, at, end)
        quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
        # The high bit of each byte that is a quote, a backslash, a control character (or past the end) or not ASCII.
        # A borrow can only spoil bytes above the first such one.
        found = (quote - _ONES) & ~quote | (backslash - _ONES) & ~backslash | (word - _SPACES) & ~word | word
        found = (found & _HIGHS) >> np.uint64(7)
        if found:
            # One bit per byte below the lowest, added up by the product in the highest byte.
            at += _int(((found - np.uint64(1)) & ~found & _ONES) * _ONES >> np.uint64(56))
            return at + 1 if _byte(data, at, end) == QUOTE else -1
        at += 8


@_njit_inner
def _space(data: Bytes, at: int, end: int) -> int:
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@_njit_inner
def _byte(data: Bytes, at: int, end: int) -> int:
    """0, which no JSON holds, past the end."""
    return _int(data[at]) if at < end else 0


@_njit_inner
def _word(data: Bytes, at: int, end: int) -> Any:
    """Eight bytes, the first one lowest; 0 past the end. The compiler makes one load of it."""
    if at + 8 <= end:
        low = _shifted(data, at, 0) | _shifted(data, at, 1) | _shifted(data, at, 2) | _shifted(data, at, 3)
        return low | _shifted(data, at, 4) | _shifted(data, at, 5) | _shifted(data, at, 6) | _shifted(data, at, 7)
    word = np.uint64(0)
    for i in range(end - at):
        word |= _shifted(data, at, i)
    return word


@_njit_inner
def _shifted(data: Bytes, at: int, i: int) -> Any:
    return np.uint64(data[at + i]) << np.uint64(8 * i)


@_njit_inner
def _int(value: Any) -> Any:
    """An int64: what is narrower or unsigned would make a variable of another type."""
    return np.int64(value)


def _first(_typing: Any, array: Any) -> Any:
    """The address of an array's first element."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    pointer: Any = types.CPointer
    return pointer(array.dtype)(array), generate


_pointer: Any = intrinsic(_first)


@_njit(
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
    text = _pointer(data)
    for entry in range(first, len(kind)):
        ok[entry] = 0
        _clear(entry, report_id, scalars, places)
        if kind[entry] == CONTROL:
            continue
        tcp, udp, addresses, ignored = tally[TCP_PORTS], tally[UDP_PORTS], tally[ADDRESSES], tally[IGNORED]
        at = _int(payload_off[entry])
        end = at + payload_len[entry]
        if kind[entry] == REPORT_JSON and end - at <= payload_bytes_max:
            stopped = _report(text, at, end, entry, names, slots, report_id, scalars, places, elements, tally)
            if stopped >= 0 and _space(text, stopped, end) == end:
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
