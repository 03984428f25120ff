"""Datapoints that actors formed of the brokers' events, on their way into the history: whose counts, and in what form.

A thing may be among the targets of several actors that measure the same series: they form the same datapoint. That of
the first of them, in the order of their keys, counts.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from actors.criteria._base import MOST
from actors.effects import Formed
from actors.messages import ABSENT, I8
from actors.numbers import address_key
from actors.plan import Registry, targets_of
from actors.router import Routed
from actors.series import Series
from actors.world import World
from config.model import MS
from daemon.history.points import NARROW, WIDE, Key, Points
from daemon.in_force import InForce

SOURCE: Final = "windows/"  # + an actor's key: a source of datapoints, as the history has them
SIZES: Final = 3  # figures of a window of messages' sizes

Flags = npt.NDArray[np.bool_]
Name = TypeVar("Name", bound=Hashable)


class Claims(Generic[Name]):
    """Of every name (a series, say) the actors that bring it, in the order of their keys, under one set of rules."""

    def __init__(self, claimants: Mapping[Name, Sequence[str]], registry: Registry) -> None:
        self._claimants, self._registry = claimants, registry
        self._taken: dict[tuple[str, ...], Flags] = {}

    def own(self, key: str, name: Name, things: Sequence[bytes]) -> I8 | None:
        """The places of the things whose datapoint is this actor's to bring; None: all are."""
        before = tuple(other for other in self._claimants.get(name, ()) if other < key)
        if not before:
            return None
        find = self._registry.codes.get
        codes = np.array([find(thing, 0) for thing in things], np.int64)
        return np.flatnonzero(~self._covered(before)[codes])

    def _covered(self, keys: tuple[str, ...]) -> Flags:
        """[code] whether one of the actors has the things of this code."""
        if keys not in self._taken:
            self._taken[keys] = covered(self._registry, keys)
        return self._taken[keys]


def covered(registry: Registry, keys: Sequence[str]) -> Flags:
    """[code] whether things of the registry's code are among the targets of one of these actors."""
    targets = [targets_of(key) for key in keys]
    codes = range(len(registry.groups))
    return np.array([any(registry.covers_code(one, code) for one in targets) for code in codes], bool)


class Store(Protocol):
    def put_later(self, source: str, make: Callable[[], Points], size: int, position: int) -> None:
        """As `daemon.history.recorder.History`."""


class Keeper:
    """Hands on to the history what actors formed (`supervisor.OnFormed`); a tap, to know the rules."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._claims = InForce[Claims[Series]]()

    def __call__(self, key: str, formed: Sequence[Formed]) -> None:
        """At once, and cheap: the history makes datapoints of it in a thread."""
        for position, pieces in by_position(formed):
            size = sum(len(piece.things) for piece in pieces)
            make = partial(points_of_windows, key, pieces, self._claims.at(position))
            self._store.put_later(SOURCE + key, make, size, position)

    def begin(self, position: int, world: World) -> None:
        self.follow(position, world)

    def follow(self, position: int, world: World) -> None:
        self._claims.follow(position, claims_of(world))

    def take(self, routed: Routed) -> None: ...
    def passed(self, position: int) -> None: ...
    async def room(self) -> None: ...


def by_position(formed: Sequence[Formed]) -> Iterator[tuple[int, tuple[Formed, ...]]]:
    """What was formed at each position of the log."""
    return ((position, tuple(pieces)) for position, pieces in groupby(formed, key=lambda piece: piece.position))


def claims_of(world: World) -> Claims[Series]:
    """Which actors keep which series."""
    claimants: dict[Series, list[str]] = {}
    for plan in world.plans:
        for measure in plan.measures:
            if measure.is_kept:
                claimants.setdefault(measure.series, []).append(plan.key)
    return Claims(claimants, world.router.registry)


@dataclass(frozen=True, slots=True)
class _Column:
    """Of one series and window: rows of the datapoints to be, and their values."""

    key: Key
    rows: I8
    values: I8


def points_of_windows(key: str, formed: Sequence[Formed], claims: Claims[Series]) -> Points:
    """What an actor formed at one position, as the history has it: of messages' sizes the largest."""
    rows: dict[tuple[int, bytes], int] = {}
    words: dict[bytes, int] = {}
    columns = [_column(piece, claims.own(key, piece.series, piece.things), rows, words) for piece in formed]
    numbers = {each: number for number, each in enumerate(dict.fromkeys(column.key for column in columns))}
    values = np.full((len(rows), len(numbers)), ABSENT, np.int64)
    for column in columns:
        values[column.rows, numbers[column.key]] = column.values
    ms = np.array([end // MS for end, _ in rows], np.int64)
    return Points([thing for _, thing in rows], ms, tuple(numbers), values, list(words))


def _column(
    piece: Formed, own: I8 | None, rows: dict[tuple[int, bytes], int], words: dict[bytes, int]
) -> _Column:  # fmt: skip
    places = range(len(piece.things)) if own is None else own.tolist()
    found = [rows.setdefault((piece.end, piece.things[place]), len(rows)) for place in places]
    if piece.addresses:
        spelled = [word_of(piece.addresses[place]) for place in places]
        values = np.array([words.setdefault(word, len(words)) for word in spelled], np.int64)
        return _Column(Key(piece.series, "cidrs"), np.array(found, np.int64), values)
    figure = piece.figures[MOST if len(piece.figures) == SIZES else 0]
    return _Column(Key(piece.series, "count"), np.array(found, np.int64), figure if own is None else figure[own])


def word_of(addresses: Sequence[str]) -> bytes:
    """A set of addresses as the history spells it (daemon/history/points.py)."""
    pairs = np.array([address_key(address) for address in addresses], np.uint64).reshape(-1, 2)
    return WIDE + pairs.tobytes() if pairs[:, 0].any() else NARROW + pairs[:, 1].tobytes()
