"""Whether bytes are one CBOR item of the kind that a report may use: checked before anything is built from them.

Maps with text keys, arrays, strings, numbers and simple values. Tags are refused (dates, big numbers, shared
references, patterns, sets: some cost far more than their bytes), as are lengths beyond the payload's end.
"""

from typing import Final

import numpy as np
from numba import njit

from actors.messages import U1

STACK_MAX: Final = 128

# What is wrong, as the kernel says it
SOUND, CUT, TRAILING, TAG, KEY, DEEP, RESERVED = 0, 1, 2, 3, 4, 5, 6
PROBLEMS: Final = (
    "",
    "it ends too early, or a length goes beyond its end",
    "something follows it",
    "it holds a tag",
    "a key of a map is not a text string",
    "values are nested too deeply",
    "it holds a byte without meaning",
)

UNSIGNED, BYTES, TEXT, ARRAY, MAP, TAGGED, SIMPLE = 0, 2, 3, 4, 5, 6, 7  # major types; 1 is a negative integer
BREAK: Final = 0xFF
INDEFINITE: Final = 31
LENGTH_MAX: Final = 1 << 60
ENDLESS: Final = -1  # items left in an array or map of indefinite length


def flaw(payload: bytes, depth_max: int) -> str | None:
    """Why `payload` is not one item with at most `depth_max` levels, in words; None if it is. Linear in its bytes."""
    assert depth_max <= STACK_MAX
    found = _flaw(np.frombuffer(bytearray(payload), np.uint8), depth_max)
    return PROBLEMS[found] if found != SOUND else None


@njit(nogil=True)
def _head(data: U1, at: int) -> tuple[int, int]:
    """(argument of the head at `at`, where what follows begins); a place of -1 = cut off or reserved."""
    info = data[at] & 31
    if info < 24:
        return info, at + 1
    size = 1 << (info - 24)
    if info > 27 or at + 1 + size > len(data):
        return 0, -1
    value = 0
    for i in range(at + 1, at + 1 + size):
        value = (value << 8) | data[i]
    # 2^63 and more turn negative: as a length as far beyond the end as a longer one; numbers are not looked at.
    return value if 0 <= value < LENGTH_MAX else LENGTH_MAX, at + 1 + size


@njit(nogil=True)
def _string_end(data: U1, at: int, major: int) -> int:
    """Where the string at `at` ends; -1 if it is cut off, or a chunk of it is no definite string of its kind."""
    if data[at] & 31 != INDEFINITE:
        length, start = _head(data, at)
        return start + length if start >= 0 and length <= len(data) - start else -1
    at += 1
    while at < len(data) and data[at] != BREAK:
        if data[at] >> 5 != major or data[at] & 31 == INDEFINITE:
            return -1
        length, start = _head(data, at)
        if start < 0 or length > len(data) - start:
            return -1
        at = start + length
    return at + 1 if at < len(data) else -1


@njit("i8(u1[::1],i8)", nogil=True, cache=True)
def _flaw(data: U1, depth_max: int) -> int:  # noqa: PLR0911 - one for each thing that can be wrong
    left = np.zeros(STACK_MAX + 1, np.int64)  # items still to come at each level, ENDLESS until a break
    is_map = np.zeros(STACK_MAX + 1, np.bool_)
    is_key = np.zeros(STACK_MAX + 1, np.bool_)  # the next item is a key
    depth = 0
    left[0] = 1
    at = 0
    while True:
        while left[depth] == 0:
            if depth == 0:
                return SOUND if at == len(data) else TRAILING
            depth -= 1
        if at >= len(data):
            return CUT
        if data[at] == BREAK:
            if left[depth] != ENDLESS or (is_map[depth] and not is_key[depth]):
                return RESERVED
            left[depth] = 0
            at += 1
            continue
        major = data[at] >> 5
        if is_map[depth] and is_key[depth] and major != TEXT:
            return KEY
        is_key[depth] = not is_key[depth]
        if left[depth] > 0:
            left[depth] -= 1
        if major == TAGGED:
            return TAG
        if major in (BYTES, TEXT):
            at = _string_end(data, at, major)
        elif major in (ARRAY, MAP):
            if depth == depth_max:
                return DEEP
            depth += 1
            is_map[depth] = is_key[depth] = major == MAP
            if data[at] & 31 == INDEFINITE:
                left[depth] = ENDLESS
                at += 1
            else:
                count, at = _head(data, at)
                left[depth] = 2 * count if major == MAP else count
        elif data[at] & 31 == INDEFINITE:
            return RESERVED
        else:
            _, at = _head(data, at)
        if at < 0:
            return CUT
