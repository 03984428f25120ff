"""Words and numbers in the bytes of protocols, for compiled code that reads or writes them.

What writes gives where what it wrote ends.
"""

import numpy as np
from numba import njit

from actors.messages import U1

ZERO, NINE, CR, LF = 48, 57, 13, 10


def word(text: bytes) -> U1:
    """A constant, as kernels take it."""
    return np.frombuffer(text, np.uint8)


# ---- reading ----


@njit(nogil=True)
def starts(data: U1, at: int, end: int, word: U1) -> bool:
    """Whether data[at:end] begins with this word."""
    if end - at < len(word):
        return False
    for i in range(len(word)):  # noqa: SIM110 - a kernel knows no generators
        if data[at + i] != word[i]:
            return False
    return True


@njit(nogil=True)
def number(data: U1, at: int, end: int) -> int:
    """The non-negative decimal that fills [at, end), else -1."""
    if at >= end or end - at > 19:
        return -1
    value = 0
    for i in range(at, end):
        digit = data[i] - ZERO
        if data[i] < ZERO or data[i] > NINE:
            return -1
        value = value * 10 + digit
    return value if value >= 0 else -1  # 19 digits may wrap to a negative value, never past it


# ---- writing ----


@njit(nogil=True)
def put(into: U1, at: int, text: U1) -> int:
    return copy(into, at, text, 0, len(text))


@njit(nogil=True)
def copy(into: U1, at: int, data: U1, start: int, size: int) -> int:
    for i in range(size):
        into[at + i] = data[start + i]
    return at + size


@njit(nogil=True)
def digits_of(value: int) -> int:
    """How many a number has that is not negative."""
    digits = 1
    while value >= 10:
        value //= 10
        digits += 1
    return digits


@njit(nogil=True)
def put_digits(into: U1, at: int, value: int, digits: int) -> int:
    """So many of them, zeros in front."""
    for i in range(digits):
        into[at + digits - 1 - i] = ZERO + value % 10
        value //= 10
    return at + digits


@njit(nogil=True)
def put_number(into: U1, at: int, value: int) -> int:
    return put_digits(into, at, value, digits_of(value))


@njit(nogil=True)
def put_break(into: U1, at: int) -> int:
    into[at] = CR
    into[at + 1] = LF
    return at + 2
