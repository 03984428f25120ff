"""One direction of a connection, read packet by packet though it comes in pieces; nothing of a payload is kept."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from actors.messages import I8
from daemon.sensor.connect import Malformed, TooMuch
from daemon.sensor.packets import ALIAS, COLUMNS, HEAD_MAX, ROWS_MAX, TEXT, TEXT_LEN, TOO_LONG, scan

ALIASES_MAX: Final = 1024  # topic aliases (MQTT 5) of one direction
HELD_BYTES_MAX: Final = 64 * 1024 * 1024

Row = list[int]
Span = tuple[int, int]  # [start, end) in a stream's `whole`
NOTHING: Final[list[Row]] = []

# All streams are read in one thread, and a table's rows are used before it is filled again.
_table = np.zeros((ROWS_MAX, COLUMNS), np.int64)
_last: list[Row] = []  # the rows that were made of it last


class Room:
    """What all connections together may keep in memory, in bytes."""

    __slots__ = ("left",)

    def __init__(self, left: int = HELD_BYTES_MAX) -> None:
        self.left = left

    def take(self, size: int) -> None:
        """Raises TooMuch."""
        if size > self.left:
            raise TooMuch("no room to keep headers that are cut off")
        self.left -= size

    def give(self, size: int) -> None:
        self.left += size


class Stream:
    """Reads one direction. Offsets in rows are those of `whole`: what was held, and the piece that came.

    `whole` is the reader's to drop, when it is through with the rows.
    """

    __slots__ = ("_aliases", "_held", "_mode", "_need", "_room", "_taken", "done", "edge", "skip", "whole")

    def __init__(self, mode: int, room: Room) -> None:
        self.skip = 0  # bytes of the last packet still to come
        self.whole = b""
        self.done = 0  # bytes of `whole` that were read; the rest is held
        self.edge = 0  # where packets meet in `whole`, the last such place; -1: inside of one all the way
        self._mode, self._room = mode, room
        self._held: bytearray | None = None
        self._need = 0
        self._taken = 0  # of the room
        self._aliases: dict[int, bytes] | None = None

    @property
    def at_edge(self) -> bool:
        """Whether everything that came ends where a packet ends."""
        return self._held is None and not self.skip

    def read(self, piece: bytes) -> list[Row]:
        """The rows of this piece. Raises Malformed, TooMuch."""
        if self._held is not None:
            self._keep(piece)
            if len(self._held) < self._need:
                self.whole, self.done, self.edge = b"", 0, -1
                return NOTHING
            piece = bytes(self._held)
            self.forget()
        self.whole = piece
        done, self.skip, count, need, self.edge = scan(np.frombuffer(piece, np.uint8), 0, self.skip, self._mode, _table)
        self.done = done
        if done == len(piece) and not need:
            return _rows(count) if count else NOTHING
        rows = _rows(count)
        while not need and self.done < len(piece):
            rows += self._read_on(piece)
            need = self._need
        if self.done < len(piece):
            self._hold(piece, need)
        return rows

    def without(self, spans: Sequence[Span]) -> bytes:
        """What was read of `whole`, these parts left out. They are in order; the last may end behind what was read."""
        whole, done = self.whole, self.done
        if not spans:
            return whole if done == len(whole) else whole[:done]
        at = 0
        pieces = []
        for start, end in spans:
            pieces.append(whole[at:start])
            at = min(end, done)
        return b"".join([*pieces, whole[at:done]])

    def topic(self, row: Row) -> bytes:
        """Of a PUBLISH; what an alias stands for. Raises Malformed where it stands for nothing."""
        text = self.whole[row[TEXT] : row[TEXT] + row[TEXT_LEN]]
        if not row[ALIAS]:
            return text
        if self._aliases is None:
            self._aliases = {}
        if not text:
            if row[ALIAS] not in self._aliases:
                raise Malformed("a topic alias that stands for nothing")
            return self._aliases[row[ALIAS]]
        self._learn(row[ALIAS], text)
        return text

    def forget(self) -> None:
        """Drop what is held."""
        self._held, self._need = None, 0
        self._room.give(self._taken)
        self._taken = 0

    def close(self) -> None:
        self.forget()
        self.whole = b""
        for text in (self._aliases or {}).values():
            self._room.give(len(text))
        self._aliases = None

    def again(self, skip: int, mode: int) -> list[Row]:
        """The rows of the same piece, read in another way; `skip` as it was before it."""
        view = np.frombuffer(self.whole, np.uint8)
        rows: list[Row] = []
        done = 0
        while done < self.done:
            done, skip, count, need, _ = scan(view, done, skip, self._mode | mode, _table)
            rows += _rows(count)
            if need:
                break
        return rows

    def _read_on(self, piece: bytes) -> list[Row]:
        view = np.frombuffer(piece, np.uint8)
        self.done, self.skip, count, self._need, self.edge = scan(view, self.done, self.skip, self._mode, _table)
        return _rows(count)

    def _hold(self, piece: bytes, need: int) -> None:
        if need < 0 or need > HEAD_MAX:
            raise TooMuch("a header that is too long") if need == TOO_LONG or need > 0 else Malformed("not MQTT")
        self._held, self._need = bytearray(), need
        self._keep(piece[self.done :])

    def _keep(self, piece: bytes) -> None:
        assert self._held is not None
        self._room.take(len(piece))
        self._taken += len(piece)
        self._held += piece

    def _learn(self, alias: int, text: bytes) -> None:
        assert self._aliases is not None
        before = self._aliases.pop(alias, None)
        if before is not None:
            self._room.give(len(before))
        elif len(self._aliases) >= ALIASES_MAX:
            raise TooMuch("too many topic aliases")
        self._room.take(len(text))
        self._aliases[alias] = text


def table_of(rows: list[Row]) -> I8:
    """[packet, column]; free where these rows are all that was read last."""
    return _table[: len(rows)] if rows is _last else np.array(rows, np.int64).reshape(len(rows), COLUMNS)


def _rows(count: int) -> list[Row]:
    global _last  # noqa: PLW0603 - of the table, which is a global, too
    rows: list[Row] = _table[:count].tolist()
    _last = rows
    return rows
