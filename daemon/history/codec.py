"""How a column of a chunk is packed: differences or offsets, as byte planes, deflated.

A column holds the rows of many things, one thing after the other, each thing's in the order of time. Neighbours are
alike, so what is packed is either the difference to the row before or the offset from the smallest, whichever needs
fewer bits. The n-th bytes of all values stand together (a plane): the high ones are nearly constant, and deflate
makes little of them. Numbers that are short decimals are packed as integers.
"""

import zlib
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from actors.messages import I8, U8
from actors.numbers import I64_MAX

F8 = npt.NDArray[np.float64]
LEVEL: Final = 6  # 9 gains 0.3 %, and takes twice as long
OFFSETS, DIFFERENCES = 0, 1
DECIMALS_MAX: Final = 6
EXACT_MAX: Final = float(2**53)


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """A column of integers: OFFSETS from `base`, or DIFFERENCES minus `base` that start at `first`."""

    how: int
    base: int
    first: int
    width: int  # planes
    count: int
    planes: bytes  # deflated


def pack(values: I8) -> Packed:
    """Any int64 values, exactly."""
    if not len(values):
        return Packed(OFFSETS, 0, 0, 0, 0, b"")
    low, first = int(values.min()), int(values[0])
    steps = np.diff(values)  # wraps round, and so does the way back
    usual = int(np.partition(steps, len(steps) // 2)[len(steps) // 2]) if len(steps) else 0  # no float: it may not fit
    offsets: U8 = (values - np.int64(low)).view(np.uint64)
    differences = _zigzag(steps - np.int64(usual))
    if _bits(offsets) <= _bits(differences):
        return Packed(OFFSETS, low, first, *_planes(offsets))
    return Packed(DIFFERENCES, usual, first, *_planes(differences))


def unpack(packed: Packed) -> I8:
    numbers = _from_planes(packed)
    if packed.how == OFFSETS:
        return numbers.view(np.int64) + np.int64(packed.base)
    values = np.empty(packed.count + 1, np.int64)
    values[0] = packed.first
    values[1:] = _from_zigzag(numbers) + np.int64(packed.base)
    return np.cumsum(values)


def _zigzag(values: I8) -> U8:
    """Small magnitudes to small numbers, whatever their sign."""
    return ((values << 1) ^ (values >> 63)).view(np.uint64)


def _from_zigzag(numbers: U8) -> I8:
    return (numbers >> np.uint64(1)).view(np.int64) ^ -(numbers & np.uint64(1)).view(np.int64)


def _bits(numbers: U8) -> float:
    """About how many bits these need."""
    return float(np.log2(numbers.astype(np.float64) + 1.0).sum())


def _planes(numbers: U8) -> tuple[int, int, bytes]:
    """(width, count, planes)"""
    most = int(numbers.max()) if len(numbers) else 0
    width = (most.bit_length() + 7) // 8
    rows = numbers.astype("<u8").view(np.uint8).reshape(len(numbers), 8)[:, :width]
    return width, len(numbers), zlib.compress(np.ascontiguousarray(rows.T).tobytes(), LEVEL)


def _from_planes(packed: Packed) -> U8:
    rows = np.zeros((packed.count, 8), np.uint8)
    if packed.width:
        planes = np.frombuffer(zlib.decompress(packed.planes), np.uint8)
        rows[:, : packed.width] = planes.reshape(packed.width, packed.count).T
    return rows.view("<u8").reshape(packed.count).astype(np.uint64, copy=False)


# ---- floats, which columns hold as `actors.numbers.key_of` spells them ----


def floats_of(keys: I8) -> F8:
    """`actors.numbers.float_of` of many."""
    return np.where(keys >= 0, keys, -keys - np.int64(I64_MAX) - np.int64(1)).view(np.float64)


def keys_of(values: F8) -> I8:
    """`actors.numbers.key_of` of many."""
    bits = np.ascontiguousarray(values).view(np.int64)
    return np.where(bits >= 0, bits, -(bits & np.int64(I64_MAX)))


def as_decimals(keys: I8) -> tuple[int, I8] | None:
    """(decimals, the values × 10 ** decimals) of floats that are exactly such decimals; None where some is not."""
    values = floats_of(keys)
    for decimals in range(DECIMALS_MAX + 1):
        scaled = np.rint(values * 10.0**decimals)
        if not (np.abs(scaled) < EXACT_MAX).all():
            return None
        if (scaled / 10.0**decimals == values).all():
            return decimals, scaled.astype(np.int64)
    return None


def from_decimals(decimals: int, scaled: I8) -> I8:
    """The inverse of `as_decimals`."""
    return keys_of(scaled / 10.0**decimals + 0.0)
