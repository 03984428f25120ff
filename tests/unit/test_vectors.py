"""The test vectors of spec.md Appendix C that concern device-side and custom metrics, by number, through a replay.

1-3 are stated for cloud-side metrics: here with the same numbers on a device counter or a custom number. 12 and 15-16
look at what a report is answered and what an event carries; delivery is tested where it is done.
"""

import io
import json

import pytest
from builders import START, START_S, behavior, frames, numbered, profile, report, rules, world

from actors.controls import pieces
from actors.messages import Rejected
from actors.metrics import kinds
from actors.report import decode
from config.model import NS
from daemon.replay import event_of, replay

PORTS = behavior("aws:listening-tcp-ports", "in-port-set", [8888])
AT_MOST_40 = behavior("m", "less-than-equals", 40, alarm=2, clear=3)
STEP_S = 300


def run(of, *bodies, until_s=None, start_s=0.0, **more):
    """Events of a profile of one behavior; body k is reported at k × 300 s. `m` in a body is a custom number."""
    lines = []
    for k, body in enumerate(bodies):
        things = body if isinstance(body, list) else [("d1", body)]
        for thing, measured in things:
            report_ = {"header": {"report_id": k + 1, "version": "1.0"}, **measured}
            time = START_S + start_s + k * STEP_S
            lines.append({"time": time, "topic": f"$aws/things/{thing}/defender/metrics/json", "payload": report_})
    source = io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    settled = rules(profile(of), custom={"m": "number"}, **more)
    until = None if until_s is None else START + until_s * NS
    return list(replay(source, settled, kinds(), until_ns=until))


def number(value):
    return {"custom_metrics": {"m": [{"number": value}]}}


def ports(*open_ports):
    return {"metrics": {"listening_tcp_ports": {"ports": [{"port": port} for port in open_ports]}}}


def types(events):
    return [event.event_type for event in events]


def seconds(time_ns):
    return (time_ns - START) / NS


def test_vector_01_a_count_that_is_not_greater_than_ten_alarms_even_at_zero():
    [event] = run(
        behavior("aws:all-packets-out", "greater-than", 10, duration=300),
        {"metrics": {"network_stats": {"packets_out": 0}}},
    )
    assert (event.event_type, event.value.count, seconds(event.time_ns)) == ("in-alarm", 0, 0)


def test_vector_01_the_event_of_a_window_carries_the_windows_end_as_its_time():
    low = behavior("aws:all-packets-out", "greater-than", duration=300, statistic="p0")
    body = {"metrics": {"network_stats": {"packets_out": 0}}}
    [event] = run(low, [("d1", body), ("d2", {"metrics": {"network_stats": {"packets_out": 7}}})], until_s=336)
    assert (event.thing, event.event_type, event.value.count, seconds(event.time_ns)) == ("d1", "in-alarm", 0, 300)


def test_vector_02_a_size_of_110_is_not_greater_than_128():
    [event] = run(behavior("m", "greater-than", 128), number(110))
    assert (event.event_type, event.value.number) == ("in-alarm", 110)


def test_vector_03_a_count_of_54_is_not_less_than_10():
    [event] = run(
        behavior("aws:all-packets-out", "less-than", 10, duration=300),
        {"metrics": {"network_stats": {"packets_out": 54}}},
    )
    assert (event.event_type, event.value.count) == ("in-alarm", 54)


def test_vector_04_two_violations_in_a_row_raise_and_one_does_not():
    [event] = run(AT_MOST_40, *map(number, (50, 30, 50, 51)))
    assert (event.event_type, event.value.number, seconds(event.time_ns)) == ("in-alarm", 51, 900)
    assert event.start_ns == event.time_ns


def test_vector_05_three_compliant_in_a_row_clear_and_the_last_violation_is_the_one_between():
    raised, cleared = run(AT_MOST_40, *map(number, (50, 50, 10, 10, 50, 10, 10, 10)))
    assert types([raised, cleared]) == ["in-alarm", "alarm-cleared"]
    assert seconds(cleared.time_ns) == 7 * STEP_S
    assert seconds(cleared.last_violation_ns) == 4 * STEP_S
    assert (cleared.value.number, cleared.last_violation_value.number) == (10, 50)
    assert (cleared.violation_id, cleared.start_ns) == (raised.violation_id, raised.start_ns)


def test_vector_06_a_violation_that_lasts_is_told_once_and_its_last_time_moves():
    raised, cleared = run(behavior("m", "less-than-equals", 40), *map(number, [50] * 50), number(10))
    assert types([raised, cleared]) == ["in-alarm", "alarm-cleared"]
    assert seconds(raised.last_violation_ns) == 0
    assert seconds(cleared.last_violation_ns) == 49 * STEP_S


def test_vector_07_silence_of_47_hours_changes_nothing():
    assert types(run(PORTS, ports(443), until_s=47 * 3600)) == ["in-alarm"]


def test_vector_07_silence_of_more_than_48_hours_invalidates_once_without_a_value():
    raised, gone = run(PORTS, ports(443), until_s=100 * 3600)
    assert types([raised, gone]) == ["in-alarm", "alarm-invalidated"]
    assert (gone.value, gone.violation_id) == (None, raised.violation_id)
    assert seconds(gone.time_ns) == 48 * 3600
    assert event_of(gone).metric_value is None


def test_vector_07_silence_of_exactly_48_hours_is_not_more_than_48_hours():
    assert types(run(PORTS, ports(443), until_s=48 * 3600)) == ["in-alarm"]


def test_vector_08_a_port_outside_the_set_alarms():
    [event] = run(PORTS, ports(8888, 443))
    assert (event.event_type, event.value.ports) == ("in-alarm", (8888, 443))
    assert "443" in event.reason
    assert "8888" not in event.reason.split(";")[0]


def test_vector_09_an_empty_list_is_a_datapoint_and_clears():
    assert types(run(PORTS, ports(8888, 443), ports())) == ["in-alarm", "alarm-cleared"]


def test_vector_10_a_report_without_the_block_says_nothing():
    assert types(run(PORTS, ports(8888, 443), {"metrics": {"network_stats": {"bytes_in": 1}}})) == ["in-alarm"]


def test_vector_11_an_address_inside_a_forbidden_network_alarms():
    forbidden = behavior("aws:destination-ip-addresses", "not-in-cidr-set", ["12.8.0.0/16"])
    connections = {"connections": [{"remote_addr": "12.8.4.4:443"}], "total": 1}
    [event] = run(forbidden, {"metrics": {"tcp_connections": {"established_connections": connections}}})
    assert (event.event_type, event.value.cidrs) == ("in-alarm", ("12.8.4.4",))


def test_vector_12_a_suppressed_behavior_is_evaluated_and_its_event_says_so():
    [event] = run(behavior("aws:listening-tcp-ports", "in-port-set", [8888], suppress=True), ports(443))
    assert (event.event_type, event.behavior.suppress_alerts) == ("in-alarm", True)


def test_vector_13_the_median_of_four_is_the_second_and_those_above_violate():
    median = behavior("m", "less-than-equals", duration=300, statistic="p50")
    events = run(median, [(f"d{value}", number(value)) for value in (1, 2, 3, 100)], until_s=300)
    assert [(e.thing, e.event_type, e.value.number) for e in events] == [
        ("d100", "in-alarm", 100), ("d3", "in-alarm", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("values", [(1, 2, 3), (5, 5, 5), (0, 10**15)])
def test_vector_14_nothing_is_above_the_maximum(values):
    highest = behavior("m", "less-than-equals", duration=300, statistic="p100")
    assert run(highest, [(f"d{k}", number(value)) for k, value in enumerate(values)], until_s=300) == []


def test_vector_15_a_bare_custom_metric_is_rejected_as_malformed():
    body = b'{"header": {"report_id": 1, "version": "1.0"}, "custom_metrics": {"m": {"number": 1}}}'
    refusal = decode(body, cbor=False)
    assert isinstance(refusal, Rejected)
    assert refusal.code == "InvalidPayload"
    assert refusal.message.startswith("Malformed metrics report")
    assert run(behavior("m", "less-than", 0), {"custom_metrics": {"m": {"number": 1}}}) == []


def test_vector_16_of_two_reports_60_s_apart_the_second_is_throttled():
    one = world(rules(profile(PORTS), report_interval_s=300))
    [piece] = pieces(frames(numbered([report("d1", 0, tcp=(8888,)), report("d1", 60, tcp=(443,))])))
    routed, events = one.handle(piece)
    assert {entry: (why.code, why.report_id) for entry, why in routed.rejected.items()} == {1: ("Throttled", 2)}
    assert events == []
