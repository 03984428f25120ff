"""The alarms of one group actor's things: how each stands, and what is told when one is raised or ends.

State is arrays by row (thing) and slot (behavior), stepped by one rule (`actors.alarm`). An open alarm is an opening:
the violation that its later events repeat.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, TypeVar

import numpy as np
from msgspec.structs import replace

from actors import alarm
from actors.criteria._base import FAR, Closed, Judge, Run, Slot, Weigher
from actors.effects import EventType, Transition
from actors.messages import I1, I4, I8, Batch, Moment
from actors.numbers import float_of
from actors.roster import Roster
from actors.values import Seen, in_words
from actors.window import Rows
from config.model import NS, Behavior, Criteria, MetricValue

FIRST: Final = np.zeros(1, np.int32)
Place = tuple[int, int]  # row, slot
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Opening:
    """An open violation: what its later events repeat."""

    violation_id: str
    start_ns: int


class Alarms:
    """`identity` is the log's, part of every violation's id; `judge_of` says by slot who names the offenders."""

    def __init__(
        self, slots: Sequence[Slot], roster: Roster, judge_of: Mapping[int, Judge | Weigher], identity: str,
        silence_ns: int,
    ) -> None:  # fmt: skip
        self.openings: dict[Place, Opening] = {}
        self.deadline = FAR  # no open alarm falls silent before or at this
        self.silence_ns = silence_ns
        self._slots, self._roster, self._judge_of, self._identity = slots, roster, judge_of, identity
        self._to_alarm = np.array([_consecutive(s.behavior)[0] for s in slots], np.uint8)
        self._to_clear = np.array([_consecutive(s.behavior)[1] for s in slots], np.uint8)
        self._is_set = np.array([s.metric.is_set for s in slots], np.uint8)
        width = len(slots)
        self.alarmed = np.zeros((0, width), np.uint8)
        self.streak = np.zeros((0, width), np.uint8)
        self.heard: I8 = np.zeros((0, width), np.int64)  # last datapoint, moved on by our own downtime
        self.last_at: I8 = np.zeros((0, width), np.int64)  # last violating datapoint
        self.last_value: I8 = np.zeros((0, width), np.int64)
        self._seen_sets: dict[Place, Seen] = {}  # last violating value of an open alarm on a set

    def __len__(self) -> int:
        """How many are open."""
        return len(self.openings)

    # ---- datapoints ----

    def judged(self, batch: Batch, run: Run, slots: I4) -> list[Transition]:
        """Step `slots` by a run of reports."""
        effects: list[Transition] = []
        for k, slot, kind, last_at, last_value in self._step(
            run.rows, run.times, slots, slots, run.verdicts, run.values
        ):
            entry, row, now = int(run.entries[k]), int(run.rows[k]), int(run.times[k])
            is_set = self._slots[slot].metric.is_set
            seen = Seen.at(batch.frames, entry) if is_set else None
            if kind == alarm.STILL:
                assert seen is not None
                self._seen_sets[row, slot] = seen
                continue
            moment = Moment(int(batch.frames.seq[entry]), now)
            value = seen.value(self._slots[slot].metric) if seen else self._number(slot, int(run.values[k, slot]))
            if kind == alarm.RAISED:
                effects.append(self._raise(moment, row, slot, value, 0, now))
                if seen:
                    self._seen_sets[row, slot] = seen
            else:
                effects.append(self._clear(moment, row, slot, value, last_at, last_value, now))
        return effects

    def closed(self, moment: Moment, end: int, window: Closed) -> list[Transition]:
        """Step one slot by the verdicts on a window that ended."""
        effects: list[Transition] = []
        slot = window.slot
        times = np.full(len(window.rows), end, np.int64)
        # What was measured was heard of, whether it could be judged or not.
        self.heard[window.rows, slot] = np.maximum(self.heard[window.rows, slot], end)
        found = self._step(window.rows, times, np.array([slot], np.int32), FIRST, window.verdicts, window.values)
        told = [(self._roster.identity_of(int(window.rows[f[0]])), f) for f in found]
        for _, (k, _, kind, last_at, last_value) in sorted(told):  # by name: rows are an accident of history
            row = int(window.rows[k])
            value = window.sets[k] if window.sets else self._number(slot, int(window.values[k, 0]))
            if kind == alarm.CLEARED:
                effects.append(self._clear(moment, row, slot, value, last_at, last_value, end))
                continue
            if kind == alarm.RAISED:
                effects.append(self._raise(moment, row, slot, value, end, end))
            if window.sets:
                self._seen_sets[row, slot] = Seen.of(value)
        return effects

    def _step(self, rows: I4, times: I8, slots: I4, columns: I4, verdicts: I1, values: I8) -> list[list[int]]:
        """[k, slot, kind, last violation at, its value] of everything that must be told."""
        out: I8 = np.empty((len(rows) * len(slots), 5), np.int64)
        found = alarm.step_all(
            rows, times, slots, columns, verdicts, values, self._to_alarm, self._to_clear, self._is_set,
            self.alarmed, self.streak, self.heard, self.last_at, self.last_value, out,
        )  # fmt: skip
        told: list[list[int]] = out[:found].tolist()
        return told

    # ---- silence, and rules that go ----

    def silent(self, moment: Moment) -> Iterator[Transition]:
        """End the alarms of which nothing was heard for too long."""
        limits = {place: int(self.heard[place]) + self.silence_ns for place in self.openings}
        silent = sorted(
            (limit, slot, self._roster.identity_of(row), row)
            for (row, slot), limit in limits.items()
            if limit < moment.ts
        )
        words = f"no datapoint for more than {self.silence_ns / 3600 / NS:g} h"
        for limit, slot, _, row in silent:
            yield self._invalidate(moment, row, slot, limit, words)
        self._find_deadline()

    def pause(self, rows: Rows, since: int, until: int) -> None:
        """Nothing could be heard of these rows from `since` to `until`: it is not their silence."""
        self.heard[rows] = moved_on(self.heard[rows], since, until)

    def withdraw(self, moment: Moment, places: Iterable[Place], reason: str) -> list[Transition]:
        """End open alarms whose behavior or thing is no longer monitored (spec.md §3.6)."""
        ended = sorted(places, key=lambda place: (place[1], *self._roster.identity_of(place[0])))
        return [self._invalidate(moment, row, slot, moment.ts, reason) for row, slot in ended]

    def _find_deadline(self) -> None:
        self.deadline = min((int(self.heard[place]) + self.silence_ns for place in self.openings), default=FAR)

    # ---- transitions ----

    def _raise(self, moment: Moment, row: int, slot: int, value: MetricValue, end: int, time_ns: int) -> Transition:
        opening = Opening(self._violation_id(moment.position, row, slot, end), time_ns)
        self.openings[row, slot] = opening
        self.deadline = min(self.deadline, int(self.heard[row, slot]) + self.silence_ns)
        reason = in_words(self._slots[slot], value, self._judge_of[slot].offenders(slot, value))
        return self._transition("in-alarm", moment, row, slot, opening, time_ns, value, time_ns, value, reason)

    def _clear(
        self, moment: Moment, row: int, slot: int, value: MetricValue, last_at: int, last_value: int, time_ns: int
    ) -> Transition:
        last = self._last_value(row, slot, last_value)
        opening = self._close(row, slot)
        reason = in_words(self._slots[slot], value, ())
        return self._transition("alarm-cleared", moment, row, slot, opening, time_ns, value, last_at, last, reason)

    def _invalidate(self, moment: Moment, row: int, slot: int, time_ns: int, reason: str) -> Transition:
        last = self._last_value(row, slot, int(self.last_value[row, slot]))
        last_at = int(self.last_at[row, slot])
        opening = self._close(row, slot)
        self.alarmed[row, slot] = self.streak[row, slot] = 0
        return self._transition("alarm-invalidated", moment, row, slot, opening, time_ns, None, last_at, last, reason)

    def _transition(
        self, event_type: EventType, moment: Moment, row: int, slot: int, opening: Opening, time_ns: int,
        value: MetricValue | None, last_at: int, last: MetricValue | None, reason: str,
    ) -> Transition:  # fmt: skip
        name, registered = self._roster.identity_of(row)
        return Transition(
            event_type, opening.violation_id, self._slots[slot].profile, self._slots[slot].behavior, name.decode(),
            registered, time_ns, value, opening.start_ns, last_at, last, moment.position, reason,
        )  # fmt: skip

    def _close(self, row: int, slot: int) -> Opening:
        self._seen_sets.pop((row, slot), None)
        return self.openings.pop((row, slot))

    def _violation_id(self, position: int, row: int, slot: int, end: int) -> str:
        name, registered = self._roster.identity_of(row)
        place = self._slots[slot]
        parts = [self._identity, place.profile, place.behavior.name, name.decode(), str(position), str(end)]
        if not registered:  # both identities of a name may be raised at the end of one window
            parts.append("unregistered")
        return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def _number(self, slot: int, value: int) -> MetricValue:
        if self._slots[slot].metric.value_field == "number":
            return MetricValue(number=float_of(value))
        return MetricValue(count=value)

    def _last_value(self, row: int, slot: int, value: int) -> MetricValue | None:
        if not self._slots[slot].metric.is_set:
            return self._number(slot, value)
        seen = self._seen_sets.get((row, slot))
        return seen.value(self._slots[slot].metric) if seen else None

    # ---- rows ----

    def grow(self, more: int) -> None:
        """Make room for so many further rows."""
        for name in _ARRAYS:
            array = getattr(self, name)
            setattr(self, name, np.concatenate((array, np.zeros((more, array.shape[1]), array.dtype))))

    def forget(self, rows: Rows) -> None:
        """Rows that are given up; none has an open alarm."""
        for name in _ARRAYS:
            getattr(self, name)[rows] = 0

    def inherit(self, old: "Alarms", slots: Sequence[tuple[int, int]], sources: Rows, rows: Rows) -> None:
        """Take over, for (its slot, own slot) pairs that measure the same: its row sources[k] is own row rows[k].

        A behavior whose criteria changed keeps an open violation and starts counting anew (spec.md §3.6).
        """
        for theirs, own in slots:
            for name in _ARRAYS:
                getattr(self, name)[rows, own] = getattr(old, name)[sources, theirs]
            if _criteria(old._slots[theirs].behavior) != _criteria(self._slots[own].behavior):
                self.streak[rows, own] = 0
        now_at = dict(zip(sources.tolist(), rows.tolist(), strict=True))
        self.openings |= _moved(old.openings, now_at, dict(slots))
        self._seen_sets |= _moved(old._seen_sets, now_at, dict(slots))
        self._find_deadline()

    # ---- what others may see ----

    def active(self) -> list[tuple[str, int, MetricValue | None]]:
        """(violation id, last violation ns, its value) of every open alarm. The value of a set is read again."""
        return [self.last_violation(place) for place in self.openings]

    def last_violation(self, place: Place) -> tuple[str, int, MetricValue | None]:
        """As `active`, of the open alarm at a place."""
        value = self._last_value(*place, int(self.last_value[place]))
        return self.openings[place].violation_id, int(self.last_at[place]), value

    def standing(self) -> dict[str, int]:
        """The open violations, by id, and when each was last violated (ns)."""
        return {opening.violation_id: int(self.last_at[place]) for place, opening in self.openings.items()}

    def moved(self, known: Mapping[str, int]) -> list[Place]:
        """Where that is not what it was: `known` is what `standing` gave before."""
        return [
            place for place, opening in self.openings.items() if known.get(opening.violation_id) != self.last_at[place]
        ]

    # ---- checkpoints ----

    def dump(self) -> dict[str, Any]:
        return {
            "arrays": {name: getattr(self, name) for name in _ARRAYS},
            "openings": [(row, slot, o.violation_id, o.start_ns) for (row, slot), o in self.openings.items()],
            "seen_sets": [(row, slot, s.payload, s.kind) for (row, slot), s in self._seen_sets.items()],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        for name in _ARRAYS:
            setattr(self, name, state["arrays"][name].copy())
        self.openings = {(row, slot): Opening(i, start) for row, slot, i, start in state["openings"]}
        self._seen_sets = {(row, slot): Seen(payload, int(kind)) for row, slot, payload, kind in state["seen_sets"]}
        self._find_deadline()


_ARRAYS: Final = ("alarmed", "streak", "heard", "last_at", "last_value")


def moved_on(times: I8, since: int, until: int) -> I8:
    """Instants (ns; 0 = never) without the time from `since` to `until`."""
    return np.where(times > 0, times + np.maximum(0, until - np.maximum(since, times)), 0)


def _moved(kept: Mapping[Place, Kept], rows: Mapping[int, int], slots: Mapping[int, int]) -> dict[Place, Kept]:
    return {(rows[row], slots[slot]): what for (row, slot), what in kept.items() if row in rows and slot in slots}


def _consecutive(behavior: Behavior) -> tuple[int, int]:
    criteria = behavior.criteria
    assert criteria is not None
    return criteria.consecutive_datapoints_to_alarm or 1, criteria.consecutive_datapoints_to_clear or 1


def _criteria(behavior: Behavior) -> Criteria:
    """With the defaults written out: to write them out is no edit."""
    alarm, clear = _consecutive(behavior)
    assert behavior.criteria is not None
    return replace(behavior.criteria, consecutive_datapoints_to_alarm=alarm, consecutive_datapoints_to_clear=clear)
