"""JSON read byte by byte, in compiled code: what any reader of it is made of.

Functions take where to start and say where they stopped; -1 = it is not plainly what was asked for. `end` is the
text's. `data` is a pointer in all of them: an array is seven words to hand over. Nothing is allocated, so nothing
needs to be counted (`_nrt`): the counting of arrays at every call took half of the time.
"""

from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from actors.numbers import compiled_key_of

QUOTE, COMMA, COLON, DOT, MINUS, PLUS, ZERO = 34, 44, 58, 46, 45, 43, 48
OPEN_LIST, CLOSE_LIST, OPEN, CLOSE = 91, 93, 123, 125

DIGITS_MAX: Final = 15  # a decimal of so many digits, scaled by at most 10^22, is one exact division or product
SCALE_MAX: Final = 22
INTEGER_DIGITS_MAX: Final = 18  # they always fit an int64
_POWERS = np.array([10.0**i for i in range(SCALE_MAX + 1)])

_ONES = np.uint64(0x0101_0101_0101_0101)
_HIGHS = np.uint64(0x8080_8080_8080_8080)
_SPACES = np.uint64(0x2020_2020_2020_2020)
_QUOTES = np.uint64(0x2222_2222_2222_2222)
_BACKSLASHES = np.uint64(0x5C5C_5C5C_5C5C_5C5C)

njit_typed: Any = njit  # numba's types do not know `_nrt`
njit_inner = njit_typed(nogil=True, _nrt=False)

Bytes = Any  # a pointer to the bytes of `data`, in compiled code only


# ---- brackets, keys and strings ----


@njit_inner
def enter(data: Bytes, at: int, end: int, bracket: int) -> tuple[int, bool]:
    """(the first member, True), or (after the closing bracket, False), or (-1, False)."""
    if byte_at(data, at, end) != bracket:
        return -1, False
    at = space(data, at + 1, end)
    if byte_at(data, at, end) == bracket + 2:  # as [ and ], { and }
        return at + 1, False
    return at, True


@njit_inner
def further(data: Bytes, at: int, end: int, bracket: int) -> tuple[int, bool]:
    """After a member: (the next one, True), or (after the closing bracket, False), or (-1, False)."""
    if at < 0:
        return -1, False
    at = space(data, at, end)
    c = byte_at(data, at, end)
    if c == COMMA:
        return space(data, at + 1, end), True
    return at + 1 if c == bracket else -1, False


@njit_inner
def colon(data: Bytes, at: int, end: int) -> int:
    """Where the value after a key begins."""
    at = space(data, at, end)
    return space(data, at + 1, end) if byte_at(data, at, end) == COLON else -1


@njit_inner
def string_end(data: Bytes, at: int, end: int) -> int:
    """After the closing quote of a string of plain ASCII."""
    if byte_at(data, at, end) != QUOTE:
        return -1
    at += 1
    while True:
        word = word_at(data, at, end)
        quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
        # The high bit of each byte that is a quote, a backslash, a control character (or past the end) or not ASCII.
        # A borrow can only spoil bytes above the first such one.
        found = (quote - _ONES) & ~quote | (backslash - _ONES) & ~backslash | (word - _SPACES) & ~word | word
        found = (found & _HIGHS) >> np.uint64(7)
        if found:
            # One bit per byte below the lowest, added up by the product in the highest byte.
            at += wide(((found - np.uint64(1)) & ~found & _ONES) * _ONES >> np.uint64(56))
            return at + 1 if byte_at(data, at, end) == QUOTE else -1
        at += 8


# ---- numbers ----


@njit_inner
def integer(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(a non-negative integer, where it stopped)."""
    value, first = 0, at
    while at < end:
        digit = wide(data[at]) - ZERO
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        at += 1
    digits = at - first
    if digits == 0 or digits > INTEGER_DIGITS_MAX or (digits > 1 and data[first] == ZERO):
        return 0, -1
    return value, at


@njit_typed(nogil=True, _nrt=False, error_model="numpy")
def decimal(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(`key_of` the number, where it stopped). Clinger's fast path: one rounding, hence exact."""
    negative = byte_at(data, at, end) == MINUS
    first = at + 1 if negative else at
    point = digits_end(data, first, end)
    stop = point
    if byte_at(data, point, end) == DOT:
        stop = digits_end(data, point + 1, end)
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


@njit_inner
def _exponent(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(power of ten, where it stopped); 0 where none is written."""
    if byte_at(data, at, end) | 32 != 101:
        return 0, at
    sign = byte_at(data, at + 1, end)
    first = at + 2 if sign in (MINUS, PLUS) else at + 1
    stop = digits_end(data, first, end)
    if not 1 <= stop - first <= 2:
        return 0, -1
    value = 0
    for i in range(first, stop):
        value = value * 10 + data[i] - ZERO
    return -value if sign == MINUS else value, stop


@njit_inner
def digits_end(data: Bytes, at: int, end: int) -> int:
    while at < end and ZERO <= data[at] <= ZERO + 9:
        at += 1
    return at


# ---- bytes ----


@njit_inner
def space(data: Bytes, at: int, end: int) -> int:
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@njit_inner
def byte_at(data: Bytes, at: int, end: int) -> int:
    """0, which no JSON holds, past the end."""
    return wide(data[at]) if at < end else 0


@njit_inner
def word_at(data: Bytes, at: int, end: int) -> Any:
    """Eight bytes, the first one lowest; 0 past the end. The compiler makes one load of it."""
    if at + 8 <= end:
        low = _shifted(data, at, 0) | _shifted(data, at, 1) | _shifted(data, at, 2) | _shifted(data, at, 3)
        return low | _shifted(data, at, 4) | _shifted(data, at, 5) | _shifted(data, at, 6) | _shifted(data, at, 7)
    word = np.uint64(0)
    for i in range(end - at):
        word |= _shifted(data, at, i)
    return word


@njit_inner
def _shifted(data: Bytes, at: int, i: int) -> Any:
    return np.uint64(data[at + i]) << np.uint64(8 * i)


@njit_inner
def wide(value: Any) -> Any:
    """An int64: what is narrower or unsigned would make a variable of another type."""
    return np.int64(value)


def _first(_typing: Any, array: Any) -> Any:
    """The address of an array's first element."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    made_of: Any = types.CPointer
    return made_of(array.dtype)(array), generate


pointer: Any = intrinsic(_first)
