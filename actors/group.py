"""The actor of one thing group: reports in, transitions of alarms out.

It owns the things of one set of targets and judges them by every behavior of every profile attached to that set.
It knows its things by row (`actors.roster`), and hands reports to its judges, events to its meter, and verdicts to its
alarms. Time is the log's: it passes with each entry, and before an entry at t is looked at, every window that ends by
t is closed (design.md §4). Nothing here depends on how the log was cut into batches:
handle(a + b) ≡ handle(a); handle(b).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numba import njit

from actors.alarm import NO_DATA
from actors.alarms import Alarms, moved_on
from actors.columns import Schema
from actors.criteria._base import FAR, Judge, Run, Slot, Weigher
from actors.effects import Formed, Transition
from actors.judges import is_windowed, judges_of, weighed_by, weighers_of
from actors.measures import Measure
from actors.messages import I4, I8, U1, Batch, Downtime, Moment, Share
from actors.meter import SOURCES, Meter
from actors.presence import Standing
from actors.roster import Placed, Roster
from actors.window import Rows
from config.model import NS, Behavior, Limits

HOUR_NS: Final = 3600 * NS
ROW_IDLE_NS: Final = 7 * 86_400 * NS  # a row without datapoint or alarm for this long is given up
ROWS_START: Final = 64


class GroupActor:
    """One set of targets. `key` names it, `slots` are its behaviors, `position` the last entry it has seen."""

    def __init__(
        self, key: str, slots: Sequence[Slot], schema: Schema, limits: Limits, identity: str,
        measures: Sequence[Measure] = (),
    ) -> None:  # fmt: skip
        self.key = key
        self.slots = tuple(slots)
        self._identity = identity  # of the log
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
        self.alarms = Alarms(self.slots, self.roster, self._judge_of, identity, int(limits.silence_s * NS))
        at_once = sorted(s for judge in self.judges.values() if not is_windowed(judge) for s in judge.slots)
        self._at_once: I4 = np.array(at_once, np.int32)
        self.seen: I8 = np.zeros(0, np.int64)  # [row] last report; 0 = the row is nobody's
        self.source = np.zeros(0, np.uint8)  # [row] where the last report came from
        self._now: int | None = None
        self._ends = FAR  # when the next window or hour ends

    # ---- reports ----

    def handle(self, share: Share) -> list[Transition]:
        """Judge the share's reports in order, and let time pass to its last entry."""
        effects: list[Transition] = []
        ts, at, last = share.batch.ts, share.first, share.last
        while at < last:
            now = int(ts[at])
            if self._now is None or now >= self._due():
                self._advance(Moment(int(share.batch.frames.seq[at]), now), effects)
            # An alarm that is raised here cannot fall silent within the piece, nor can a window end in it.
            until = min(self._due(), now + self.alarms.silence_ns)
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
        return GroupActor(self.key, self.slots, self._schema, self._limits, self._identity, self.meter.measures)

    def begin(self, moment: Moment) -> None:
        """The actor is new at this place of the log: what came before does not count."""
        for judge in self.judges.values():
            judge.begin(moment.ts)
        self.meter.begin(moment.ts)
        self.advance(moment)

    def advance(self, moment: Moment) -> list[Transition]:
        """Let time pass to an entry that is not a report."""
        effects: list[Transition] = []
        if self._now is None or moment.ts >= self._due():
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
        rows = np.flatnonzero(np.ones(len(self.seen), bool) if source is None else self.source == source)
        self.alarms.pause(rows, down.since, down.ts)
        self.seen[rows] = moved_on(self.seen[rows], down.since, down.ts)
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
            share.batch.columns, entries, rows, times, np.full(shape, NO_DATA, np.int8), np.zeros(shape, np.int64)
        )
        for judge in self.judges.values():
            judge.judge(run)
        if len(self._at_once):
            effects += self.alarms.judged(share.batch, run, self._at_once)

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
        self.alarms.grow(more)
        self.seen = np.concatenate((self.seen, np.zeros(more, np.int64)))
        self.source = np.concatenate((self.source, np.zeros(more, np.uint8)))
        for judge in self.judges.values():
            judge.grow(rows)
        self.meter.grow(rows)
        self.roster.capacity = rows

    # ---- the passing of time ----

    def _advance(self, moment: Moment, effects: list[Transition]) -> None:
        """Close what ends by `moment`: windows in order of their ends, then silent alarms, then idle rows."""
        if self._now is not None:
            self._close_ended(moment, effects)
            if self.alarms.deadline < moment.ts:
                effects += self.alarms.silent(moment)
            hour = moment.ts // HOUR_NS * HOUR_NS
            if hour > self._now:
                self._give_up_idle(hour)
        self.meter.start(moment.ts)
        self._find_ends(moment.ts)

    def _due(self) -> int:
        """Before this no window ends, and no alarm falls silent."""
        return min(self._ends, self.alarms.deadline + 1)

    def _find_ends(self, now: int) -> None:
        windows = min((end for judge in self.judges.values() for end in judge.ends(now)), default=FAR)
        hour = (now // HOUR_NS + 1) * HOUR_NS
        self._ends = min(windows, self.meter.due(), hour)

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
                effects += self.alarms.closed(moment, end, closed)

    def _close_measures(self, moment: Moment, end: int, effects: list[Transition]) -> None:
        for points in self.meter.close(end, self.source):
            for slot, weigher in self._weighed.get(points.measure, ()):
                effects += self.alarms.closed(moment, end, weigher.weigh(slot, points))
            measure = self.meter.measures[points.measure]
            if measure.is_kept:
                things = tuple(self.roster.identity_of(row)[0] for row in points.rows.tolist())
                self._formed.append(
                    Formed(measure.series, end, moment.position, things, points.figures, points.addresses)
                )

    def _give_up_idle(self, hour: int) -> None:
        quiet = np.flatnonzero((self.seen > 0) & (self.seen < hour - ROW_IDLE_NS))
        wanted = self.alarms.alarmed[quiet].any(axis=1) | self.meter.is_missed(quiet, hour)
        self.forget(quiet[~wanted])

    def forget(self, rows: Rows) -> None:
        """Give rows up: their next owners find nothing."""
        for row in rows.tolist():
            self.roster.remove(row, int(self.roster.identity_of(row)[1]))
        for array in (self.seen, self.source):
            array[rows] = 0
        self.alarms.forget(rows)
        for judge in self.judges.values():
            judge.forget(rows)
        self.meter.forget(rows)

    def inherit(self, old: "GroupActor", slots: Sequence[tuple[int, int]], things: Sequence[Placed]) -> None:
        """Take over the state of an old actor's things, for (its slot, own slot) pairs that measure the same."""
        if not things and old.key != self.key:
            return  # where it is the same targets, both have watched nobody, but the older for longer
        source = np.array([row for row, _, _ in things], np.intp)
        target = source if self._takes_all(old, things) else self._places(things)
        self.source[target] = np.where(old.seen[source] > self.seen[target], old.source[source], self.source[target])
        self.seen[target] = np.maximum(self.seen[target], old.seen[source])
        self.alarms.inherit(old.alarms, slots, source, target)
        for name, judge in self.judges.items():
            if name in old.judges:
                judge.adopt(old.judges[name], self._same_windows(old, judge, slots), source, target)
        self.meter.adopt(old.meter, source, target)
        assert self._now is not None  # it has begun
        self._find_ends(self._now)

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

    # ---- checkpoints ----

    def dump(self) -> dict[str, Any]:
        """The whole state, for a checkpoint: arrays (copied by whoever keeps them) and plain values."""
        alarms = self.alarms.dump()
        return {
            **alarms,
            "position": self.position,
            "now": self._now,
            "roster": self.roster.dump(),
            "arrays": {**alarms["arrays"], "seen": self.seen, "source": self.source},
            "meter": self.meter.dump(),
            "judges": {name: judge.dump() for name, judge in self.judges.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `dump` gave; the slots and limits must be the same."""
        self.position, self._now = state["position"], state["now"]
        self.roster.load(state["roster"])
        self.seen, self.source = (state["arrays"][name].copy() for name in ("seen", "source"))
        self.alarms.load(state)
        if "meter" in state:
            self.meter.load(state["meter"])
        else:  # of a version that heard no brokers
            self.meter.grow(self.roster.capacity)
        for name, judge in self.judges.items():
            judge.load(state["judges"][name])
        if self._now is not None:
            self._find_ends(self._now)


def _duration(behavior: Behavior) -> int | None:
    return behavior.criteria.duration_seconds if behavior.criteria else None


@njit("void(i4[::1],i4[::1],i8[::1],u1[::1],i8[::1],i8[::1],u1[::1])", nogil=True, cache=True)
def _hear(entries: I4, rows: I4, ts: I8, sources: U1, times: I8, seen: I8, source: U1) -> None:
    """Note when each row's thing reported and where; fills `times`. They ascend, so the last of a row wins."""
    for k in range(len(rows)):
        entry, row = np.uint64(entries[k]), np.uint64(rows[k])
        times[k] = seen[row] = ts[entry]
        source[row] = sources[entry]
