"""Replays: what counts as input, where it is unreadable, and where the clock stops."""

import base64
import io
import json

import cbor2
import msgspec
import pytest
from builders import START, START_S, behavior, profile, rules

from actors.metrics import kinds
from config.diff import rules_bytes, rules_digest
from config.model import NS
from daemon.replay import BATCH, Unreadable, event_of, replay

OVER = behavior("aws:all-bytes-out", "less-than", 100, duration=300)
RULES = rules(profile(OVER))


def line(time, value, thing="d1", report_id=None, fmt="json", **more):
    body = {
        "header": {"report_id": report_id or int(time) + 1, "version": "1.0"},
        "metrics": {"network_stats": {"bytes_out": value}},
    }
    topic = f"$aws/things/{thing}/defender/metrics/{fmt}"
    return {"time": START_S + time, "topic": topic, "payload": body, **more}


def text(*lines):
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)


def play(*lines, first=RULES, **options):
    return list(replay(io.BytesIO(text(*lines)), first, kinds(), **options))


def types(events):
    return [(event.thing, event.event_type) for event in events]


def test_no_input_is_no_event():
    assert list(replay(io.BytesIO(b""), RULES, kinds(), until_ns=START)) == []
    assert list(replay(io.BytesIO(b"\n \n"), RULES, kinds(), until_ns=START)) == []


def test_a_last_line_without_its_newline_counts():
    assert types(replay(io.BytesIO(text(line(0, 200))[:-1]), RULES, kinds())) == [("d1", "in-alarm")]


def test_a_string_payload_is_base64_of_cbor_where_the_topic_says_cbor():
    body = cbor2.dumps(line(0, 200)["payload"])
    assert types(play(line(0, 200, fmt="cbor") | {"payload": base64.b64encode(body).decode()})) == [("d1", "in-alarm")]


def test_a_string_payload_may_be_json_or_no_report_at_all():
    body = base64.b64encode(json.dumps(line(0, 200)["payload"]).encode()).decode()
    bad = base64.b64encode(b"\xff\x00").decode()
    assert types(play(line(0, 200) | {"payload": bad}, line(1, 200) | {"payload": body})) == [("d1", "in-alarm")]


def test_a_topic_may_hold_any_name_a_topic_can_hold():
    assert types(play(line(0, 200, thing="pümp.1:a-b_c"))) == [("pümp.1:a-b_c", "in-alarm")]


def test_the_floor_between_reports_holds_only_where_it_is_stated():
    lines = line(0, 60), line(1, 60)
    assert types(play(*lines)) == [("d1", "in-alarm")]
    assert play(*lines, first=rules(profile(OVER), report_interval_s=300)) == []


def test_duplicates_are_always_rejected():
    assert play(line(0, 60, report_id=7), line(1, 60, report_id=7)) == []


def test_time_that_steps_back_counts_as_the_last_time():
    [event] = play(line(100, 60), line(50, 60, report_id=9))
    assert event.time_ns == START + 100 * NS


def test_a_time_is_taken_to_the_nanosecond_as_it_is_written():
    [event] = play(
        line(0, 200) | {"time": START_S},
        b'{"time": %d.123456789, "event": "connected", "clientId": "x"}' % (START_S + 9),
    )
    assert event.time_ns == START
    [event] = play(json.dumps(line(0, 200)).replace(f'"time": {START_S}', f'"time": {START_S}.100000001').encode())
    assert event.time_ns == START + 100_000_001


def test_broker_events_let_time_pass():
    percentile = rules(profile(behavior("aws:all-bytes-out", "less-than-equals", duration=300, statistic="p50")))
    log = line(0, 1), line(1, 200, thing="d2"), {"time": START_S + 300, "event": "connected", "clientId": "d1"}
    assert types(play(*log, first=percentile)) == [("d2", "in-alarm")]


def test_the_end_of_the_input_closes_what_has_ended_by_then_and_until_the_rest():
    percentile = rules(profile(behavior("aws:all-bytes-out", "less-than-equals", duration=300, statistic="p50")))
    log = line(0, 1), line(299, 200, thing="d2")
    assert play(*log, first=percentile) == []
    assert play(*log, first=percentile, until_ns=START + 300 * NS - 1) == []
    assert types(play(*log, first=percentile, until_ns=START + 300 * NS)) == [("d2", "in-alarm")]


def test_until_before_the_end_of_the_input_changes_nothing():
    assert types(play(line(0, 60), line(10, 60), until_ns=START)) == [("d1", "in-alarm")]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{", "truncated"),
        (b"[]", "array"),
        ({"topic": "x"}, "time"),
        ({"time": START_S}, "topic"),
        ({"time": "soon", "topic": "x", "payload": {}}, "time"),
        ({"time": START_S, "event": "exploded"}, "exploded"),
        (line(0, 1) | {"payload": "not base64!"}, "line 2"),
        (b'{"time": 1e300, "event": "connected"}', "time"),
        (b'{"time": -1, "event": "connected"}', "time"),
        (b"\xff\xfe", "line 2"),
    ],
)
def test_an_unreadable_line_is_named_by_its_number(bad, why):
    with pytest.raises(Unreadable, match=r"^line 2: ") as caught:
        play(line(0, 1), bad, line(1, 1))
    assert why in str(caught.value)


def test_blank_lines_count_as_lines():
    with pytest.raises(Unreadable, match=r"^line 4: "):
        play(b"", line(0, 1), b"  ", b"{")


def test_what_was_found_before_an_unreadable_line_may_be_lost_but_never_silently():
    with pytest.raises(Unreadable):
        list(replay(io.BytesIO(text(line(0, 200), b"{")), RULES, kinds()))


def test_progress_is_told_in_bytes_and_adds_up():
    told = []
    body = text(*[line(i, 1) for i in range(BATCH + 10)])
    list(replay(io.BytesIO(body), RULES, kinds(), progress=told.append))
    assert sum(told) == len(body)
    assert len(told) == 2


def test_an_event_reads_as_the_api_shows_it():
    [event] = play(line(0.5, 200))
    assert msgspec.to_builtins(event_of(event)) == {
        "violationId": event.violation_id,
        "thingName": "d1",
        "securityProfileName": "p",
        "behavior": {
            "name": "b",
            "metric": "aws:all-bytes-out",
            "criteria": {"comparisonOperator": "less-than", "value": {"count": 100}, "durationSeconds": 300},
        },
        "metricValue": {"count": 200},
        "violationEventType": "in-alarm",
        "verificationState": "UNKNOWN",
        "violationEventTime": START_S + 0.5,
    }


def test_ids_are_32_hex_digits_and_the_same_in_every_replay():
    [first], [again] = play(line(0, 200)), play(line(0, 200))
    assert first.violation_id == again.violation_id
    assert len(first.violation_id) == 32
    assert int(first.violation_id, 16) >= 0


# ---- recordings ----


def header(identity="log-1", first=RULES, default_s=0.0):
    return {
        "recording": 1, "identity": identity, "reportIntervalDefaultS": default_s, "digest": rules_digest(first),
        "rules": json.loads(rules_bytes(first)),
    }  # fmt: skip


def recorded(seq, time, value, thing="d1", **more):
    subject = f"$aws.things.{thing}.defender.metrics.json"
    entry = line(time, value) | {"seq": seq, "ts": START + int(time * NS), "subject": subject, **more}
    del entry["topic"]
    return entry


def test_a_recording_brings_its_rules_and_its_log_s_identity():
    [event] = play(header(), recorded(41, 0, 200), first=rules())
    [other] = play(header("log-2"), recorded(41, 0, 200), first=rules())
    assert event.position == 41
    assert event.violation_id != other.violation_id


def test_a_recording_takes_its_changes_where_they_happened():
    strict, loose = RULES, rules(profile(behavior("aws:all-bytes-out", "less-than", 10_000, duration=300)))
    change = {
        "time": START_S + 1, "seq": 2, "ts": START + NS, "subject": "detectd.log.change",
        "payload": {"digest": rules_digest(strict)}, "rules": json.loads(rules_bytes(strict)),
    }  # fmt: skip
    log = header(first=loose), recorded(1, 0, 200), change, recorded(3, 400, 200)
    assert [(e.position, e.event_type) for e in play(*log)] == [(3, "in-alarm")]


def test_what_if_plays_a_recording_under_other_rules_and_crosses_no_change():
    loose = rules(profile(behavior("aws:all-bytes-out", "less-than", 10_000, duration=300)))
    change = {
        "time": START_S + 1, "seq": 2, "ts": START + NS, "subject": "detectd.log.change",
        "payload": {"digest": rules_digest(loose)}, "rules": json.loads(rules_bytes(loose)),
    }  # fmt: skip
    log = header(first=loose), recorded(1, 0, 20), change, recorded(3, 400, 200)
    assert [(e.position, e.event_type) for e in play(*log, what_if=True)] == [(3, "in-alarm")]


def test_a_recording_s_pauses_are_not_silence_but_a_gap_in_plain_input_is():
    pause = {
        "time": START_S + 72 * 3600, "seq": 2, "ts": START + 72 * 3600 * NS, "subject": "detectd.log.started",
        "payload": {"since": START + 3600 * NS},
    }  # fmt: skip
    assert types(play(header(), recorded(1, 0, 200), pause)) == [("d1", "in-alarm")]
    assert types(play(line(0, 200), until_ns=START + 72 * 3600 * NS)) == [
        ("d1", "in-alarm"),
        ("d1", "alarm-invalidated"),
    ]


def test_a_recording_has_the_floor_that_its_daemon_had():
    assert play(header(default_s=300.0), recorded(1, 0, 60), recorded(2, 60, 60)) == []
