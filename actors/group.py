"""The actor of one thing group: reports in, transitions of alarms out.

It owns the things of one set of targets and judges them by every behavior of every profile attached to that set.
State is arrays by row (thing) and slot (behavior). Time is the log's: it passes with each entry, and before an entry
at t is looked at, every window that ends by t is closed (design.md §4). Nothing here depends on how the log was cut
into batches: handle(a + b) ≡ handle(a); handle(b).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, TypeVar

import numpy as np
from numba import njit

from actors import alarm
from actors.columns import Schema
from actors.criteria._base import FAR, Closed, Judge, Run, Slot, Weigher
from actors.effects import EventType, Formed, Transition
from actors.judges import is_windowed, judges_of, weighed_by, weighers_of
from actors.measures import Measure
from actors.messages import I1, I4, I8, U1, Batch, Downtime, Share
from actors.meter import SOURCES, Meter
from actors.numbers import float_of
from actors.presence import Standing
from actors.roster import Identity, Placed, Roster
from actors.values import Seen, in_words
from actors.window import Rows
from config.model import NS, Behavior, Limits, MetricValue

HOUR_NS: Final = 3600 * NS
ROW_IDLE_NS: Final = 7 * 86_400 * NS  # a row without datapoint or alarm for this long is given up
ROWS_START: Final = 64
FIRST: Final = np.zeros(1, np.int32)
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Moment:
    """The log entry that is being looked at."""

    position: int
    ts: int  # ns


@dataclass(frozen=True, slots=True)
class Opening:
    """An open violation: what its later events repeat."""

    violation_id: str
    start_ns: int


class GroupActor:
    """One set of targets. `key` names it, `slots` are its behaviors, `position` the last entry it has seen."""

    def __init__(
        self, key: str, slots: Sequence[Slot], schema: Schema, limits: Limits, identity: str,
        measures: Sequence[Measure] = (),
    ) -> None:  # fmt: skip
        self.key = key
        self.slots = tuple(slots)
        self.identity = identity  # of the log: part of every violation's id
        self.position = 0
        self.poison: set[int] = set()  # positions of reports that are not for us: they broke an actor twice
        self.roster = Roster()
        self.judges = judges_of(self.slots, schema, limits)
        self._weighers = weighers_of(self.slots, limits)
        everyone: list[Judge | Weigher] = [*self.judges.values(), *self._weighers]
        self._judge_of = {slot: judge for judge in everyone for slot in judge.slots}
        self.meter = Meter(measures, limits.grace_s)
        self._weighed = weighed_by(self._weighers, self.slots, measures, limits)
        self._formed: list[Formed] = []
        self._schema, self._limits = schema, limits
        self._silence_ns = int(limits.silence_s * NS)
        self._to_alarm = np.array([_consecutive(s.behavior)[0] for s in self.slots], np.uint8)
        self._to_clear = np.array([_consecutive(s.behavior)[1] for s in self.slots], np.uint8)
        self._is_set = np.array([s.metric.is_set for s in self.slots], np.uint8)
        at_once = sorted(s for judge in self.judges.values() if not is_windowed(judge) for s in judge.slots)
        self._at_once: I4 = np.array(at_once, np.int32)
        width = len(self.slots)
        self.alarmed = np.zeros((0, width), np.uint8)
        self.streak = np.zeros((0, width), np.uint8)
        self.heard: I8 = np.zeros((0, width), np.int64)  # last datapoint, moved on by our own downtime
        self.last_at: I8 = np.zeros((0, width), np.int64)  # last violating datapoint
        self.last_value: I8 = np.zeros((0, width), np.int64)
        self.seen: I8 = np.zeros(0, np.int64)  # [row] last report; 0 = the row is nobody's
        self.source = np.zeros(0, np.uint8)  # [row] where the last report came from
        self.openings: dict[tuple[int, int], Opening] = {}
        self.seen_sets: dict[tuple[int, int], Seen] = {}  # last violating value of an open alarm on a set
        self._now: int | None = None
        self._due = FAR
        self._deadline = FAR  # no open alarm falls silent before this

    # ---- reports ----

    def handle(self, share: Share) -> list[Transition]:
        """Judge the share's reports in order, and let time pass to its last entry."""
        effects: list[Transition] = []
        ts, at, last = share.batch.ts, share.first, share.last
        while at < last:
            now = int(ts[at])
            if self._now is None or now >= self._due:
                self._advance(Moment(int(share.batch.frames.seq[at]), now), effects)
            # An alarm that is raised here cannot fall silent within the piece, nor can a window end in it.
            until = min(self._due, now + self._silence_ns)
            cut = last if ts[last - 1] < until else max(at + 1, at + int(np.searchsorted(ts[at:last], until)))
            self._judge(share, at, cut, effects)
            self._observe(share, at, cut)
            self._now = int(ts[cut - 1])
            at = cut
        if last > share.first:
            self.position = int(share.batch.frames.seq[last - 1])
        return effects

    def emptied(self) -> "GroupActor":
        """A new one of the same make that knows nothing."""
        return GroupActor(self.key, self.slots, self._schema, self._limits, self.identity, self.meter.measures)

    def begin(self, moment: Moment) -> None:
        """The actor is new at this place of the log: what came before does not count."""
        for judge in self.judges.values():
            judge.begin(moment.ts)
        self.meter.begin(moment.ts)
        self.advance(moment)

    def advance(self, moment: Moment) -> list[Transition]:
        """Let time pass to an entry that is not a report."""
        effects: list[Transition] = []
        if self._now is None or moment.ts >= self._due:
            self._advance(moment, effects)
        self._now = max(self._now or 0, moment.ts)
        self.position = max(self.position, moment.position)
        return effects

    def pause(self, down: Downtime, source: int | None) -> list[Transition]:
        """Take our own downtime out of the silence of the devices; `source` None = of all of them.

        Windows are closed first: the end of one is a datapoint, from which on the downtime counts.
        """
        effects: list[Transition] = []
        moment = Moment(down.position, down.ts)
        if self._now is not None:
            self._close_ended(Moment(down.position, min(down.since, down.ts)), effects)
            sources = range(SOURCES) if source is None else [source]
            self.meter.pause(down.since, down.ts, sources, self.source)
            self._close_ended(moment, effects)
        rows = np.ones(len(self.seen), bool) if source is None else self.source == source
        for times in (self.heard, self.seen):
            before = times[rows]
            moved = before + np.maximum(0, down.ts - np.maximum(down.since, before))
            times[rows] = np.where(before > 0, moved, 0)
        return effects + self.advance(moment)

    def _judge(self, share: Share, first: int, last: int, effects: list[Transition]) -> None:
        entries, registered = self._entries(share, first, last)
        if not len(entries):
            return
        rows = self._rows(share.batch, entries, registered)
        times: I8 = np.empty(len(rows), np.int64)
        _hear(entries, rows, share.batch.ts, share.batch.sources, times, self.seen, self.source)
        shape = (len(entries), len(self.slots))
        run = Run(
            share.batch.columns, entries, rows, times, np.full(shape, alarm.NO_DATA, np.int8), np.zeros(shape, np.int64)
        )
        for judge in self.judges.values():
            judge.judge(run)
        if len(self._at_once):
            found = self._step(rows, times, self._at_once, self._at_once, run.verdicts, run.values)
            self._report_transitions(share.batch, run, found, effects)

    def _observe(self, share: Share, first: int, last: int) -> None:
        """Take in what the brokers told within [first, last): it is judged when its windows end."""
        events = share.batch.events
        if events is None or not self.meter.measures:
            return
        low, high = np.searchsorted(events.entry[share.events], (first, last))
        chosen = share.events[low:high]
        if self.poison and len(chosen):
            positions = share.batch.frames.seq[events.entry[chosen]]
            chosen = chosen[~np.isin(positions, list(self.poison))]
        if not len(chosen):
            return
        rows: I4 = np.full(len(events.things), -1, np.int32)
        for thing in np.unique(events.thing[chosen]).tolist():
            rows[thing] = self._row(events.things[thing], int(share.registered_things[thing]))
        row = rows[events.thing[chosen]]
        self.seen[row] = share.batch.ts[events.entry[chosen]]
        self.source[row] = events.source[chosen]
        self.meter.observe(events, chosen, row)

    def hang_up(self, name: bytes, registered: int, time: int) -> None:
        """A connection of a thing ended without being told: what it went through has stopped."""
        row = self.roster.find(name, registered)
        if row is not None:
            self.meter.hang_up(row, time)

    def seat(self, standings: Iterable[tuple[Standing, bool]]) -> None:
        """Who is connected now, of its own things, (standing, registered): what was known of that is replaced."""
        self.meter.unseat()
        for standing, registered in standings:
            row = self._row(standing.thing, int(registered))
            if not self.seen[row]:
                self.seen[row], self.source[row] = max(standing.since, standing.until), standing.source
            self.meter.seed(row, standing)

    def taken(self) -> list[Formed]:
        """The datapoints that were formed since they were last taken."""
        formed, self._formed = self._formed, []
        return formed

    def _entries(self, share: Share, first: int, last: int) -> tuple[I4, U1]:
        """The actor's reports within [first, last): (entries, registered)."""
        entries, registered = share.entries, share.registered
        if (first, last) != (share.first, share.last):
            low, high = np.searchsorted(entries, (first, last))
            entries, registered = entries[low:high], registered[low:high]
        if self.poison:
            good = ~np.isin(share.batch.frames.seq[entries], list(self.poison))
            entries, registered = entries[good], registered[good]
        return entries, registered

    def _rows(self, batch: Batch, entries: I4, registered: U1) -> I4:
        rows, missing = self.roster.recognise(batch.marks, entries, registered)
        if missing:
            for k in np.flatnonzero(rows < 0).tolist():
                rows[k] = self._row(batch.names[entries[k]], int(registered[k]))
            self.roster.remember(batch.marks[entries], registered, rows)
        return rows

    def _row(self, name: bytes, registered: int) -> int:
        row = self.roster.find(name, registered)
        if row is None:
            row = self.roster.add(name, registered)
            if row >= self.roster.capacity:
                self._grow(max(ROWS_START, row + row // 2 + 1))
        return row

    def _grow(self, rows: int) -> None:
        more = rows - self.roster.capacity
        width = len(self.slots)
        for name, kind in (("alarmed", np.uint8), ("streak", np.uint8)):
            setattr(self, name, np.concatenate((getattr(self, name), np.zeros((more, width), kind))))
        for name in ("heard", "last_at", "last_value"):
            setattr(self, name, np.concatenate((getattr(self, name), np.zeros((more, width), np.int64))))
        self.seen = np.concatenate((self.seen, np.zeros(more, np.int64)))
        self.source = np.concatenate((self.source, np.zeros(more, np.uint8)))
        for judge in self.judges.values():
            judge.grow(rows)
        self.meter.grow(rows)
        self.roster.capacity = rows

    # ---- the alarm machine ----

    def _step(self, rows: I4, times: I8, slots: I4, columns: I4, verdicts: I1, values: I8) -> list[list[int]]:
        """[k, slot, kind, last violation at, its value] of everything that must be told."""
        out: I8 = np.empty((len(rows) * len(slots), 5), np.int64)
        found = alarm.step_all(
            rows, times, slots, columns, verdicts, values, self._to_alarm, self._to_clear, self._is_set,
            self.alarmed, self.streak, self.heard, self.last_at, self.last_value, out,
        )  # fmt: skip
        told: list[list[int]] = out[:found].tolist()
        return told

    def _report_transitions(
        self, batch: Batch, run: Run, found: Iterable[Sequence[int]], effects: list[Transition]
    ) -> None:
        for k, slot, kind, last_at, last_value in found:
            entry, row, now = int(run.entries[k]), int(run.rows[k]), int(run.times[k])
            is_set = self.slots[slot].metric.is_set
            seen = Seen.at(batch.frames, entry) if is_set else None
            if kind == alarm.STILL:
                assert seen is not None
                self.seen_sets[row, slot] = seen
                continue
            moment = Moment(int(batch.frames.seq[entry]), now)
            value = seen.value(self.slots[slot].metric) if seen else self._number(slot, int(run.values[k, slot]))
            if kind == alarm.RAISED:
                effects.append(self._raise(moment, row, slot, value, 0, now))
                if seen:
                    self.seen_sets[row, slot] = seen
            else:
                effects.append(self._clear(moment, row, slot, value, last_at, last_value, now))

    def _raise(self, moment: Moment, row: int, slot: int, value: MetricValue, end: int, time_ns: int) -> Transition:
        opening = Opening(self._violation_id(moment.position, row, slot, end), time_ns)
        self.openings[row, slot] = opening
        self._deadline = min(self._deadline, int(self.heard[row, slot]) + self._silence_ns)
        self._set_due(moment.ts)
        reason = in_words(self.slots[slot], value, self._judge_of[slot].offenders(slot, value))
        return self._transition("in-alarm", moment, row, slot, opening, time_ns, value, time_ns, value, reason)

    def _clear(
        self, moment: Moment, row: int, slot: int, value: MetricValue, last_at: int, last_value: int, time_ns: int
    ) -> Transition:
        last = self._last_value(row, slot, last_value)
        opening = self._close(row, slot)
        reason = in_words(self.slots[slot], value, ())
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
        name, registered = self.identity_of(row)
        return Transition(
            event_type, opening.violation_id, self.slots[slot].profile, self.slots[slot].behavior, name.decode(),
            registered, time_ns, value, opening.start_ns, last_at, last, moment.position, reason,
        )  # fmt: skip

    def _close(self, row: int, slot: int) -> Opening:
        self.seen_sets.pop((row, slot), None)
        return self.openings.pop((row, slot))

    def _violation_id(self, position: int, row: int, slot: int, end: int) -> str:
        name, registered = self.identity_of(row)
        place = self.slots[slot]
        parts = [self.identity, place.profile, place.behavior.name, name.decode(), str(position), str(end)]
        if not registered:  # both identities of a name may be raised at the end of one window
            parts.append("unregistered")
        return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def _number(self, slot: int, value: int) -> MetricValue:
        if self.slots[slot].metric.value_field == "number":
            return MetricValue(number=float_of(value))
        return MetricValue(count=value)

    def _last_value(self, row: int, slot: int, value: int) -> MetricValue | None:
        if not self.slots[slot].metric.is_set:
            return self._number(slot, value)
        seen = self.seen_sets.get((row, slot))
        return seen.value(self.slots[slot].metric) if seen else None

    # ---- the passing of time ----

    def _advance(self, moment: Moment, effects: list[Transition]) -> None:
        """Close what ends by `moment`: windows in order of their ends, then silent alarms, then idle rows."""
        if self._now is not None:
            self._close_ended(moment, effects)
            if self._deadline < moment.ts:
                self._invalidate_silent(moment, effects)
            hour = moment.ts // HOUR_NS * HOUR_NS
            if hour > self._now:
                self._give_up_idle(hour)
        self.meter.start(moment.ts)
        self._set_due(moment.ts)

    def _set_due(self, now: int) -> None:
        windows = min((end for judge in self.judges.values() for end in judge.ends(now)), default=FAR)
        hour = (now // HOUR_NS + 1) * HOUR_NS
        self._due = min(windows, self.meter.due(), hour, self._deadline + 1)

    def _close_ended(self, moment: Moment, effects: list[Transition]) -> None:
        """In the order of the ends. A window of reports after an empty one holds nothing: each duration is closed once
        and the rest is skipped. Those of what the brokers tell end later, and may count what did not happen.
        """
        assert self._now is not None
        own = {end for judge in self.judges.values() for end in judge.ends(self._now) if end <= moment.ts}
        told = self.meter.ends(moment.ts)
        for end in sorted(own | told):
            if end in own:
                self._close_windows(moment, end, effects)
            if end in told:
                self._close_measures(moment, end, effects)

    def _close_windows(self, moment: Moment, end: int, effects: list[Transition]) -> None:
        for judge in self.judges.values():
            for closed in judge.close(end):
                self._decide(moment, end, closed, effects)

    def _close_measures(self, moment: Moment, end: int, effects: list[Transition]) -> None:
        for points in self.meter.close(end, self.source):
            for slot, weigher in self._weighed.get(points.measure, ()):
                self._decide(moment, end, weigher.weigh(slot, points), effects)
            measure = self.meter.measures[points.measure]
            if measure.is_kept:
                things = tuple(self.identity_of(row)[0] for row in points.rows.tolist())
                self._formed.append(
                    Formed(measure.series, end, moment.position, things, points.figures, points.addresses)
                )

    def _decide(self, moment: Moment, end: int, closed: Closed, effects: list[Transition]) -> None:
        """Step the alarms of one slot by the verdicts on a window that ended."""
        slot = closed.slot
        times = np.full(len(closed.rows), end, np.int64)
        # What was measured was heard of, whether it could be judged or not.
        self.heard[closed.rows, slot] = np.maximum(self.heard[closed.rows, slot], end)
        found = self._step(closed.rows, times, np.array([slot], np.int32), FIRST, closed.verdicts, closed.values)
        told = [(self.identity_of(int(closed.rows[f[0]])), f) for f in found]
        for _, (k, _, kind, last_at, last_value) in sorted(told):  # by name: rows are an accident of history
            row = int(closed.rows[k])
            value = closed.sets[k] if closed.sets else self._number(slot, int(closed.values[k, 0]))
            if kind == alarm.CLEARED:
                effects.append(self._clear(moment, row, slot, value, last_at, last_value, end))
                continue
            if kind == alarm.RAISED:
                effects.append(self._raise(moment, row, slot, value, end, end))
            if closed.sets:
                self.seen_sets[row, slot] = Seen.of(value)

    def identity_of(self, row: int) -> Identity:
        name = self.roster.names[row]
        assert name is not None
        return name, self.roster.find(name, 1) == row

    def _invalidate_silent(self, moment: Moment, effects: list[Transition]) -> None:
        limits = {key: int(self.heard[key]) + self._silence_ns for key in self.openings}
        silent = sorted(
            (limit, slot, self.identity_of(row), row) for (row, slot), limit in limits.items() if limit < moment.ts
        )
        for limit, slot, _, row in silent:
            effects.append(self._invalidate(moment, row, slot, limit, _silence_words(self._silence_ns)))
        self._deadline = min((limits[key] for key in self.openings), default=FAR)

    def _give_up_idle(self, hour: int) -> None:
        quiet = np.flatnonzero((self.seen > 0) & (self.seen < hour - ROW_IDLE_NS))
        wanted = self.alarmed[quiet].any(axis=1) | self.meter.is_missed(quiet, hour)
        self.forget(quiet[~wanted])

    def forget(self, rows: Rows) -> None:
        """Give rows up: their next owners find nothing."""
        for row in rows.tolist():
            self.roster.remove(row, int(self.identity_of(row)[1]))
        for array in (self.alarmed, self.streak, self.heard, self.last_at, self.last_value, self.seen, self.source):
            array[rows] = 0
        for judge in self.judges.values():
            judge.forget(rows)
        self.meter.forget(rows)

    def withdraw(self, moment: Moment, keys: set[tuple[int, int]], reason: str) -> list[Transition]:
        """End open alarms, (row, slot), whose behavior or thing is no longer monitored (spec.md §3.6)."""
        ended = sorted(keys, key=lambda key: (key[1], *self.identity_of(key[0])))
        return [self._invalidate(moment, row, slot, moment.ts, reason) for row, slot in ended]

    def inherit(self, old: "GroupActor", slots: Sequence[tuple[int, int]], things: Sequence[Placed]) -> None:
        """Take over the state of an old actor's things, for (its slot, own slot) pairs that measure the same.

        A behavior whose criteria changed keeps an open violation and starts counting anew (spec.md §3.6).
        """
        if not things and old.key != self.key:
            return  # where it is the same targets, both have watched nobody, but the older for longer
        source = np.array([row for row, _, _ in things], np.intp)
        target = source if self._takes_all(old, things) else self._places(things)
        self.source[target] = np.where(old.seen[source] > self.seen[target], old.source[source], self.source[target])
        self.seen[target] = np.maximum(self.seen[target], old.seen[source])
        for theirs, own in slots:
            for name in ("alarmed", "streak", "heard", "last_at", "last_value"):
                getattr(self, name)[target, own] = getattr(old, name)[source, theirs]
            if old.slots[theirs].behavior.criteria != self.slots[own].behavior.criteria:
                self.streak[target, own] = 0
        rows = dict(zip(source.tolist(), target.tolist(), strict=True))
        self.openings |= _moved(old.openings, rows, dict(slots))
        self.seen_sets |= _moved(old.seen_sets, rows, dict(slots))
        for name, judge in self.judges.items():
            if name in old.judges:
                judge.adopt(old.judges[name], self._same_windows(old, judge, slots), source, target)
        self.meter.adopt(old.meter, source, target)
        self._deadline = min((int(self.heard[key]) + self._silence_ns for key in self.openings), default=FAR)
        assert self._now is not None  # it has begun
        self._set_due(self._now)

    def measures_with(self, old: "GroupActor") -> bool:
        """Whether both measure the same of what the brokers tell."""
        keys = {measure.key for measure in old.meter.measures}
        return any(measure.key in keys for measure in self.meter.measures)

    def _takes_all(self, old: "GroupActor", things: Sequence[Placed]) -> bool:
        """Where everything moves into an empty actor, and that is the rule, things keep their rows."""
        if len(self.roster) or len(things) < len(old.roster):
            return False
        self.roster.follow(old.roster)
        if len(self.roster.names) > self.roster.capacity:
            self._grow(len(old.seen))
        return True

    def _places(self, things: Sequence[Placed]) -> Rows:
        return np.array([self._row(name, int(registered)) for _, name, registered in things], np.intp)

    def _same_windows(self, old: "GroupActor", judge: Judge, slots: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The pairs of this judge's slots that also have the same duration: their windows mean the same."""
        return [
            (theirs, own)
            for theirs, own in slots
            if own in judge.slots
            and theirs in old._judge_of
            and old._judge_of[theirs].__class__ is judge.__class__
            and _duration(old.slots[theirs].behavior) == _duration(self.slots[own].behavior)
        ]

    # ---- what others may see ----

    def active(self) -> list[tuple[str, int, MetricValue | None]]:
        """(violation id, last violation ns, its value) of every open alarm. The value of a set is read again."""
        return [self.last_violation(key) for key in self.openings]

    def last_violation(self, key: tuple[int, int]) -> tuple[str, int, MetricValue | None]:
        """As `active`, of the open alarm of a (row, slot)."""
        value = self._last_value(*key, int(self.last_value[key]))
        return self.openings[key].violation_id, int(self.last_at[key]), value

    def moved(self, known: Mapping[str, int]) -> list[tuple[int, int]]:
        """(row, slot) of the open alarms whose last violation (ns) is not the one that `known` has by violation id."""
        places = self.openings.items()
        return [key for key, opening in places if known.get(opening.violation_id) != self.last_at[key]]

    def dump(self) -> dict[str, Any]:
        """The whole state, for a checkpoint: arrays (copied by whoever keeps them) and plain values."""
        names = ("alarmed", "streak", "heard", "last_at", "last_value", "seen", "source")
        return {
            "position": self.position,
            "now": self._now,
            "roster": self.roster.dump(),
            "arrays": {name: getattr(self, name) for name in names},
            "openings": [(row, slot, o.violation_id, o.start_ns) for (row, slot), o in self.openings.items()],
            "meter": self.meter.dump(),
            "seen_sets": [(row, slot, s.payload, s.kind) for (row, slot), s in self.seen_sets.items()],
            "judges": {name: judge.dump() for name, judge in self.judges.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `dump` gave; the slots and limits must be the same."""
        self.position, self._now = state["position"], state["now"]
        self.roster.load(state["roster"])
        for name, array in state["arrays"].items():
            setattr(self, name, array.copy())
        self.openings = {(row, slot): Opening(i, start) for row, slot, i, start in state["openings"]}
        self.seen_sets = {(row, slot): Seen(payload, int(kind)) for row, slot, payload, kind in state["seen_sets"]}
        if "meter" in state:
            self.meter.load(state["meter"])
        else:  # of a version that heard no brokers
            self.meter.grow(self.roster.capacity)
        for name, judge in self.judges.items():
            judge.load(state["judges"][name])
        self._deadline = min((int(self.heard[key]) + self._silence_ns for key in self.openings), default=FAR)
        if self._now is not None:
            self._set_due(self._now)


def _moved(
    kept: Mapping[tuple[int, int], Kept], rows: Mapping[int, int], slots: Mapping[int, int]
) -> dict[tuple[int, int], Kept]:
    return {(rows[row], slots[slot]): what for (row, slot), what in kept.items() if row in rows and slot in slots}


def _consecutive(behavior: Behavior) -> tuple[int, int]:
    criteria_ = behavior.criteria
    assert criteria_ is not None
    return criteria_.consecutive_datapoints_to_alarm or 1, criteria_.consecutive_datapoints_to_clear or 1


def _duration(behavior: Behavior) -> int | None:
    return behavior.criteria.duration_seconds if behavior.criteria else None


def _silence_words(silence_ns: int) -> str:
    return f"no datapoint for more than {silence_ns / 3600 / NS:g} h"


@njit("void(i4[::1],i4[::1],i8[::1],u1[::1],i8[::1],i8[::1],u1[::1])", nogil=True, cache=True)
def _hear(entries: I4, rows: I4, ts: I8, sources: U1, times: I8, seen: I8, source: U1) -> None:
    """Note when each row's thing reported and where; fills `times`. They ascend, so the last of a row wins."""
    for k in range(len(rows)):
        entry, row = np.uint64(entries[k]), np.uint64(rows[k])
        times[k] = seen[row] = ts[entry]
        source[row] = sources[entry]
