"""What is exported, of whom, to which topic, and as which JSON (spec.md §9.4)."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import START, START_S, Said, frames, numbered, report, rules, world

from actors.effects import Formed
from actors.entries import frames_of
from actors.events import EMBEDDED, SUBJECT, Event, packed
from actors.metrics import kinds
from actors.world import World
from config.check import check
from config.export import is_publishable
from config.model import (
    NS,
    Behavior,
    Bridge,
    Broker,
    Dimension,
    Embedded,
    MetricDimension,
    MetricsExportConfig,
    MetricToRetain,
    SecurityProfile,
    Settings,
    Tag,
)
from config.problem import Place
from daemon.export.entries import (
    MESSAGE_BYTES_MAX,
    Batches,
    Entry,
    entries_of_reports,
    entries_of_turns,
    entries_of_windows,
)
from daemon.export.selection import Destination, exports_of

OUT, TCP = "aws:all-bytes-out", "aws:listening-tcp-ports"
SENT, SIZE = "aws:num-messages-sent", "aws:message-byte-size"
ADDRESS, AWAY = "aws:source-ip-address", "aws:disconnect-duration"
ROLE = "arn:aws:iam::123456789012:role/export"
HERE = Destination("", "fleet/metrics")

Decoded = dict[Destination, list[dict[str, Any]]]


def exporting(
    *metrics: str, name: str = "p", targets: Sequence[str] = ("all/things",), topic: str | None = "fleet/metrics",
    bridge: str = "", dimension: MetricDimension | None = None, marked: bool | None = True,
) -> SecurityProfile:  # fmt: skip
    return SecurityProfile(
        name,
        additional_metrics_to_retain_v2=tuple(MetricToRetain(metric, dimension, marked) for metric in metrics),
        metrics_export_config=None if topic is None else MetricsExportConfig(topic, ROLE),
        targets=tuple(targets),
        tags=(Tag("detectd:export-bridge", bridge),) if bridge else (),
    )


def decoded(entries: Iterable[Entry]) -> Decoded:
    found: Decoded = {}
    for place, entry in entries:
        found.setdefault(place, []).append(json.loads(entry))
    return found


def of_reports(one: World, *log: Said, after: int = 0) -> Decoded:
    return decoded(entries_of_reports(one.router.route(frames(numbered(log))), exports_of(one), after))


def event(kind: Any, at: float, client: str = "d1", **more: Any) -> Event:
    return Event(event=kind, client_id=client, time=START + round(at * NS), **more)


def formed(one: World, *events: Event, until_s: float = 331) -> dict[str, list[Formed]]:
    """What each actor forms of these, told at their own times."""
    log = [
        (position, each.time, SUBJECT + EMBEDDED, packed([each]), None, 0) for position, each in enumerate(events, 1)
    ]
    end = (len(log) + 1, START + round(until_s * NS), "detectd.log.tick", b"", None, 0)
    shares = one.router.route(frames_of([*log, end])).shares
    for key, share in shares.items():
        one.actors[key].handle(share)
    return {key: actor.taken() for key, actor in one.actors.items()}


def of_windows(one: World, *events: Event, until_s: float = 331) -> Decoded:
    exports, found = exports_of(one), formed(one, *events, until_s=until_s)
    return decoded(
        entry for key, pieces in found.items() for entry in entries_of_windows(key, pieces, exports)
    )  # fmt: skip


# ---- reports ----


def test_a_reports_value_goes_out_with_the_time_of_the_report() -> None:
    one = world(rules(exporting(OUT, TCP)))
    assert of_reports(one, report("p1", 0.25, bytes_out=7, tcp=(22, 443))) == {
        HERE: [
            {"name": OUT, "thing": "p1", "value": {"count": 7}, "version": 1, "timestamp": START_S + 0.25},
            {"name": TCP, "thing": "p1", "value": {"ports": [22, 443]}, "version": 1, "timestamp": START_S + 0.25},
        ]
    }


def test_every_type_of_custom_metric_has_its_own_member() -> None:
    types = {"n": "number", "ns": "number-list", "ss": "string-list", "ips": "ip-address-list"}
    one = world(rules(exporting(*types), custom=types))
    said = {
        "n": ("number", 81), "ns": ("number-list", [1.5]), "ss": ("string-list", ["on"]),
        "ips": ("ip-address-list", ["10.0.0.1"]),
    }  # fmt: skip
    [entries] = of_reports(one, report("p1", 0, said)).values()
    assert {entry["name"]: entry["value"] for entry in entries} == {
        "n": {"number": 81}, "ns": {"numbers": [1.5]}, "ss": {"strings": ["on"]}, "ips": {"cidrs": ["10.0.0.1"]},
    }  # fmt: skip
    assert {entry["timestamp"] for entry in entries} == {START_S}


def test_only_what_is_marked_goes_out_and_only_of_profiles_with_a_topic() -> None:
    behavior = Behavior(name="b", metric=TCP, export_metric=True)
    marked = msgspec.structs.replace(exporting("aws:all-bytes-in", marked=None), behaviors=(behavior,))
    one = world(
        rules(marked, exporting(OUT, name="q", topic=None), exporting("aws:all-packets-in", name="r", topic="r"))
    )
    found = of_reports(one, report("p1", 0, bytes_in=1, bytes_out=2, packets_in=3, tcp=(22,)))
    assert {place.topic: [entry["name"] for entry in entries] for place, entries in found.items()} == {
        "fleet/metrics": [TCP], "r": ["aws:all-packets-in"],
    }  # fmt: skip


def test_only_things_among_a_profiles_targets_go_to_its_topic() -> None:
    one = world(
        rules(
            exporting(OUT, name="pumps", targets=["thinggroup/pumps"], topic="pumps"),
            exporting(OUT, name="rest", targets=["all/unregistered-things"], topic="rest"),
            exporting(OUT, name="nobody", targets=[], topic="nobody"),
            groups={"pumps": ["p1"]}, things=["p2"],
        )
    )  # fmt: skip
    found = of_reports(one, *(report(thing, 0, bytes_out=1) for thing in ("p1", "p2", "p3")))
    assert {place.topic: [entry["thing"] for entry in entries] for place, entries in found.items()} == {
        "pumps": ["p1"], "rest": ["p3"],
    }  # fmt: skip


def test_reports_that_were_told_before_or_turned_away_do_not_go_out() -> None:
    one = World(rules(exporting(OUT)), world(rules()).kinds, "test", 300)
    log = [report("p1", 0, bytes_out=1), report("p1", 300, bytes_out=2), report("p1", 301, bytes_out=3)]
    [entries] = of_reports(one, *log, after=1).values()
    assert [entry["value"]["count"] for entry in entries] == [2]


# ---- windows ----


def test_a_window_goes_out_with_its_end_and_of_sizes_three_figures() -> None:
    one = world(rules(exporting(SENT, SIZE, ADDRESS)))
    connected = event("connected", 1, ip="192.0.2.7")
    sent = event("published", 2, count=2, bytes=110, bytes_min=10, bytes_max=100)
    common = {"thing": "d1", "version": 1, "timestamp": START_S + 300}
    [entries] = of_windows(one, connected, sent).values()
    assert sorted(entries, key=str) == sorted(
        [
            {"name": SENT, "value": {"count": 2}, **common},
            {"name": SIZE, "value": {"count": 10}, "statistic": "min", **common},
            {"name": SIZE, "value": {"count": 100}, "statistic": "max", **common},
            {"name": SIZE, "value": {"count": 110}, "statistic": "sum", **common},
            {"name": ADDRESS, "value": {"cidrs": ["192.0.2.7"]}, **common},
        ],
        key=lambda entry: str({"name": entry["name"], "thing": "d1", "value": entry["value"]}),
    )


@pytest.mark.parametrize(("operator", "count"), [(None, 1), ("IN", 1), ("NOT_IN", 2)])
def test_a_dimension_is_named_with_its_operator(operator: Any, count: int) -> None:
    first = rules(exporting(SENT, dimension=MetricDimension("D", operator)))
    one = world(msgspec.structs.replace(first, dimensions=(Dimension(name="D", string_values=("a/#",)),)))
    [[entry]] = of_windows(
        one, event("published", 1, topic="a/b"), event("published", 2, topic="c", count=2)
    ).values()  # fmt: skip
    assert (entry["value"], entry["dimension"]) == ({"count": count}, {"name": "D", "operator": operator or "IN"})


def test_a_thing_of_two_profiles_with_one_topic_goes_out_once_and_with_two_topics_to_both() -> None:
    targets = ["thinggroup/g"]
    one = world(
        rules(
            exporting(SENT, name="a"), exporting(SENT, name="b", targets=targets),
            exporting(SENT, name="c", targets=targets, topic="other"), groups={"g": ["d1"]},
        )
    )  # fmt: skip
    found = of_windows(one, event("published", 1, "d1"), event("published", 1, "d2"))
    assert {place.topic: sorted(entry["thing"] for entry in entries) for place, entries in found.items()} == {
        "fleet/metrics": ["d1", "d2"], "other": ["d1"],
    }  # fmt: skip


def test_how_long_a_device_was_away_goes_out_hourly() -> None:
    one = world(rules(exporting(AWAY, SENT)))
    [entries] = of_windows(one, event("connected", 1), event("disconnected", 100), until_s=7231).values()
    away = [(entry["timestamp"] - START_S, entry["value"]["count"]) for entry in entries if entry["name"] == AWAY]
    assert away == [(3600, 3500), (7200, 7100)]


def test_a_device_that_comes_or_goes_is_told_at_once_with_0_and_only_of_the_targets() -> None:
    one = world(rules(exporting(AWAY, targets=["thinggroup/g"]), groups={"g": ["d1"]}))
    log = [event("connected", 1.5), event("published", 2), event("connected", 3, "d2"), event("disconnected", 9)]
    events = one.router.route(frames_of([(1, START + 10 * NS, SUBJECT + EMBEDDED, packed(log), None, 0)])).batch.events
    assert events is not None
    [entries] = decoded(entries_of_turns(events, exports_of(one))).values()
    assert [(entry["thing"], entry["timestamp"] - START_S, entry["value"]) for entry in entries] == [
        ("d1", 1.5, {"count": 0}), ("d1", 9, {"count": 0}),
    ]  # fmt: skip


# ---- where to ----


def test_a_tag_names_the_bridge() -> None:
    one = world(rules(exporting(OUT, SENT, bridge="plant")))
    assert exports_of(one).destinations == {Destination("plant", "fleet/metrics")}


@pytest.mark.parametrize(
    "topic",
    ["$JS/API/STREAM/DELETE/LOG", "$SYS/x", "$MQTT/msgs/x", "$KV/x", "detectd/log/tick", "_INBOX/x", "$aws/things/p1/x",
     "$aws/things/p1/defender/metrics/json", "$aws", "a b", "a\r\nPUB x 0", "a/\u2028", "a/>", "a/*/b", "$aws/rules"],
)  # fmt: skip
def test_a_topic_that_could_steer_the_server_is_refused_and_said(topic: str) -> None:
    assert not is_publishable(topic)
    exports = exports_of(world(rules(exporting(OUT, topic=topic))))
    assert (exports.destinations, exports.refused) == (frozenset(), (("p", topic),))


@pytest.mark.parametrize("topic", ["a", "fleet/metrics", "$aws/rules/detect", "a//b/ü", "/a", "detectd.x/y", "a>b"])
def test_any_other_topic_will_do(topic: str) -> None:
    assert is_publishable(topic)


def test_check_warns_of_what_will_not_be_exported() -> None:
    profiles = (
        exporting(OUT, topic="$SYS/x"),
        exporting(OUT, name="q", bridge="plnt"),
        exporting(OUT, name="r", bridge="plant"),
    )
    broker = Broker(embedded=Embedded(), bridges=(Bridge(name="plant", url="mqtt://127.0.0.1"),))
    settings = Settings(rules=rules(*profiles), broker=broker)
    errors, warnings = check(settings, kinds(), lambda finding: Place(Path(), 0, 0, str(finding.path)))
    assert errors == []
    said = [(warning.path, warning.message) for warning in warnings if "export" in warning.message]
    assert said == [
        ("('profiles', 0, 'metricsExportConfig', 'mqttTopic')",
         "nothing is exported to a topic of the server's or of detectd's own, or with spaces"),
        ("('profiles', 1, 'tags', 0, 'Value')", "nothing is exported: there is no bridge 'plnt'"),
    ]  # fmt: skip


# ---- messages ----


def test_messages_are_as_full_as_they_may_be_and_hold_all_in_order() -> None:
    batches = Batches(10**7)
    entries = [b'{"n":%d,"pad":"%b"}' % (n, b"x" * (n * 37 % 5000)) for n in range(200)]
    for entry in entries:
        batches.add(HERE, entry)
    messages = [(place, message.closed(), message.count) for place, message in batches.taken()]
    assert {place for place, _, _ in messages} == {HERE}
    bodies = [json.loads(body) for _, body, _ in messages]
    assert [each["n"] for body in bodies for each in body["metrics"]] == list(range(200))
    assert {body["version"] for body in bodies} == {"1.0"}
    assert [len(body["metrics"]) for body in bodies] == [count for _, _, count in messages]
    assert all(MESSAGE_BYTES_MAX - 5100 < len(body) <= MESSAGE_BYTES_MAX for _, body, _ in messages[:-1])
    assert (batches.taken(), batches.bytes, batches.dropped) == ([], 0, 0)


def test_an_entry_that_just_fits_a_message_is_one_and_a_longer_one_is_counted() -> None:
    batches = Batches(10**7)
    frame = len(b'{"version":"1.0","metrics":[]}')
    for size in (MESSAGE_BYTES_MAX - frame - 1, MESSAGE_BYTES_MAX - frame + 1):
        batches.add(HERE, b'"' + b"x" * (size - 2) + b'"')
    [(_, message)] = batches.taken()
    assert len(message.closed()) == MESSAGE_BYTES_MAX - 1
    assert batches.oversize == 1


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    batches = Batches(100)
    for _ in range(15):
        batches.add(HERE, b"1234567890")
    assert (batches.bytes, batches.dropped) == (100, 5)
    [(_, message)] = batches.taken()
    assert message.count == 10
