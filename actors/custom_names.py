"""The custom metrics that are numbers, and which column each has: a table that compiled code searches."""

import numpy as np

from actors.json_kernels import Bytes, njit_inner, wide
from actors.messages import I4, U1


class CustomNames:
    """Custom metrics that are numbers, by name: an open-addressing table.

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


@njit_inner
def column_at(data: Bytes, at: int, stop: int, names: U1, slots: I4) -> int:
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
                column: int = wide(slots[slot, 2])
                return column
        slot = (slot + 1) & (len(slots) - 1)
    return -1
