"""Which row of the arrays belongs to which thing: rows are handed out, given back, and used again.

A thing that is registered and one that is not are two identities, even of one name (spec.md §3.6).
"""

from heapq import heappop, heappush
from typing import Any

Identity = tuple[bytes, bool]  # name (UTF-8), registered
Placed = tuple[int, bytes, bool]  # row, name, registered


class Roster:
    """thing <-> row. The lowest free row is handed out, so the rows in use stay close together."""

    def __init__(self) -> None:
        self.capacity = 0
        self.names: list[bytes | None] = []  # by row; None = free
        self._rows: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})  # unregistered, registered
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._rows[0]) + len(self._rows[1])

    def find(self, name: bytes, registered: int) -> int | None:
        return self._rows[registered].get(name)

    def find_all(self, pairs: list[tuple[bytes, int]]) -> list[int | None]:
        """`find` for many, at the price of one look-up each."""
        rows = self._rows
        return [rows[registered].get(name) for name, registered in pairs]

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
