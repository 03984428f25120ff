"""A parcel on its way into the log: which of its entries are stored, where, and when to try again."""

import asyncio
from typing import Final

import numpy as np

from actors.messages import I8
from daemon.log.parcel import WINDOW_BITS, Parcel

ACKNOWLEDGED_S: Final = 5.0  # after which a silent connection is given up


class NotStored(Exception):
    """An entry could not be confirmed in time. It may be in the log all the same."""


class Refused(NotStored):
    """The server, or we, will never take this entry: too large, a bad subject, no permission."""


class Window:
    """A parcel on its way: where the server stored its entries."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel, self.number = parcel, parcel.number >> WINDOW_BITS
        self.seqs: I8 = np.zeros(len(parcel), np.int64)  # [entry] 0 = not known
        self.left = len(parcel)
        self.flying = 0
        self.trouble = ""
        self.refusal: Refused | None = None
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None

    def missing(self) -> list[tuple[int, int]]:
        """The entries [first, last) whose position is not known, in runs."""
        if self.left == len(self.seqs):
            return [(0, self.left)]
        edges = np.flatnonzero(np.diff(np.concatenate(([False], self.seqs == 0, [False]))))
        return [(first, last) for first, last in edges.reshape(-1, 2).tolist()]

    def begin(self) -> None:
        """It is on its way, once more."""
        self.flying, self.trouble = self.left, ""
        loop = asyncio.get_running_loop()
        if self.settled.done():
            self.settled = loop.create_future()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(ACKNOWLEDGED_S, self.settle)

    def take(self, places: I8, seqs: I8) -> int:
        """Note where entries are; gives how many of them are news."""
        before = self.left
        self.seqs[places] = seqs
        self.left = len(self.seqs) - int(np.count_nonzero(self.seqs))
        if not self.left:
            self.settle()
        return before - self.left

    def refuse(self, why: str, *, final: bool) -> None:
        self.trouble = why
        if final:
            self.refusal = Refused(why)
        self.settle()

    def settle(self) -> None:
        """Nothing more is waited for, for now."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.settled.done():
            self.settled.set_result(None)
