"""The slow, obvious twin of the core: whole Detect for device-side and custom metrics, and a twin of every kernel.

Written from spec.md §1.3-§3.6 and design.md §4, with dictionaries, loops and fractions, by someone not looking at the
kernels. `Detect` is told accepted reports, ticks, pauses and changes; it answers with events.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from msgspec.structs import replace

from config.model import NS, Behavior, Criteria, MetricValue, Rules, SecurityProfile

HOUR = 3600 * NS
WEEK = 7 * 24 * HOUR
LARGEST = 2**63 - 1

DELTAS = {"aws:all-bytes-in", "aws:all-bytes-out", "aws:all-packets-in", "aws:all-packets-out"}
COUNTS = DELTAS | {
    "aws:num-listening-tcp-ports", "aws:num-listening-udp-ports", "aws:num-established-tcp-connections",
}  # fmt: skip
FIELD_OF = {
    "aws:listening-tcp-ports": "ports", "aws:listening-udp-ports": "ports", "aws:destination-ip-addresses": "cidrs",
    "number": "number", "number-list": "numbers", "string-list": "strings", "ip-address-list": "cidrs",
}  # fmt: skip

Natural = int | float | tuple[Any, ...]
Identity = tuple[str, bool]  # name, registered


# ---- what the log says ----


@dataclass(frozen=True)
class Heard:
    """A report that was accepted; `values` is metric -> natural value, of the metrics that the report has."""

    position: int
    ts: int
    thing: str
    values: Mapping[str, Natural]
    source: str = ""


@dataclass(frozen=True)
class Passed:
    """An entry that says nothing: time passes."""

    position: int
    ts: int


@dataclass(frozen=True)
class Paused:
    """Nothing could be heard (from `source`; "" = from anyone) since `since`."""

    position: int
    ts: int
    since: int
    source: str = ""


@dataclass(frozen=True)
class Changed:
    position: int
    ts: int
    rules: Rules


Entry = Heard | Passed | Paused | Changed


@dataclass(frozen=True)
class Event:
    position: int
    profile: str
    behavior: str
    thing: str
    registered: bool
    type: str
    time: int
    value: MetricValue | None
    start: int
    last_violation: int
    last_value: MetricValue | None


def in_order(events: Iterable[Event]) -> list[Event]:
    """A canonical order: events of one entry are told apart by alarm; those of one alarm stay as they came."""
    return sorted(events, key=lambda e: (e.position, e.profile, e.behavior, e.thing, e.registered))


# ---- the definitions ----


def complies(operator: str, value: Natural, expected: Any) -> bool:
    """spec.md §1.4: a violation is NOT (metric OP threshold)."""
    match operator:
        case "less-than":
            return value < expected
        case "less-than-equals":
            return value <= expected
        case "greater-than":
            return value > expected
        case "greater-than-equals":
            return value >= expected
        case "in-port-set" | "in-set":
            return all(element in expected for element in value)  # type: ignore[union-attr]
        case "not-in-port-set" | "not-in-set":
            return not any(element in expected for element in value)  # type: ignore[union-attr]
        case "in-cidr-set":
            return all(in_any(address, expected) for address in value)  # type: ignore[union-attr]
        case "not-in-cidr-set":
            return not any(in_any(address, expected) for address in value)  # type: ignore[union-attr]
    raise AssertionError(operator)


def in_any(address: str, cidrs: Iterable[str]) -> bool:
    return any(in_cidr(address, cidr) for cidr in cidrs)


def in_cidr(address: str, cidr: str) -> bool:
    """Families never mix; an IPv4 address written as IPv6 is an IPv4 address, in a CIDR too."""
    found = unmapped(ip_address(address))
    network = ip_network(cidr, strict=False)
    if network.version == 6 and network.prefixlen >= 96 and network.network_address.ipv4_mapped is not None:
        network = ip_network((str(network.network_address.ipv4_mapped), network.prefixlen - 96))
    return found.version == network.version and found in network


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def nearest_rank(statistic: str, population: int) -> int:
    """The 1-based place of p0 … p100 among sorted values: the smallest with at least that share at or below it."""
    share = Fraction(statistic[1:]) / 100
    for place in range(1, population + 1):
        if Fraction(place, population) >= share:
            return place
    raise AssertionError(statistic)


def horizon(duration_s: int) -> int:
    """ns; D − min(15 s, D/20)."""
    return duration_s * NS - min(15 * NS, duration_s * NS // 20)


def sliding_sum(history: Sequence[tuple[int, int]], now: int, duration_s: int) -> int:
    return min(LARGEST, sum(value for ts, value in history if now - ts < horizon(duration_s)))


def in_window(ts: int, duration_s: int) -> int:
    """The end of the epoch-aligned window that holds `ts`."""
    return (ts // (duration_s * NS) + 1) * duration_s * NS


# ---- the registry ----


def groups_of(rules: Rules, thing: str) -> set[str] | None:
    """The groups of a registered thing with all their ancestors; None: not registered."""
    fleet = rules.fleet
    direct = {name for name, group in fleet.groups.items() if thing in group.things}
    if not direct and thing not in fleet.things:
        return None
    found = set(direct)
    for name in direct:
        parent = fleet.groups[name].parent
        while parent is not None:
            found.add(parent)
            parent = fleet.groups[parent].parent
    return found


def covers(rules: Rules, profile: SecurityProfile, identity: Identity) -> bool:
    thing, registered = identity
    if "all/things" in profile.targets and (not registered or groups_of(rules, thing) is not None):
        return True
    if not registered:
        return "all/unregistered-things" in profile.targets
    groups = groups_of(rules, thing)
    if groups is None:
        return False
    return "all/registered-things" in profile.targets or any(f"thinggroup/{g}" in profile.targets for g in groups)


# ---- the whole ----


@dataclass
class Track:
    """One identity under one behavior."""

    alarmed: bool = False
    streak: int = 0  # datapoints in a row that argue against `alarmed`
    heard: int | None = None  # last datapoint, moved on by pauses
    last_violation: int = 0
    last_value: MetricValue | None = None
    start: int = 0
    history: list[tuple[int, int]] = field(default_factory=list)  # deltas, all of them
    open_windows: dict[int, Natural] = field(default_factory=dict)  # end -> value so far


@dataclass
class Known:
    """One identity as the set of targets knows it."""

    seen: int  # last report, moved on by pauses
    source: str


Place = tuple[str, str]  # profile, behavior


class Detect:
    """Feed it the log, entry by entry."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.now: int | None = None
        self.tracks: dict[Place, dict[Identity, Track]] = {}
        self.known: dict[frozenset[str], dict[Identity, Known]] = {}
        self.events: list[Event] = []

    def run(self, entries: Iterable[Entry]) -> list[Event]:
        for entry in entries:
            self.take(entry)
        return in_order(self.events)

    def take(self, entry: Entry) -> None:
        before = self.now
        now = entry.ts if before is None else max(before, entry.ts)
        self.position = entry.position
        if before is not None:
            self.close_windows(now)
            if isinstance(entry, Paused):
                self.pause(now, entry)
            self.invalidate_silent(now)
            self.give_up_idle(before, now)
        self.now = now
        match entry:
            case Heard():
                self.judge(now, entry)
            case Changed():
                self.change(now, entry.rules)

    # ---- reports ----

    def judge(self, now: int, heard: Heard) -> None:
        identity = heard.thing, groups_of(self.rules, heard.thing) is not None
        for profile in self.rules.profiles:
            if not covers(self.rules, profile, identity):
                continue
            known = self.known.setdefault(frozenset(profile.targets), {})
            known[identity] = Known(now, heard.source)
            for behavior in profile.behaviors:
                value = heard.values.get(behavior.metric or "")
                if value is not None:
                    place = profile.security_profile_name, behavior.name
                    track = self.tracks.setdefault(place, {}).setdefault(identity, Track())
                    self.datapoint(now, place, behavior, identity, track, value)

    def datapoint(
        self, now: int, place: Place, behavior: Behavior, identity: Identity, track: Track, value: Natural
    ) -> None:
        criteria = behavior.criteria
        assert criteria is not None
        if criteria.statistical_threshold is not None:
            assert criteria.duration_seconds is not None
            end = in_window(now, criteria.duration_seconds)
            if behavior.metric in DELTAS:
                value = min(LARGEST, track.open_windows.get(end, 0) + value)  # type: ignore[operator]
            track.open_windows[end] = value
            return
        if behavior.metric in DELTAS:
            assert criteria.duration_seconds is not None and isinstance(value, int)
            track.history.append((now, value))
            value = sliding_sum(track.history, now, criteria.duration_seconds)
        assert criteria.value is not None and criteria.comparison_operator is not None
        expected = next(v for v in shown(criteria.value) if v is not None)
        good = complies(criteria.comparison_operator, value, expected)
        self.verdict(now, place, behavior, identity, track, value, good=good)

    def verdict(
        self,
        time: int,
        place: Place,
        behavior: Behavior,
        identity: Identity,
        track: Track,
        value: Natural,
        *,
        good: bool,
    ) -> None:
        """spec.md §3.4."""
        criteria = behavior.criteria
        assert criteria is not None
        track.heard = max(track.heard or 0, time)
        metric_value = self.metric_value(behavior, value)
        if not good:
            track.last_violation, track.last_value = time, metric_value
        if good == (not track.alarmed):
            track.streak = 0
            return
        track.streak += 1
        needed = criteria.consecutive_datapoints_to_clear if track.alarmed else criteria.consecutive_datapoints_to_alarm
        if track.streak < (needed or 1):
            return
        track.streak = 0
        track.alarmed = not track.alarmed
        if track.alarmed:
            track.start = time
        self.tell("in-alarm" if track.alarmed else "alarm-cleared", place, identity, track, time, metric_value)

    def metric_value(self, behavior: Behavior, value: Natural) -> MetricValue:
        assert behavior.metric is not None
        if behavior.metric in COUNTS:
            return MetricValue(count=value)  # type: ignore[arg-type]
        types = {m.metric_name: m.metric_type for m in self.rules.custom_metrics}
        name = FIELD_OF[types.get(behavior.metric, behavior.metric)]
        if isinstance(value, tuple):
            value = tuple(dict.fromkeys(value))  # a set: each element once, in the order of the report
        return MetricValue(**{name: float(value) if name == "number" else value})  # type: ignore[arg-type]

    def tell(
        self, type_: str, place: Place, identity: Identity, track: Track, time: int, value: MetricValue | None
    ) -> None:
        self.events.append(
            Event(
                self.position,
                *place,
                *identity,
                type_,
                time,
                value,
                track.start,
                track.last_violation,
                track.last_value,
            )
        )

    # ---- time ----

    def close_windows(self, now: int) -> None:
        """Every window with an end ≤ now, in order of the ends."""
        due = sorted(
            {end for tracks in self.tracks.values() for t in tracks.values() for end in t.open_windows if end <= now}
        )
        for end in due:
            for place, behavior in self.behaviors():
                tracks = self.tracks.get(place, {})
                window = {who: t.open_windows.pop(end) for who, t in tracks.items() if end in t.open_windows}
                if window:
                    self.close(end, place, behavior, window)

    def close(self, end: int, place: Place, behavior: Behavior, window: dict[Identity, Any]) -> None:
        criteria = behavior.criteria
        assert criteria is not None and criteria.statistical_threshold is not None
        population = sorted(window.values())
        enough = len(population) >= max(1, self.rules.limits.population_min) and population[0] >= 0
        for identity, value in sorted(window.items()):
            track = self.tracks[place][identity]
            track.heard = max(track.heard or 0, end)
            if enough:
                limit = population[nearest_rank(criteria.statistical_threshold.statistic, len(population)) - 1]
                assert criteria.comparison_operator is not None
                good = complies(criteria.comparison_operator, value, limit)
                self.verdict(end, place, behavior, identity, track, value, good=good)

    def pause(self, now: int, paused: Paused) -> None:
        for profile in self.rules.profiles:
            for identity, known in self.known.get(frozenset(profile.targets), {}).items():
                if paused.source in ("", known.source):
                    for behavior in profile.behaviors:
                        track = self.tracks.get((profile.security_profile_name, behavior.name), {}).get(identity)
                        if track is not None and track.heard is not None:
                            track.heard += max(0, now - max(paused.since, track.heard))
        for all_known in self.known.values():
            for known in all_known.values():
                if paused.source in ("", known.source):
                    known.seen += max(0, now - max(paused.since, known.seen))

    def invalidate_silent(self, now: int) -> None:
        silence = int(self.rules.limits.silence_s * NS)
        for place, _ in self.behaviors():
            for identity, track in self.tracks.get(place, {}).items():
                if track.alarmed and track.heard is not None and now - track.heard > silence:
                    self.invalidate(place, identity, track, track.heard + silence)

    def invalidate(self, place: Place, identity: Identity, track: Track, time: int) -> None:
        track.alarmed, track.streak = False, 0
        self.tell("alarm-invalidated", place, identity, track, time, None)

    def give_up_idle(self, before: int, now: int) -> None:
        """On the first entry of an hour: what has neither reported for a week nor an open alarm is forgotten."""
        hour = now // HOUR * HOUR
        if hour <= before:
            return
        for targets, all_known in self.known.items():
            places = [
                (p.security_profile_name, b.name)
                for p in self.rules.profiles
                if frozenset(p.targets) == targets
                for b in p.behaviors
            ]
            for identity in [who for who, known in all_known.items() if known.seen < hour - WEEK]:
                tracks = [self.tracks[p][identity] for p in places if identity in self.tracks.get(p, {})]
                if not any(track.alarmed for track in tracks):
                    del all_known[identity]
                    for place in places:
                        self.tracks.get(place, {}).pop(identity, None)

    def behaviors(self) -> list[tuple[Place, Behavior]]:
        return [((p.security_profile_name, b.name), b) for p in self.rules.profiles for b in p.behaviors]

    # ---- changes (spec.md §3.6) ----

    def change(self, now: int, rules: Rules) -> None:
        old_rules, self.rules = self.rules, rules
        profiles = {p.security_profile_name: p for p in rules.profiles}
        for old in old_rules.profiles:
            new = profiles.get(old.security_profile_name)
            for behavior in old.behaviors:
                self.change_behavior(now, old_rules, old, behavior, new)
        self.known = self.known_now(old_rules)

    def change_behavior(
        self, now: int, old_rules: Rules, old: SecurityProfile, behavior: Behavior, profile: SecurityProfile | None
    ) -> None:
        place = old.security_profile_name, behavior.name
        named = {b.name: b for b in profile.behaviors} if profile else {}
        new = named.get(behavior.name)
        same = new is not None and measured(old_rules, new) == measured(self.rules, behavior)
        for identity, track in list(self.tracks.get(place, {}).items()):
            if profile is None or new is None or not same or not covers(self.rules, profile, identity):
                if track.alarmed:
                    self.invalidate(place, identity, track, now)
                del self.tracks[place][identity]
                continue
            assert new.criteria is not None and behavior.criteria is not None
            if judged_by(new) != judged_by(behavior):
                track.streak = 0
            if window_of(new) != window_of(behavior):
                track.history, track.open_windows = [], {}

    def known_now(self, old_rules: Rules) -> dict[frozenset[str], dict[Identity, Known]]:
        """Who is known to which set of targets, by way of the profiles that moved."""
        found: dict[frozenset[str], dict[Identity, Known]] = {}
        before = {p.security_profile_name: frozenset(p.targets) for p in old_rules.profiles}
        for profile in self.rules.profiles:
            mine = found.setdefault(frozenset(profile.targets), {})
            for identity, known in self.known.get(before.get(profile.security_profile_name, frozenset()), {}).items():
                if covers(self.rules, profile, identity):
                    other = mine.get(identity)
                    mine[identity] = known if other is None or other.seen < known.seen else other
        return found


def measured(rules: Rules, behavior: Behavior) -> tuple[Any, ...]:
    types = {m.metric_name: m.metric_type for m in rules.custom_metrics}
    of = behavior.metric_dimension
    dimension = of and (of.dimension_name, of.operator or "IN")
    return behavior.metric, types.get(behavior.metric or ""), dimension


def judged_by(behavior: Behavior) -> Criteria:
    """Written out in full."""
    assert behavior.criteria is not None
    return replace(
        behavior.criteria,
        consecutive_datapoints_to_alarm=behavior.criteria.consecutive_datapoints_to_alarm or 1,
        consecutive_datapoints_to_clear=behavior.criteria.consecutive_datapoints_to_clear or 1,
    )


def window_of(behavior: Behavior) -> tuple[Any, ...]:
    """Two behaviors with the same answer collect the same: a sliding or a tumbling window, and its length."""
    assert behavior.criteria is not None
    return behavior.criteria.statistical_threshold is None, behavior.criteria.duration_seconds


def shown(value: MetricValue) -> tuple[Any, ...]:
    return value.count, value.cidrs, value.ports, value.number, value.numbers, value.strings


# ---- twins of kernels ----


class Ring:
    """Twin of `actors.window.push` and `total`: all values, for ever."""

    def __init__(self) -> None:
        self.values: list[tuple[int, int]] = []

    def push(self, ts: int, value: int) -> None:
        self.values.append((ts, value))

    def total(self, ts: int, horizon_ns: int) -> int:
        return min(LARGEST, sum(value for then, value in self.values if ts - then < horizon_ns))


class Door:
    """Twin of `actors.gate`: who may report now (design.md §4)."""

    def __init__(self, floor_s: float, things_max: int = 10**9) -> None:
        self.floor = floor_s * 0.9 * NS
        self.things_max = things_max
        self.accepted: dict[str, list[tuple[int, int]]] = {}  # thing -> (time, report id), oldest first

    def admit(self, thing: str, report_id: int, time: int, *, backlog: bool = False) -> str:
        accepted = self.accepted.get(thing, [])
        if not accepted and len(self.accepted) >= self.things_max:
            return "table-full"
        if report_id in [known for _, known in accepted[-16:]]:
            return "duplicate"
        if accepted and not backlog and time - max(then for then, _ in accepted) < self.floor:
            return "throttled"
        self.accepted[thing] = [*accepted, (time, report_id)]
        return "accepted"

    def forget_idle(self, hour: int) -> None:
        for thing, accepted in list(self.accepted.items()):
            if max(then for then, _ in accepted) < hour - WEEK:
                del self.accepted[thing]
