"""Which clients of the brokers are connected: told by their events, whatever the order they come in (spec.md §10.8).

One row per client id. Events that name their connection are known by it: one that comes twice counts once, and the
late end of an earlier connection does not end the present one. A client that was not heard of for a week and is not
connected is forgotten.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Any, Final

import numpy as np

from actors.events import CONNECTED
from actors.messages import I4, I8, U1, U8
from config.clients import thing_of
from config.model import NS, Client

IDLE_NS: Final = 7 * 86_400 * NS
SESSIONS_KEPT: Final = 8
NAME_BYTES_MAX: Final = 128
BEGAN, ENDED, NOTHING = 1, -1, 0
LEFT: Final = -2
"""It is away, and was not known to be there."""
NO_ROOM: Final = -1
NO_NAME: Final = -2


@dataclass(frozen=True, slots=True)
class Standing:
    """A client as it is now: when its connection began (0: it has none), when its last one ended (0: never seen)."""

    thing: bytes
    since: int
    until: int
    source: int


class Presence:
    """All clients that were heard of lately."""

    def __init__(self, clients: Iterable[Client], things_max: int) -> None:
        self.rows: dict[str, int] = {}
        self.things: list[bytes] = []  # [row] the thing that the client is; b"" = it names none
        self._names: list[str | None] = []
        self._free: list[int] = []
        self.seen: I8 = np.zeros(0, np.int64)  # [row] its last event's entry, ns; 0 = the row is nobody's
        self.since: I8 = np.zeros(0, np.int64)  # [row] ns; 0 = not connected; else from when on without a break
        self.until: I8 = np.zeros(0, np.int64)  # [row] ns; 0 = no connection was seen to end
        self.source: U1 = np.zeros(0, np.uint8)
        self.session: U8 = np.zeros(0, np.uint64)  # [row] of the present connection; 0 = it has no name
        self.latest: I8 = np.zeros(0, np.int64)  # [row] when the present connection began: another may have before it
        self.recent: U8 = np.zeros((0, SESSIONS_KEPT), np.uint64)  # [row, 8] a ring of events seen
        self.at: U1 = np.zeros(0, np.uint8)
        self.configure(clients, things_max)

    def configure(self, clients: Iterable[Client], things_max: int) -> None:
        """Take new rules; clients keep their rows, and may be other things from now on."""
        self._clients, self._things_max = tuple(clients), things_max
        self.things = [b"" if name is None else self._thing(name) for name in self._names]

    def row(self, client_id: str) -> int:
        """The client's row, a new one where it has none; NO_ROOM or NO_NAME where it gets none."""
        row = self.rows.get(client_id)
        if row is not None:
            return row
        if "\0" in client_id:
            return NO_NAME  # MQTT knows no such text, and `dump` counts on that
        if len(self.rows) >= self._things_max:
            return NO_ROOM
        row = heappop(self._free) if self._free else len(self._names)
        if row == len(self._names):
            self._names.append(None)
            self.things.append(b"")
        self._names[row], self.things[row], self.rows[client_id] = client_id, self._thing(client_id), row
        if row >= len(self.seen):
            self._grow(max(64, row + row // 2 + 1))
        return row

    def turn(self, row: int, kind: int, time: int, source: int, session: str, version: int) -> int | None:
        """BEGAN, ENDED or LEFT, or NOTHING where who is connected stays the same; None: the event came before."""
        name = _key(session, version) if session else 0
        mark = (name ^ 1) if kind != CONNECTED else name
        if name and mark in self.recent[row]:
            return None
        if name:
            self.recent[row, self.at[row]] = mark
            self.at[row] = (self.at[row] + 1) % SESSIONS_KEPT
        return self._began(row, time, source, name) if kind == CONNECTED else self._ended(row, time, name)

    def _began(self, row: int, time: int, source: int, name: int) -> int:
        if name and (name ^ 1) in self.recent[row]:
            return NOTHING  # its end was told before it
        was = self.since[row] > 0
        if was and name and time < self.latest[row]:
            return NOTHING  # an earlier connection, told late
        self.latest[row], self.source[row], self.session[row] = max(time, 1), source, name
        if was:
            return NOTHING  # it took over, and the client was never away
        self.since[row] = self.latest[row]
        return BEGAN

    def _ended(self, row: int, time: int, name: int) -> int:
        present = int(self.session[row])
        if self.since[row] == 0:
            self.until[row] = max(int(self.until[row]), time)
            return LEFT
        if name and present and name != present:
            return NOTHING
        self.since[row], self.session[row], self.until[row] = 0, 0, max(time, 1)
        return ENDED

    def cut(self, source: int, time: int) -> list[bytes]:
        """All connections of a source have ended; the things they were, one for each connection."""
        rows = np.flatnonzero((self.since > 0) & (self.source == source))
        self.since[rows], self.session[rows], self.until[rows] = 0, 0, time
        return [self.things[row] for row in rows.tolist() if self.things[row]]

    def standings(self) -> Iterator[Standing]:
        """Of every client that is a thing and was ever seen to connect or leave."""
        for row in np.flatnonzero((self.since > 0) | (self.until > 0)).tolist():
            if self.things[row]:
                yield Standing(self.things[row], int(self.since[row]), int(self.until[row]), int(self.source[row]))

    def hear(self, rows: I4, ts: int) -> None:
        self.seen[rows] = ts

    def forget_idle(self, now: int) -> None:
        """Forget who is away and was not heard of for a week; called on full hours of the log's time."""
        idle = np.flatnonzero((self.seen > 0) & (self.seen < now - IDLE_NS) & (self.since == 0))
        for row in idle.tolist():
            name = self._names[row]
            assert name is not None
            del self.rows[name]
            self._names[row], self.things[row] = None, b""
            heappush(self._free, row)
        for array in (self.seen, self.until, self.source, self.session, self.latest, self.at):
            array[idle] = 0
        self.recent[idle] = 0

    def dump(self) -> dict[str, Any]:
        """Ids joined by NUL, which no MQTT string holds."""
        used = len(self._names)
        arrays = {name: getattr(self, name)[:used] for name in _ARRAYS}
        return {"names": "\0".join(name or "" for name in self._names).encode(), "count": used, "arrays": arrays}

    def load(self, state: dict[str, Any]) -> None:
        for name in _ARRAYS:
            setattr(self, name, state["arrays"][name].copy())
        names = state["names"].decode().split("\0") if state["count"] else []
        self._names = [name or None for name in names]
        self._free = [row for row, name in enumerate(self._names) if name is None]
        self.rows = {name: row for row, name in enumerate(self._names) if name is not None}
        self.things = [b"" if name is None else self._thing(name) for name in self._names]

    def _thing(self, client_id: str) -> bytes:
        name = thing_of(client_id, self._clients)
        if any(unicodedata.category(char) in {"Cc", "Cs"} for char in name):
            return b""
        spelled = name.encode()
        return spelled if len(spelled) <= NAME_BYTES_MAX else b""

    def _grow(self, rows: int) -> None:
        for name in _ARRAYS:
            old = getattr(self, name)
            more = np.zeros((rows - len(old), *old.shape[1:]), old.dtype)
            setattr(self, name, np.concatenate((old, more)))


_ARRAYS: Final = ("seen", "since", "until", "source", "session", "latest", "recent", "at")


def _key(session: str, version: int) -> int:
    """An even number of 64 bits that stands for a connection; the odd one behind it stands for its end."""
    digest = blake2b(f"{session}\0{version}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") & ~1 or 2
