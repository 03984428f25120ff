"""The slow, obvious twin of what is judged of the brokers' events: every event kept for ever, windows counted by hand.

Written from spec.md §1.2, §1.3, §1.5 and design.md §4, §12 #5. Clients are the things, events name no connections.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from naive import Detect, Entry, Event, Heard, Passed, Paused, Track, complies, in_order, nearest_rank, shown

from actors.topic_filters import matches
from config.model import NS, Behavior, MetricValue, Rules

KINDS_OF = {
    "aws:num-messages-sent": {"published"},
    "aws:num-messages-received": {"delivered"},
    "aws:num-authorization-failures": {"denied"},
    "aws:num-connection-attempts": {"connected", "connect-failed"},
    "aws:num-disconnects": {"disconnected"},
}


@dataclass(frozen=True)
class Fact:
    """One event, as a story tells it."""

    thing: str
    kind: str
    time: int
    topic: str = ""
    ip: str = ""
    count: int = 1
    least: int = 0
    most: int = 0


@dataclass(frozen=True)
class Told:
    """An entry of events."""

    position: int
    ts: int
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Cut(Paused):
    """A pause with which all connections ended."""


@dataclass
class Client:
    """One thing's connections: when each began and ended (None: it is open)."""

    facts: list[Fact] = field(default_factory=list)
    spans: list[list[int | None]] = field(default_factory=list)
    left: int | None = None  # when it was last seen to go

    def is_open(self) -> bool:
        return bool(self.spans) and self.spans[-1][1] is None


class CloudDetect(Detect):
    """As `Detect`, for behaviors on what the brokers tell; all things are watched, none is registered."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self.clients: dict[str, Client] = {}
        self.closed: dict[int, int] = {}  # length -> the end of the last window that was closed
        self.unheard = (0, 0)
        self.late: dict[int, set[int]] = {}  # length -> facts that came when their window was closed
        self.paused: Paused | None = None

    def play(self, entries: Iterable[Entry | Told]) -> list[Event]:
        for entry in entries:
            self.paused = entry if isinstance(entry, Paused) else None
            if not isinstance(entry, Told):
                self.take(entry)
            else:
                self.take(Passed(entry.position, entry.ts))
            assert self.now is not None
            for length in self.lengths():
                self.closed.setdefault(length, self.open_from(self.now, length))
            if isinstance(entry, Told):
                for fact in entry.facts:
                    self.hear(fact, self.now)
            if isinstance(entry, Cut):
                for client in self.clients.values():
                    if client.is_open():
                        client.spans[-1][1] = client.left = self.now
        return in_order(self.events)

    def hear(self, fact: Fact, now: int) -> None:
        client = self.clients.setdefault(fact.thing, Client())
        time = min(fact.time, now)
        client.facts.append(Fact(**{**fact.__dict__, "time": time}))
        if fact.kind == "connected" and not client.is_open():
            client.spans.append([time, None])
        if fact.kind == "disconnected":
            if client.is_open():
                client.spans[-1][1] = time
            client.left = max(time, client.left or 0)
        # Late for a window is late for ever: it is not in the lists of that window's length.
        for length in self.lengths():
            if time // length * length < self.closed[length]:
                self.late.setdefault(length, set()).add(id(client.facts[-1]))

    def lengths(self) -> set[int]:
        return {self.length(behavior) for _, behavior in self.behaviors()}

    def length(self, behavior: Behavior) -> int:
        assert behavior.criteria is not None
        return (behavior.criteria.duration_seconds or self.rules.limits.cloud_window_s) * NS

    def open_from(self, now: int, length: int) -> int:
        return (now - int(self.rules.limits.grace_s * NS)) // length * length

    # ---- windows ----

    def close_windows(self, now: int) -> None:
        if self.paused is not None:
            self.close_until(min(self.paused.since, now))
            self.unheard = (self.paused.since, now)
            for client in self.clients.values():
                if not client.is_open() and client.left is not None:
                    client.left += max(0, now - max(self.paused.since, client.left))
        self.close_until(now)

    def close_until(self, now: int) -> None:
        ends = {
            end
            for length, closed in self.closed.items()
            for end in range(closed + length, self.open_from(now, length) + 1, length)
        }
        for end in sorted(ends):
            for place, behavior in self.behaviors():
                length = self.length(behavior)
                if end % length == 0 and end > self.closed[length]:
                    self.close_one(end, place, behavior)
            for length in self.closed:
                if end % length == 0:
                    self.closed[length] = max(self.closed[length], end)

    def close_one(self, end: int, place: tuple[str, str], behavior: Behavior) -> None:
        criteria = behavior.criteria
        assert criteria is not None
        assert criteria.comparison_operator is not None
        length = self.length(behavior)
        partial = self.unheard[0] < end and self.unheard[1] > end - length
        values = {
            thing: value
            for thing, client in sorted(self.clients.items())
            if (value := self.value(client, behavior, end)) is not None
            and not (partial and not self.did_anything(client, end, length))
        }
        for thing in values:
            track = self.tracks.setdefault(place, {}).setdefault((thing, False), Track())
            track.heard = max(track.heard or 0, end)
        if criteria.statistical_threshold is not None:
            population = sorted(values.values())
            if len(population) < max(1, self.rules.limits.population_min):
                return
            expected: Any = population[nearest_rank(criteria.statistical_threshold.statistic, len(population)) - 1]
        else:
            assert criteria.value is not None
            expected = next(v for v in shown(criteria.value) if v is not None)
            if partial and criteria.comparison_operator.startswith("greater"):
                return
        for thing, value in values.items():
            good = complies(criteria.comparison_operator, value, expected)
            identity = (thing, False)
            self.verdict(end, place, behavior, identity, self.tracks[place][identity], value, good=good)

    def value(self, client: Client, behavior: Behavior, end: int) -> Any:
        metric, length = behavior.metric or "", self.length(behavior)
        inside = [fact for fact in self.inside(client, end, length) if self.counts(fact, behavior)]
        if metric in KINDS_OF:
            was_there = self.did_anything(client, end, length) or self.was_connected(client, end)
            return sum(f.count for f in inside if f.kind in KINDS_OF[metric]) if was_there else None
        if metric == "aws:message-byte-size":
            sizes = [fact for fact in inside if fact.kind == "published"]
            operator = behavior.criteria.comparison_operator if behavior.criteria else None
            statistical = behavior.criteria is not None and behavior.criteria.statistical_threshold is not None
            if not sizes:
                return None
            if (operator or "").startswith("greater") and not statistical:
                return min(fact.least for fact in sizes)
            return max(fact.most for fact in sizes)
        if metric == "aws:source-ip-address":
            kind = "published" if behavior.metric_dimension else "connected"
            return tuple(dict.fromkeys(f.ip for f in inside if f.kind == kind and f.ip)) or None
        assert metric == "aws:disconnect-duration"
        return self.absence(client, end)

    def inside(self, client: Client, end: int, length: int) -> list[Fact]:
        late = self.late.get(length, set())
        return [fact for fact in client.facts if end - length <= fact.time < end and id(fact) not in late]

    def counts(self, fact: Fact, behavior: Behavior) -> bool:
        dimension = behavior.metric_dimension
        if dimension is None:
            return True
        [filters] = [d.string_values for d in self.rules.dimensions if d.name == dimension.dimension_name]
        found = fact.topic != "" and any(matches(one, fact.topic, fact.thing) for one in filters)
        return found != (dimension.operator == "NOT_IN")

    def did_anything(self, client: Client, end: int, length: int) -> bool:
        ended = [(began, over) for began, over in client.spans if over is not None]
        reached = any(began < end and over >= end - length for began, over in ended)
        return reached or bool(self.inside(client, end, length))

    def was_connected(self, client: Client, end: int) -> bool:
        return client.is_open() and client.spans[-1][0] < end  # type: ignore[operator]

    def absence(self, client: Client, end: int) -> int | None:
        if client.is_open() and client.spans[-1][0] <= end:  # type: ignore[operator]
            return 0
        if client.left is None:
            return None
        return 0 if client.left > end else (end - client.left) // NS

    def metric_value(self, behavior: Behavior, value: Any) -> MetricValue:
        return MetricValue(cidrs=value) if isinstance(value, tuple) else MetricValue(count=value)


__all__ = ["CloudDetect", "Cut", "Fact", "Heard", "Told"]
