"""Events of brokers through the whole core: vectors of spec.md Appendix C, changes of rules, identity, bad input."""

import io
import json
from typing import Any

import msgspec
import pytest
from builders import START, START_S, behavior, profile, rules, told, world

from actors.controls import Pause, pieces
from actors.effects import Transition
from actors.entries import frames_of
from actors.events import EMBEDDED, SUBJECT, Event, packed, unpacked
from actors.messages import Moment
from actors.metrics import kinds
from actors.world import World
from config.model import NS, Client, Dimension, MetricDimension, MetricToRetain, MetricValue, Rules
from daemon.checkpoint import frozen
from daemon.replay import Unreadable, replay

SENT = behavior("aws:num-messages-sent", "less-than", 10, name="sent", duration=300)
AWAY = behavior("aws:disconnect-duration", "less-than-equals", 600, name="away")


def line(at: float, kind: str, client: str = "d1", **more: Any) -> dict[str, Any]:
    return {"time": START_S + at, "event": kind, "clientId": client, **more}


def run(first: Rules, *lines: dict[str, Any], until_s: float | None = None) -> list[Transition]:
    source = io.BytesIO(b"".join(json.dumps(each).encode() + b"\n" for each in lines))
    return list(replay(source, first, kinds(), until_ns=None if until_s is None else START + round(until_s * NS)))


def entry(target: World, position: int, at: float, *events: Event, source: str = EMBEDDED) -> list[Transition]:
    ts = START + round(at * NS)
    return target.handle(frames_of([(position, ts, SUBJECT + source, packed(events), None, 0)]))[1]


def event(kind: Any, at: float = 0, client: str = "d1", **more: Any) -> Event:
    return Event(event=kind, client_id=client, time=START + round(at * NS), **more)


def tick(target: World, position: int, at: float) -> list[Transition]:
    return target.handle(frames_of([(position, START + round(at * NS), "detectd.log.tick", b"", None, 0)]))[1]


def test_vector_01_no_refusal_at_all_is_not_greater_than_ten() -> None:
    of = behavior("aws:num-authorization-failures", "greater-than", 10, duration=300)
    [raised] = run(rules(profile(of)), line(0, "connected"), until_s=330)
    assert (raised.event_type, raised.value, raised.time_ns) == ("in-alarm", MetricValue(count=0), START + 300 * NS)


def test_vector_02_a_message_of_110_bytes_is_not_greater_than_128() -> None:
    of = behavior("aws:message-byte-size", "greater-than", 128)
    [raised] = run(
        rules(profile(of)), line(0, "published", bytes=110), line(1, "published", bytes=500), until_s=330
    )  # fmt: skip
    assert (raised.event_type, raised.value) == ("in-alarm", MetricValue(count=110))


def test_vector_03_54_messages_are_not_less_than_10() -> None:
    [raised] = run(rules(profile(SENT)), line(0, "published", count=54), until_s=330)
    assert (raised.event_type, raised.value) == ("in-alarm", MetricValue(count=54))


@pytest.mark.parametrize(("topic", "counts"), [("a", False), ("a/", True), ("a/b", True)])
def test_vector_21_a_dimension_counts_what_its_filters_match(topic: str, counts: bool) -> None:
    of = msgspec.structs.replace(SENT, metric_dimension=MetricDimension("d"))
    first = msgspec.structs.replace(rules(profile(of)), dimensions=(Dimension(name="d", string_values=("a/#",)),))
    assert bool(run(first, line(0, "published", topic=topic, count=20), until_s=330)) is counts


def test_a_window_waits_for_late_events_and_drops_later_ones() -> None:
    one = world(rules(profile(SENT)))
    entry(one, 1, 0, event("published", count=5))
    entry(one, 2, 329, event("published", 299, count=5))
    [raised] = tick(one, 3, 330)
    assert (raised.value, raised.time_ns) == (MetricValue(count=10), START + 300 * NS)
    entry(one, 4, 331, event("published", 299, count=7))
    [actor] = one.actors.values()
    assert actor.meter.late == 7


def test_an_event_from_the_future_counts_now() -> None:
    one = world(rules(profile(SENT)))
    entry(one, 1, 0, event("published", 10_000, count=50))
    assert one.router.heard.ahead == 1
    assert told(tick(one, 2, 330)) == [("d1", "in-alarm")]


def test_silence_of_what_the_broker_tells_neither_violates_nor_clears() -> None:
    log = line(0, "published", count=54), line(1, "disconnected")
    assert told(run(rules(profile(SENT)), *log, until_s=47 * 3600)) == [("d1", "in-alarm")]
    assert told(run(rules(profile(SENT)), *log, until_s=49 * 3600)) == [("d1", "in-alarm"), ("d1", "alarm-invalidated")]


def test_who_stays_connected_has_zeros_and_clears() -> None:
    log = line(0, "connected"), line(0, "published", count=54)
    assert told(run(rules(profile(SENT)), *log, until_s=700)) == [("d1", "in-alarm"), ("d1", "alarm-cleared")]


def test_absence_is_measured_every_five_minutes_and_never_falls_silent() -> None:
    log = line(0, "connected"), line(10, "disconnected")
    first = rules(profile(AWAY))
    [raised] = run(first, *log, until_s=20 * 86_400)
    assert (raised.value, raised.time_ns) == (MetricValue(count=890), START + 900 * NS)
    assert told(run(first, *log, line(5000, "connected"), until_s=5731)) == [
        ("d1", "in-alarm"),
        ("d1", "alarm-cleared"),
    ]


def test_who_was_never_seen_connected_is_not_absent() -> None:
    assert run(rules(profile(AWAY)), line(0, "published"), until_s=86_400) == []


def test_the_daemons_own_downtime_is_no_absence_and_no_silence_of_messages() -> None:
    few = behavior("aws:num-messages-sent", "greater-than", 0, name="few", duration=300)
    one = world(rules(profile(AWAY, few)))
    entry(one, 1, 0, event("connected"), event("published"), event("connected", client="d2"))
    entry(one, 2, 10, event("disconnected", 10, client="d2"))
    [control] = pieces(
        frames_of([(3, START + 7300 * NS, "detectd.log.started", msgspec.json.encode(Pause(START + 20 * NS)), None, 0)])
    )
    assert one.obey(control, None) == []  # type: ignore[arg-type]
    assert tick(one, 4, 7530) == []
    assert told(tick(one, 5, 8200)) == [("d1", "in-alarm"), ("d2", "in-alarm")]


def test_a_source_that_was_cut_leaves_nobody_connected() -> None:
    one = world(rules(profile(AWAY)))
    entry(one, 1, 0, event("connected"))
    pause = msgspec.json.encode(Pause(START, EMBEDDED, cut=True))
    [control] = pieces(frames_of([(2, START + 60 * NS, "detectd.log.resumed", pause, None, 0)]))
    one.obey(control, None)  # type: ignore[arg-type]
    [raised] = tick(one, 3, 960)
    assert raised.value == MetricValue(count=840)


def test_a_profile_that_is_made_later_knows_who_is_connected() -> None:
    one = world(rules())
    entry(one, 1, 0, event("connected"))
    none = behavior("aws:num-messages-sent", "greater-than", 0, name="none", duration=300)
    one.change(rules(profile(none)), Moment(2, START + 100 * NS))
    assert tick(one, 3, 330) == []  # the window was not heard whole
    assert told(tick(one, 4, 630)) == [("d1", "in-alarm")]


def test_an_edited_profile_keeps_what_it_has_counted() -> None:
    one = world(rules(profile(SENT)))
    entry(one, 1, 0, event("connected"), event("published", count=8))
    other = behavior("aws:num-disconnects", "less-than", 9, name="other", duration=300)
    one.change(rules(profile(SENT, other)), Moment(2, START + 100 * NS))
    entry(one, 3, 200, event("published", 200, count=8))
    [raised] = tick(one, 4, 330)
    assert raised.value == MetricValue(count=16)


@pytest.mark.parametrize(
    ("first", "then", "ends"), [(None, "IN", []), ("IN", None, []), (None, "NOT_IN", ["alarm-invalidated"])]
)
def test_to_write_out_the_operator_of_a_dimension_ends_no_alarm(first: Any, then: Any, ends: list[str]) -> None:
    before, after = (
        msgspec.structs.replace(
            rules(profile(msgspec.structs.replace(SENT, metric_dimension=MetricDimension("d", operator)))),
            dimensions=(Dimension(name="d", string_values=("a/#",)),),
        )
        for operator in (first, then)
    )
    one = world(before)
    entry(one, 1, 0, event("published", topic="a/b", count=20))
    assert told(tick(one, 2, 330)) == [("d1", "in-alarm")]
    ended = one.change(after, Moment(3, START + 331 * NS))
    assert [each.event_type for each in ended] == ends


def test_a_thing_that_is_registered_is_connected_as_the_new_one() -> None:
    none = behavior("aws:num-messages-sent", "greater-than", 0, name="none", duration=300)
    one = world(rules(profile(none)))
    entry(one, 1, 0, event("connected"))
    one.change(rules(profile(none), things=["d1"]), Moment(2, START + 100 * NS))
    found = tick(one, 3, 930)
    assert ("d1", True) in [(each.thing, each.registered) for each in found]


def test_clients_are_mapped_to_things_and_those_to_their_groups() -> None:
    first = rules(profile(SENT, targets=["thinggroup/g"]), groups={"g": ["p1"]})
    first = msgspec.structs.replace(first, clients=(Client("gw-(.*)", r"\1"),))
    log = (
        line(0, "published", "gw-p1", count=6),
        line(0, "published", "p1", count=6),
        line(0, "published", "x", count=60),
    )
    [raised] = run(first, *log, until_s=330)
    assert (raised.thing, raised.registered, raised.value) == ("p1", True, MetricValue(count=12))


def test_a_retained_metric_without_behaviors_is_measured_and_told() -> None:
    watched = msgspec.structs.replace(
        profile(), additional_metrics_to_retain_v2=(MetricToRetain("aws:source-ip-address"),)
    )
    one = world(rules(watched))
    [actor] = one.actors.values()
    ip = event("connected", ip="::ffff:192.0.2.1"), event("connected", ip="192.0.2.1", client="d2")
    frames = frames_of([(1, START, SUBJECT + EMBEDDED, packed(ip), None, 0)])
    actor.handle(one.router.route(frames).shares[actor.key])
    actor.advance(Moment(2, START + 330 * NS))
    [formed] = actor.taken()
    assert (formed.things, formed.addresses) == ((b"d1", b"d2"), (("192.0.2.1",), ("192.0.2.1",)))
    assert (formed.end, formed.position) == (START + 300 * NS, 2)


def test_events_that_are_none_are_counted_and_break_nothing() -> None:
    one = world(rules(profile(SENT)))
    good = json.loads(packed([event("published", count=54)]))
    bad = [b"", b"[]", b"{}", b"\xff", json.dumps(good | {"rows": [[1]]}).encode()]
    for column, value in ((1, 6), (2, 5), (5, 0), (8, -1), (0, 2**62), (0, 2**64)):
        row = list(good["rows"][0])
        row[column] = value
        bad.append(json.dumps(good | {"rows": [row]}).encode())
    for payload in bad:
        assert unpacked(payload) is None, payload
    subject = SUBJECT + EMBEDDED
    one.handle(frames_of([(n, START, subject, payload, None, 0) for n, payload in enumerate(bad, 1)]))
    assert one.router.heard.dropped["unreadable"] == len(bad)


def test_what_cannot_be_attributed_is_counted() -> None:
    one = world(rules(profile(SENT), things_max=1))
    entry(one, 1, 0, event("published", client="a\x01"), event("published", client="a\0"))
    again = world(rules(profile(SENT), things_max=1))
    again.load(frozen(one.dump()))  # type: ignore[arg-type]
    assert list(again.router.presence.rows) == list(one.router.presence.rows)
    entry(one, 2, 0, event("published", client="b"), event("published", client=""))
    assert one.router.heard.dropped == {"unnamed": 3, "table-full": 1}


def test_a_repeated_presence_event_counts_once() -> None:
    one = world(rules(profile(behavior("aws:num-connection-attempts", "less-than", 2, duration=300))))
    for position in (1, 2):
        entry(one, position, 0, event("connected", session="s"))
    assert tick(one, 3, 330) == []
    assert one.router.heard.dropped == {"repeated": 1}


@pytest.mark.parametrize(
    ("bad", "says"),
    [({"event": "poked"}, "unknown event"), ({"event": "connected", "clientId": ""}, "clientId"),
     ({"event": "published", "clientId": "a", "count": 0}, "count")],
)  # fmt: skip
def test_a_line_of_a_replay_that_is_no_event_is_refused_with_its_number(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(Unreadable, match=f"line 2.*{says}"):
        run(rules(profile(SENT)), line(0, "connected"), {"time": START_S + 1, **bad})
