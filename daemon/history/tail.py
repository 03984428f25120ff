"""The newest datapoints, in memory: columns that grow, until they are packed into chunks.

On disk the same rows wait in the table `tail`, as they were committed. What a reader has been given (`seen`) never
changes: columns are only appended to, and a column that grows is a new array.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from actors.messages import ABSENT, I4, I8

ROWS_START: Final = 256


@dataclass(frozen=True, slots=True)
class Rows:
    """Datapoints by number of thing and series: one block that was committed, or all that a reader may see."""

    things: I4  # [n]
    ms: I8  # [n]
    columns: Mapping[int, I8]  # series -> [n]; ABSENT = no datapoint
    words: Sequence[bytes]
    last: int  # the row of the table `tail` that holds the last of them

    def __len__(self) -> int:
        return len(self.ms)


class Words:
    """What the columns of sets refer to: every distinct word once, by its number."""

    def __init__(self) -> None:
        self.all: list[bytes] = []
        self.bytes = 0
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.all)

    def numbers_of(self, words: Sequence[bytes]) -> I8:
        """The numbers of these here, as `renumbered` takes them; new ones are added."""
        return np.array([self._number(word) for word in words] or [0], np.int64)

    def _number(self, word: bytes) -> int:
        number = self._numbers.setdefault(word, len(self.all))
        if number == len(self.all):
            self.all.append(word)
            self.bytes += len(word)
        return number


def renumbered(column: I8, numbers: I8) -> I8:
    """A set's column, every number exchanged for that at its place in `numbers`."""
    return np.where(column == ABSENT, ABSENT, numbers[np.maximum(column, 0)])


class Tail:
    """Everything since the last compaction."""

    def __init__(self) -> None:
        self.words = Words()
        self._count = 0
        self._things: I4 = np.zeros(ROWS_START, np.int32)
        self._ms: I8 = np.zeros(ROWS_START, np.int64)
        self._columns: dict[int, I8] = {}
        self._last = 0

    def __len__(self) -> int:
        return self._count

    @property
    def first_ms(self) -> int:
        """The time of its first row; it has one."""
        return int(self._ms[0])

    @property
    def last_ms(self) -> int:
        return int(self._ms[self._count - 1])

    def append(self, rows: Rows, sets: frozenset[int]) -> None:
        """Take committed rows; `sets`: the series whose columns refer to words."""
        first, end = self._count, self._count + len(rows)
        self._make_room(end)
        self._things[first:end], self._ms[first:end] = rows.things, rows.ms
        numbers = self.words.numbers_of(rows.words)
        for series, column in rows.columns.items():
            if series not in self._columns:
                self._columns[series] = np.full(len(self._ms), ABSENT, np.int64)
            self._columns[series][first:end] = renumbered(column, numbers) if series in sets else column
        self._count, self._last = end, rows.last

    def seen(self) -> Rows:
        """All rows so far."""
        count = self._count
        columns = {series: column[:count] for series, column in self._columns.items()}
        return Rows(self._things[:count], self._ms[:count], columns, self.words.all, self._last)

    def _make_room(self, rows: int) -> None:
        if rows <= len(self._ms):
            return
        more = max(rows, 2 * len(self._ms)) - len(self._ms)
        self._things = np.concatenate((self._things, np.zeros(more, np.int32)))
        self._ms = np.concatenate((self._ms, np.zeros(more, np.int64)))
        for series, column in self._columns.items():
            self._columns[series] = np.concatenate((column, np.full(more, ABSENT, np.int64)))
