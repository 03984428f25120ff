"""Who judges which behavior of a group actor: one judge or weigher for each kind of criterion that claims any."""

from collections.abc import Iterable, Sequence

from actors.columns import Schema
from actors.criteria import criteria, window_criteria
from actors.criteria._base import Judge, Slot, Weigher
from actors.measures import Measure, slot_series, window_ns
from config.model import Limits


def judges_of(slots: Sequence[Slot], schema: Schema, limits: Limits) -> dict[str, Judge]:
    """One judge per kind of criterion that claims any slot, by the name of the kind's module."""
    found: dict[str, Judge] = {}
    for kind in criteria():
        claimed = [(number, slot) for number, slot in enumerate(slots) if kind.claims(slot, schema)]
        if claimed:
            found[kind.build.__module__] = kind.build(claimed, schema, limits)
    return found


def weighers_of(slots: Sequence[Slot], limits: Limits) -> list[Weigher]:
    """One for each kind of criterion on what the brokers tell that claims any slot."""
    found = []
    for kind in window_criteria():
        claimed = [(number, slot) for number, slot in enumerate(slots) if kind.claims(slot)]
        if claimed:
            found.append(kind.build(claimed, limits))
    return found


def weighed_by(
    weighers: Iterable[Weigher], slots: Sequence[Slot], measures: Sequence[Measure], limits: Limits
) -> dict[int, list[tuple[int, Weigher]]]:
    """Measure -> the slots that are judged by its datapoints, in order."""
    places = {measure.key: at for at, measure in enumerate(measures)}
    found: dict[int, list[tuple[int, Weigher]]] = {}
    of = {slot: weigher for weigher in weighers for slot in weigher.slots}
    for slot in sorted(of):
        key = slot_series(slots[slot]), window_ns(slots[slot], limits)
        found.setdefault(places[key], []).append((slot, of[slot]))
    return found


def is_windowed(judge: Judge) -> bool:
    return bool(judge.ends(0))
