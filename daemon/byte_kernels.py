"""Bytes and numbers into a buffer, for compiled code that writes protocols; each gives where what it wrote ends."""

import numpy as np
from numba import njit

from actors.messages import U1

ZERO, CR, LF = 48, 13, 10


def word(text: bytes) -> U1:
    """A constant, as kernels take it."""
    return np.frombuffer(text, np.uint8)


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
