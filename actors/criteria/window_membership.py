"""The addresses that a thing came from against networks (spec.md §1.4), when the window has ended."""

from collections.abc import Sequence

import numpy as np

from actors.alarm import COMPLIES, VIOLATES
from actors.criteria._base import Closed, Points, Slot, WindowCriterion
from actors.criteria.membership import cidr_ranges, is_inside
from actors.numbers import address_key
from config.model import Limits, MetricValue


class WindowMembership:
    """All sets of networks for what the brokers tell, of one group actor."""

    def __init__(self, slots: Sequence[tuple[int, Slot]]) -> None:
        self.slots = tuple(number for number, _ in slots)
        self._ranges = {number: cidr_ranges(_cidrs(slot)) for number, slot in slots}
        self._negated = {number: _operator(slot).startswith("not-") for number, slot in slots}

    def weigh(self, slot: int, points: Points) -> Closed:
        bad = [any(self._offends(slot, each) for each in addresses) for addresses in points.addresses]
        verdicts = np.where(bad, VIOLATES, COMPLIES).astype(np.int8).reshape(-1, 1)
        sets = tuple(MetricValue(cidrs=addresses) for addresses in points.addresses)
        return Closed(slot, points.rows, verdicts, np.zeros((len(points.rows), 1), np.int64), sets)

    def offenders(self, slot: int, value: MetricValue) -> tuple[str, ...]:
        return tuple(each for each in value.cidrs or () if self._offends(slot, each))

    def _offends(self, slot: int, address: str) -> bool:
        high, low = address_key(address)
        return is_inside(self._ranges[slot], high << 64 | low) == self._negated[slot]


def _cidrs(slot: Slot) -> tuple[str, ...]:
    assert slot.behavior.criteria is not None
    assert slot.behavior.criteria.value is not None
    return slot.behavior.criteria.value.cidrs or ()


def _operator(slot: Slot) -> str:
    assert slot.behavior.criteria is not None
    assert slot.behavior.criteria.comparison_operator is not None
    return slot.behavior.criteria.comparison_operator


def _claims(slot: Slot) -> bool:
    value = slot.behavior.criteria.value if slot.behavior.criteria else None
    return bool(slot.metric.events) and value is not None and value.cidrs is not None


def _build(slots: Sequence[tuple[int, Slot]], limits: Limits) -> WindowMembership:
    return WindowMembership(slots)


CRITERION = WindowCriterion("STATIC", _claims, _build)
