"""What a kind of criterion promises. A new kind is one new file in this package that exports CRITERION.

A group actor's behaviors are numbered: slot s is behavior s. Each kind judges the slots it claims: on receipt of
reports (`judge`), or when a window ends (`ends`, `close`), or both. Verdicts are `actors.alarm` NO_DATA, COMPLIES or
VIOLATES. State is arrays by row; everything here is deterministic and knows no clock but the times it is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from actors.columns import Schema
from actors.messages import I1, I4, I8, Columns
from actors.window import Rows
from config.kinds import Metric
from config.model import Behavior, Limits, MetricValue

FAR: Final = 2**63 - 1  # ns: later than any due time


@dataclass(frozen=True, slots=True)
class Slot:
    """One behavior of one profile, as a group actor judges it."""

    profile: str
    behavior: Behavior
    metric: Metric


@dataclass(frozen=True, slots=True)
class Run:
    """Some reports to judge, in order: report k is entry `entries[k]`, of the thing in row `rows[k]`."""

    columns: Columns
    entries: I4  # [k]
    rows: I4  # [k]
    times: I8  # [k] ns
    verdicts: I1  # [k, slots] filled by `judge`, NO_DATA to begin with
    values: I8  # [k, slots] the value that was compared, where it is a number


@dataclass(frozen=True, slots=True)
class Points:
    """The datapoints of one measure of the brokers' events in a window that has ended (`actors.meter`).

    `figures` [f, k]: the count, f = 1; or the least, largest and total size of messages, f = 3. `addresses` [k]
    instead, where the metric is a set. `partial` [k]: not all of the window was heard; counts are too low, if anything.
    """

    measure: int
    end: int
    rows: I4  # [k]
    partial: npt.NDArray[np.bool_]  # [k]
    figures: I8
    addresses: tuple[tuple[str, ...], ...] = ()


LEAST, MOST, TOTAL = range(3)
"""Of messages' sizes, the places in `figures`."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The verdicts of one slot on a window that has ended."""

    slot: int
    rows: I4  # [k] things with a datapoint in the window
    verdicts: I1  # [k, 1]
    values: I8  # [k, 1]
    sets: tuple[MetricValue, ...] = ()  # [k] the values, where they are no numbers


class Judge(Protocol):
    """The behaviors of one kind in one group actor."""

    slots: tuple[int, ...]

    @property
    def merged(self) -> int:
        """Values that were merged for want of room."""

    def judge(self, run: Run) -> None:
        """Take in reports; fill the verdicts that can be given at once."""

    def ends(self, now: int) -> Sequence[int]:
        """The ends (ns) of the windows that are open at `now`; empty where the kind has none."""

    def close(self, end: int) -> Sequence[Closed]:
        """The verdicts of the windows that end at `end`, in slot order."""

    def offenders(self, slot: int, value: MetricValue) -> tuple[str, ...]:
        """Which elements of a set break the rule, for people; empty where the whole value does."""

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows."""

    def forget(self, rows: Rows) -> None:
        """Rows, an index array, are given up; their next owners must find nothing."""

    def begin(self, now: int) -> None:
        """The slots are new at `now`: what was received before does not count for them."""

    def adopt(self, other: Any, slots: Sequence[tuple[int, int]], sources: Rows, rows: Rows) -> None:
        """Take over state from a judge of the same kind: (its slot, own slot) pairs with the same metric and duration.

        Its row `sources[k]` is own row `rows[k]`.
        """

    def dump(self) -> dict[str, Any]:
        """The state, as arrays and plain values."""

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `dump` gave."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A kind of criterion: which slots it claims, and how its judge is built."""

    name: str  # AWS's behaviorCriteriaType
    claims: Callable[[Slot, Schema], bool]
    build: Callable[[Sequence[tuple[int, Slot]], Schema, Limits], Judge]


class Weigher(Protocol):
    """The behaviors of one kind that judge what the brokers tell (`actors.meter`): it keeps nothing itself."""

    slots: tuple[int, ...]

    def weigh(self, slot: int, points: Points) -> Closed:
        """The verdicts on the datapoints of a window that has ended."""

    def offenders(self, slot: int, value: MetricValue) -> tuple[str, ...]:
        """As `Judge.offenders`."""


@dataclass(frozen=True, slots=True)
class WindowCriterion:
    """A kind of criterion on what the brokers tell."""

    name: str  # AWS's behaviorCriteriaType
    claims: Callable[[Slot], bool]
    build: Callable[[Sequence[tuple[int, Slot]], Limits], Weigher]


OPERATORS: Final = ("less-than", "less-than-equals", "greater-than", "greater-than-equals")


def operator_code(slot: Slot) -> int:
    """The index in OPERATORS; kernels compare by it."""
    criteria = slot.behavior.criteria
    assert criteria is not None
    assert criteria.comparison_operator is not None
    return OPERATORS.index(criteria.comparison_operator)
