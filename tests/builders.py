"""What a story leaves out: rules, devices' reports, log entries and worlds with sensible defaults."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from naive import Changed, Detect, Entry, Event, Heard, Passed, Paused, in_order

from actors.effects import Transition
from actors.entries import frames_of
from actors.messages import Downtime, Frames, Moment
from actors.metrics import kinds
from actors.topics import subject_of_topic
from actors.world import World
from config.model import (
    NS,
    Behavior,
    Criteria,
    CustomMetric,
    Fleet,
    Group,
    Limits,
    MetricValue,
    Rules,
    SecurityProfile,
    StatisticalThreshold,
)

START_S = 1_767_312_000  # 2026-01-02T00:00:00Z: an hour, and the end of every window of up to an hour
START = START_S * NS
VALUE_FIELDS = {
    "in-port-set": "ports", "not-in-port-set": "ports", "in-cidr-set": "cidrs", "not-in-cidr-set": "cidrs",
}  # fmt: skip


# ---- rules ----


def behavior(
    metric: str, operator: str, value: Any = None, *, name: str | None = None, duration: int | None = None,
    alarm: int | None = None, clear: int | None = None, statistic: str | None = None, suppress: bool | None = None,
) -> Behavior:  # fmt: skip
    """What is normal; the value's member of MetricValue follows from the operator and the metric."""
    criteria = Criteria(
        comparison_operator=operator,  # type: ignore[arg-type]
        value=None if value is None else metric_value(metric, operator, value),
        duration_seconds=duration,
        consecutive_datapoints_to_alarm=alarm,
        consecutive_datapoints_to_clear=clear,
        statistical_threshold=StatisticalThreshold(statistic=statistic) if statistic else None,
    )
    return Behavior(name=name or "b", metric=metric, criteria=criteria, suppress_alerts=suppress)


def metric_value(metric: str, operator: str, value: Any) -> MetricValue:
    if operator in VALUE_FIELDS:
        return MetricValue(**{VALUE_FIELDS[operator]: tuple(value)})
    if operator in ("in-set", "not-in-set"):
        strings = all(isinstance(element, str) for element in value)
        return MetricValue(strings=tuple(value)) if strings else MetricValue(numbers=tuple(map(float, value)))
    return MetricValue(count=value) if metric.startswith("aws:") else MetricValue(number=float(value))


def profile(*behaviors: Behavior, name: str = "p", targets: Sequence[str] = ("all/things",)) -> SecurityProfile:
    return SecurityProfile(security_profile_name=name, behaviors=behaviors, targets=tuple(targets))


def rules(
    *profiles: SecurityProfile, custom: Mapping[str, str] | None = None, things: Iterable[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None, parents: Mapping[str, str] | None = None, **limits: Any,
) -> Rules:  # fmt: skip
    """`groups` is name -> its things, `parents` name -> its parent, `custom` name -> type."""
    parents = parents or {}
    fleet = {name: Group(parent=parents.get(name), things=tuple(inside)) for name, inside in (groups or {}).items()}
    return Rules(
        profiles=profiles,
        custom_metrics=tuple(CustomMetric(metric_name=n, metric_type=t) for n, t in (custom or {}).items()),  # type: ignore[arg-type]
        fleet=Fleet(things=tuple(things), groups=fleet),
        limits=Limits(**limits),
    )


# ---- reports ----


@dataclass(frozen=True)
class Reading:
    """What a device has measured; None = the report does not have it."""

    bytes_in: int | None = None
    bytes_out: int | None = None
    packets_in: int | None = None
    packets_out: int | None = None
    tcp: tuple[int, ...] | None = None
    udp: tuple[int, ...] | None = None
    tcp_total: int | None = None
    addresses: tuple[str, ...] | None = None
    established: int | None = None
    custom: Mapping[str, tuple[str, Any]] | None = None  # name -> (type, value)

    def values(self) -> dict[str, Any]:
        """metric -> natural value, as spec.md Appendix A takes them from a report."""
        found = {
            "aws:all-bytes-in": self.bytes_in,
            "aws:all-bytes-out": self.bytes_out,
            "aws:all-packets-in": self.packets_in,
            "aws:all-packets-out": self.packets_out,
            "aws:listening-tcp-ports": self.tcp,
            "aws:listening-udp-ports": self.udp,
            "aws:num-listening-tcp-ports": _or_length(self.tcp_total, self.tcp),
            "aws:num-listening-udp-ports": _or_length(None, self.udp),
            "aws:destination-ip-addresses": self.addresses,
            "aws:num-established-tcp-connections": _or_length(self.established, self.addresses),
            **{name: value for name, (_, value) in (self.custom or {}).items()},
        }
        return {metric: value for metric, value in found.items() if value is not None}

    def payload(self, report_id: int) -> bytes:
        body: dict[str, Any] = {"header": {"report_id": report_id, "version": "1.0"}, "metrics": self._metrics()}
        if self.custom is not None:
            body["custom_metrics"] = {n: [{CUSTOM_KEYS[t]: v}] for n, (t, v) in self.custom.items()}
        if not body["metrics"] and not body.get("custom_metrics"):
            body["metrics"] = {"network_stats": {}}
        return json.dumps(body).encode()

    def _metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        network = {
            key: getattr(self, key)
            for key in ("bytes_in", "bytes_out", "packets_in", "packets_out")
            if getattr(self, key) is not None
        }
        if network:
            metrics["network_stats"] = network
        for key, ports, total in (("tcp", self.tcp, self.tcp_total), ("udp", self.udp, None)):
            if ports is not None or total is not None:
                block: dict[str, Any] = {} if ports is None else {"ports": [{"port": port} for port in ports]}
                metrics[f"listening_{key}_ports"] = block if total is None else block | {"total": total}
        if self.addresses is not None or self.established is not None:
            block = {} if self.addresses is None else {"connections": [_connection(a) for a in self.addresses]}
            if self.established is not None:
                block["total"] = self.established
            metrics["tcp_connections"] = {"established_connections": block}
        return metrics


CUSTOM_KEYS = {
    "number": "number", "number-list": "number_list", "string-list": "string_list", "ip-address-list": "ip_list",
}  # fmt: skip


def _or_length(total: int | None, listed: Sequence[Any] | None) -> int | None:
    return len(listed) if total is None and listed is not None else total


def _connection(address: str) -> dict[str, str]:
    return {"remote_addr": f"[{address}]:443" if ":" in address else f"{address}:443"}


# ---- a log, told twice: to the world and to its naive twin ----


@dataclass(frozen=True)
class Said:
    """One entry of a log. `reading` None: a tick, or with `since` a pause, or with `rules` a change of them."""

    ts: int
    thing: str = ""
    reading: Reading | None = None
    since: int | None = None
    rules: Rules | None = None
    position: int = 0


def report(thing: str, at_s: float, custom: Mapping[str, tuple[str, Any]] | None = None, **measured: Any) -> Said:
    """`at_s` is seconds since START."""
    return Said(START + round(at_s * NS), thing, Reading(custom=custom, **measured))


def tick(at_s: float) -> Said:
    return Said(START + round(at_s * NS))


def pause(at_s: float, since_s: float) -> Said:
    return Said(START + round(at_s * NS), since=START + round(since_s * NS))


def change(at_s: float, to: Rules) -> Said:
    return Said(START + round(at_s * NS), rules=to)


def numbered(log: Iterable[Said]) -> list[Said]:
    return [replace(said, position=position) for position, said in enumerate(log, start=1)]


def frames(log: Iterable[Said]) -> Frames:
    return frames_of([_entry(said) for said in log])


def _entry(said: Said) -> tuple[int, int, str, bytes, None, int]:
    if said.reading is None:
        return said.position, said.ts, "detectd.log.tick", b"", None, 0
    subject = subject_of_topic(f"$aws/things/{said.thing}/defender/metrics/json")
    return said.position, said.ts, subject, said.reading.payload(said.position), None, 0


def naive_entry(said: Said) -> Entry:
    if said.reading is not None:
        return Heard(said.position, said.ts, said.thing, said.reading.values())
    if said.since is not None:
        return Paused(said.position, said.ts, said.since)
    if said.rules is not None:
        return Changed(said.position, said.ts, said.rules)
    return Passed(said.position, said.ts)


def naive_events(first: Rules, log: Iterable[Said]) -> list[Event]:
    return Detect(first).run(naive_entry(said) for said in log)


# ---- worlds ----


def world(first: Rules, interval_default_s: float = 0.0, identity: str = "test") -> World:
    return World(first, kinds(), identity, interval_default_s)


def play(target: World, log: Iterable[Said], cuts: Iterable[int] = ()) -> list[Transition]:
    """Drive a world along a numbered log, cut into batches before the given positions (and around pauses, changes)."""
    found: list[Transition] = []
    at = set(cuts)
    for (acting, _), group in itertools.groupby(_runs(log, at), key=lambda pair: (pair[0], pair[1])):
        said = [item for _, _, item in group]
        found += _act(target, said[0]) if acting else target.handle(frames(said))[1]
    return found


def _runs(log: Iterable[Said], cuts: set[int]) -> Iterable[tuple[bool, int, Said]]:
    """(acts on all at once, number of its batch, entry)."""
    batch, was_acting = 0, False
    for said in log:
        acting = said.since is not None or said.rules is not None
        batch += acting or was_acting or said.position in cuts
        was_acting = acting
        yield acting, batch, said


def _act(target: World, said: Said) -> list[Transition]:
    if said.since is not None:
        return target.pause(Downtime(said.position, said.ts, said.since, ""))
    assert said.rules is not None
    return target.change(said.rules, Moment(said.position, max(said.ts, target.router.last_ts)))


def as_events(transitions: Iterable[Transition]) -> list[Event]:
    """What happened, as the naive twin says it."""
    return in_order(
        Event(
            t.position, t.profile, t.behavior.name, t.thing, t.registered, t.event_type, t.time_ns, t.value,
            t.start_ns, t.last_violation_ns, t.last_violation_value,
        )
        for t in transitions
    )  # fmt: skip


def told(transitions: Iterable[Transition]) -> list[tuple[str, str]]:
    """(thing, event type): enough for most stories."""
    return [(t.thing, t.event_type) for t in transitions]
