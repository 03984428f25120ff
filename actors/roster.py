"""Which row of the arrays belongs to which thing: rows are handed out, given back, and used again.

A thing that is registered and one that is not are two identities, even of one name (spec.md §3.6).

Names are looked up once. After that a report is recognised by its thing's mark (`Batch.marks`), in compiled code:
a mark is a place of the log where that thing reported, so it means the same thing in every world and for ever, and
what is known of it needs no place in a dump.
"""

from heapq import heappop, heappush
from typing import Any, Final

import numpy as np
from numba import njit

from actors.messages import I4, I8, U1

HINTS_MIN: Final = 64  # a power of two, as all sizes of that table are
NO_HINT: Final = -1
UNMARKED: Final = 2  # keys below it are those of mark 0, which is none

Identity = tuple[bytes, bool]  # name (UTF-8), registered
Placed = tuple[int, bytes, bool]  # row, name, registered


class Roster:
    """thing <-> row. The lowest free row is handed out, so the rows in use stay close together."""

    def __init__(self) -> None:
        self.capacity = 0
        self.names: list[bytes | None] = []  # by row; None = free
        self._rows: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})  # unregistered, registered
        self._free: list[int] = []
        self._keys: I8 = np.zeros(0, np.int64)  # [row] 2 × mark + registered of its owner; 0 = not known
        self._hints = _no_hints(HINTS_MIN)  # rows, hashed by key; where the row's key is another, it is an old one
        self._hinted = 0

    def __len__(self) -> int:
        return len(self._rows[0]) + len(self._rows[1])

    def find(self, name: bytes, registered: int) -> int | None:
        return self._rows[registered].get(name)

    def identity_of(self, row: int) -> Identity:
        """Whose row it is."""
        name = self.names[row]
        assert name is not None
        return name, self.find(name, 1) == row

    def recognise(self, marks: I8, entries: I4, registered: U1) -> tuple[I4, int]:
        """([k] the row of the owner of marks[entries[k]], -1 where that is not known here; how many are not)."""
        rows: I4 = np.empty(len(entries), np.int32)
        return rows, _recognise(marks, entries, registered, self._keys, self._hints, rows)

    def remember(self, marks: I8, registered: U1, rows: I4) -> None:
        """Recognise these from now on; the rows are theirs."""
        if len(self._keys) < len(self.names):
            self._keys = np.concatenate((self._keys, np.zeros(len(self.names), np.int64)))
        if 4 * (self._hinted + len(rows)) > 3 * len(self._hints):
            self._hint_anew(max(len(self.names), len(rows)))
        self._hinted += _remember(2 * marks + registered, rows, self._keys, self._hints)

    def add(self, name: bytes, registered: int) -> int:
        """The row of a new thing. Where it is not below `capacity` the arrays must grow first."""
        row = heappop(self._free) if self._free else len(self.names)
        if row == len(self.names):
            self.names.append(name)
        self.names[row] = name
        self._rows[registered][name] = row
        return row

    def remove(self, row: int, registered: int) -> None:
        name = self.names[row]
        assert name is not None
        del self._rows[registered][name]
        self.names[row] = None
        heappush(self._free, row)
        if row < len(self._keys):
            self._keys[row] = 0

    def identities(self) -> list[Placed]:
        """All rows in use, by row."""
        pairs = [(row, name, bool(flag)) for flag in (0, 1) for name, row in self._rows[flag].items()]
        return sorted(pairs)

    def follow(self, other: "Roster") -> None:
        """Give every thing the row that it has in another roster; this one must be empty."""
        self.names, self._free = other.names.copy(), other._free.copy()
        self._rows = other._rows[0].copy(), other._rows[1].copy()

    def dump(self) -> dict[str, Any]:
        """Names joined by NUL, which no thing's name holds (`actors.numbers.thing_name`)."""
        registered = sorted(self._rows[1].values())
        return {
            "capacity": self.capacity,
            "names": b"\0".join(name or b"" for name in self.names),
            "count": len(self.names),
            "registered": registered,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.capacity = state["capacity"]
        names = state["names"].split(b"\0") if state["count"] else []
        self.names = [name or None for name in names]
        self._free = [row for row, name in enumerate(self.names) if name is None]
        registered = set(state["registered"])
        self._rows = ({}, {})
        for row, name in enumerate(self.names):
            if name is not None:
                self._rows[row in registered][name] = row
        self._keys, self._hints, self._hinted = np.zeros(0, np.int64), _no_hints(HINTS_MIN), 0

    def _hint_anew(self, things: int) -> None:
        """A larger table, or one without the hints that have become wrong. At most half of it will be in use."""
        known, self._keys = self._keys, np.zeros_like(self._keys)
        self._hints = _no_hints(max(HINTS_MIN, 1 << (2 * things - 1).bit_length()))
        self._hinted = _remember(known, np.arange(len(known), dtype=np.int32), self._keys, self._hints)


def _no_hints(size: int) -> I4:
    return np.full(size, NO_HINT, np.int32)


@njit(nogil=True)
def _place(key: int, hints: I4) -> int:
    """Where to look for a key first: a multiplicative hash."""
    mixed: Any = np.uint64(key) * np.uint64(0x9E37_79B9_7F4A_7C15)
    return int(mixed >> np.uint64(32)) & (len(hints) - 1)


@njit("i8(i8[::1],i4[::1],u1[::1],i8[::1],i4[::1],i4[::1])", nogil=True, cache=True)
def _recognise(marks: I8, entries: I4, registered: U1, keys: I8, hints: I4, rows: I4) -> int:
    """A hint is right where the row's key is the one that is sought. How many were not found."""
    missing = 0
    for k in range(len(entries)):
        key = 2 * marks[np.uint64(entries[k])] + registered[k]
        place = _place(key, hints)
        row = hints[place] if key >= UNMARKED else NO_HINT
        while row != NO_HINT and keys[np.uint64(row)] != key:
            place = (place + 1) & (len(hints) - 1)
            row = hints[place]
        rows[k] = row
        missing += row == NO_HINT
    return missing


@njit("i8(i8[::1],i4[::1],i8[::1],i4[::1])", nogil=True, cache=True)
def _remember(new_keys: I8, rows: I4, keys: I8, hints: I4) -> int:
    """Give rows their keys, and hints to them; how many hints that took."""
    taken = 0
    for k in range(len(rows)):
        if new_keys[k] < UNMARKED or keys[rows[k]] == new_keys[k]:
            continue
        keys[rows[k]] = new_keys[k]
        place = _place(new_keys[k], hints)
        while hints[place] != NO_HINT:
            place = (place + 1) & (len(hints) - 1)
        hints[place] = rows[k]
        taken += 1
    return taken
