"""What the reference makes of a report, rule by rule (spec.md §2)."""

import json
import re
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_examples import any_customs, damaged, reports, spelled, texts

from actors.messages import Rejected
from actors.metrics import kinds
from actors.report import CustomValue, Report, decode, metric_value
from config.model import MetricValue

ID = 1767323045
HEADER = {"report_id": ID, "version": "1.0"}
AGENT = {
    "header": HEADER,
    "metrics": {
        "listening_tcp_ports": {"ports": [{"interface": "eth0", "port": 22}, {"port": 8080}], "total": 9},
        "listening_udp_ports": {"ports": [{"interface": "eth0", "port": 5353}]},
        "network_stats": {"bytes_in": 48211, "bytes_out": 19044, "packets_in": 310, "packets_out": 201},
        "tcp_connections": {
            "established_connections": {
                "connections": [
                    {"local_interface": "eth0", "local_port": 45512, "remote_addr": "203.0.113.9:8883"},
                    {"remote_addr": "[2001:DB8::0:5]:443"},
                ],
                "total": 2,
            }
        },
    },
    "custom_metrics": {
        "battery": [{"number": 81}],
        "temps": [{"number_list": [41.5, 43, -1]}],
        "services": [{"string_list": ["sshd", "ntpd"]}],
        "dns": [{"ip_list": ["192.0.2.53", "::ffff:192.0.2.1"]}],
    },
}


def told(tree: Any, **options: Any) -> Report | Rejected:
    return decode(json.dumps(tree).encode(), False, **options)


def accepted(tree: Any, **options: Any) -> Report:
    report = told(tree, **options)
    assert isinstance(report, Report), report
    return report


def problem(tree: Any, **options: Any) -> str:
    """What the message says behind its fixed beginning."""
    rejected = told(tree, **options)
    assert isinstance(rejected, Rejected), rejected
    assert (rejected.code, rejected.reason) == ("InvalidPayload", "malformed")
    beginning, _, rest = rejected.message.partition(": ")
    assert beginning == "Malformed metrics report"
    return rest


def with_metrics(**blocks: Any) -> Any:
    return {"header": HEADER, "metrics": blocks}


def with_ports(*entries: Any) -> Any:
    return with_metrics(listening_tcp_ports={"ports": list(entries)})


def with_remote(remote: Any, **rest: Any) -> Any:
    entry = {"remote_addr": remote, **rest}
    return with_metrics(tcp_connections={"established_connections": {"connections": [entry]}})


def with_custom(name: str, value: Any) -> Any:
    return {"header": HEADER, "custom_metrics": {name: value}}


# ---- what a report says ----


def test_every_member_of_a_report_is_read():
    assert told(AGENT) == Report(
        report_id=ID, version="1.0",
        bytes_in=48211, bytes_out=19044, packets_in=310, packets_out=201,
        tcp_ports=(22, 8080), tcp_total=9, udp_ports=(5353,), udp_total=1,
        addresses=("203.0.113.9", "2001:db8::5"), established_total=2,
        custom={
            "battery": CustomValue(number=81.0),
            "temps": CustomValue(numbers=(41.5, 43.0, -1.0)),
            "services": CustomValue(strings=("sshd", "ntpd")),
            "dns": CustomValue(cidrs=("192.0.2.53", "192.0.2.1")),
        },
        extra={}, ignored=0,
    )  # fmt: skip


def test_short_keys_say_the_same():
    connections = [{"li": "eth0", "lp": 45512, "rad": "203.0.113.9:8883"}, {"rad": "[2001:db8::5]:443"}]
    tree = {
        "hed": {"rid": ID, "v": "1.0"},
        "met": {
            "tp": {"pts": [{"if": "eth0", "pt": 22}, {"pt": 8080}], "t": 9},
            "up": {"pts": [{"if": "eth0", "pt": 5353}]},
            "ns": {"bi": 48211, "bo": 19044, "pi": 310, "po": 201},
            "tc": {"ec": {"cs": connections, "t": 2}},
        },
        "cmet": AGENT["custom_metrics"],
    }  # fmt: skip
    assert told(tree) == told(AGENT)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_mix_of_spellings_and_both_formats_say_the_same(data: st.DataObject):
    tree = data.draw(reports(any_customs))
    mixed = data.draw(spelled(st.just(tree)))
    plain = told(tree)
    assert unplaced(told(mixed)) == unplaced(plain)
    # CBOR spells integers beyond 64 bits as tags, and those are refused.
    carried = decode(cbor2.dumps(mixed), True)
    assert unplaced(carried) == unplaced(plain) or "holds a tag" in getattr(carried, "message", "")


def unplaced(report: Report | Rejected) -> Report | Rejected | str:
    """A rejection's path is spelled as the report spells it, and the first of several problems depends on order."""
    return report if isinstance(report, Report) else report.reason


def test_an_absent_block_is_no_datapoint_and_an_empty_list_is_one():
    report = accepted(with_metrics(listening_tcp_ports={"ports": []}, listening_udp_ports={"total": 3}))
    assert (report.tcp_ports, report.tcp_total) == ((), 0)
    assert (report.udp_ports, report.udp_total) == (None, 3)
    assert (report.addresses, report.established_total, report.bytes_in) == (None, None, None)


def test_a_total_counts_more_than_the_sampled_list():
    assert accepted(with_metrics(listening_tcp_ports={"ports": [{"port": 1}], "total": 70})).tcp_total == 70


def test_ports_may_repeat_and_interfaces_may_be_null():
    report = accepted(with_ports({"port": 22, "interface": None}, {"port": 22, "interface": "::"}))
    assert (report.tcp_ports, report.tcp_total) == ((22, 22), 2)
    assert accepted(with_remote("1.2.3.4:5", local_interface=None)).addresses == ("1.2.3.4",)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("203.0.113.9:8883", "203.0.113.9"),
        ("[2001:db8::5]:443", "2001:db8::5"),
        ("::1:443", "::1"),  # AWS's agent 2.0.0 writes no brackets (clients.md §3.1)
        ("2001:DB8:0:0:0:0:0:5:443", "2001:db8::5"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
        ("::ffff:192.0.2.1:443", "192.0.2.1"),
        ("[fe80::1%eth0]:443", "fe80::1"),
        ("1.2.3.4:0", "1.2.3.4"),
    ],
)
def test_a_remote_address_is_canonical_without_its_port(remote: str, address: str):
    assert accepted(with_remote(remote)).addresses == (address,)


def test_unknown_keys_are_ignored_and_unknown_blocks_kept():
    tree = {
        "header": {**HEADER, "mood": [1]},
        "metrics": {"network_stats": {"bytes_in": 1, "errors": -5}, "disk": {"free": 7}},
        "signature": None,
    }
    report = accepted(tree)
    assert (report.bytes_in, report.extra, report.ignored) == (1, {"disk": {"free": 7}}, 0)


def test_counters_reach_the_end_of_int64():
    assert accepted(with_metrics(network_stats={"bytes_in": 2**63 - 1})).bytes_in == 2**63 - 1


# ---- what is rejected, and how the message names the place ----

PORTS = "metrics.listening_tcp_ports.ports"
REMOTE = "metrics.tcp_connections.established_connections.connections[0].remote_addr"


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ([], "the report is not an object"),
        ("x", "the report is not an object"),
        ({"metrics": {"disk": 1}}, "header: missing"),
        ({"header": 5, "metrics": {"disk": 1}}, "header: not an object"),
        ({"header": {"version": "1.0"}, "metrics": {"disk": 1}}, "header.report_id: missing"),
        ({"hed": {"rid": 1}, "met": {"disk": 1}}, "hed.version: missing"),
        ({"hed": {"rid": 1, "v": 1.0}, "met": {"disk": 1}}, "hed.v: not a string"),
        ({"hed": {"rid": 1, "v": "1"}, "met": {"disk": 1}}, "hed.v: 1 is not of the form Major.Minor"),
        ({"hed": {"rid": 1, "v": "1.0\n"}, "met": {"disk": 1}}, "hed.v: 1.0\\n is not of the form Major.Minor"),
        ({"hed": {"rid": True, "v": "1.0"}, "met": {"disk": 1}}, "hed.rid: not an integer"),
        ({"hed": {"rid": "7", "v": "1.0"}, "met": {"disk": 1}}, "hed.rid: not an integer"),
        ({"hed": {"rid": 0, "v": "1.0"}, "met": {"disk": 1}}, f"hed.rid: 0 is not within 1..{2**63 - 1}"),
        ({"hed": {"rid": 2**63, "v": "1.0"}, "met": {"disk": 1}}, f"hed.rid: {2**63} is not within 1..{2**63 - 1}"),
        ({"hed": {"rid": 10**400, "v": "1.0"}}, f"hed.rid: the number is not within 1..{2**63 - 1}"),
        ({"header": HEADER}, "metrics and custom_metrics: neither holds anything"),
        ({"header": HEADER, "metrics": {}, "cmet": {}}, "metrics and custom_metrics: neither holds anything"),
        ({"header": HEADER, "metrics": None}, "metrics: not an object"),
        ({"header": HEADER, "hed": HEADER, "met": {"disk": 1}}, "header and hed: two spellings of one key"),
        (with_ports({"port": 1}, {"port": 70000}), f"{PORTS}[1].port: 70000 is not within 1..65535"),
        (with_ports({"port": 0}), f"{PORTS}[0].port: 0 is not within 1..65535"),
        (with_ports({"pt": -1}), f"{PORTS}[0].pt: -1 is not within 1..65535"),
        (with_ports({"port": True}), f"{PORTS}[0].port: not an integer"),
        (with_ports({"port": 22.0}), f"{PORTS}[0].port: not an integer"),
        (with_ports({"port": 22, "pt": 22}), f"{PORTS}[0].port and {PORTS}[0].pt: two spellings of one key"),
        (with_ports({"interface": "eth0"}), f"{PORTS}[0].port: missing"),
        (with_ports({"port": 22, "interface": 5}), f"{PORTS}[0].interface: neither a string nor null"),
        (with_ports(22), f"{PORTS}[0]: not an object"),
        (with_metrics(tp={"ports": {}}), "metrics.tp.ports: not a list"),
        (with_metrics(tp={"pts": None}), "metrics.tp.pts: not a list"),
        (with_metrics(tp=[]), "metrics.tp: not an object"),
        (with_metrics(tp={"t": -1}), f"metrics.tp.t: -1 is not within 0..{2**63 - 1}"),
        (with_metrics(ns={"bi": 2**63}), f"metrics.ns.bi: {2**63} is not within 0..{2**63 - 1}"),
        (with_metrics(ns={"bytes_out": -1}), f"metrics.ns.bytes_out: -1 is not within 0..{2**63 - 1}"),
        (with_metrics(ns={"po": 1.5}), "metrics.ns.po: not an integer"),
        (with_metrics(ns={"po": None}), "metrics.ns.po: not an integer"),
        (with_remote("nowhere"), f"{REMOTE}: nowhere is not an address and a port"),
        (with_remote("192.0.2.1"), f"{REMOTE}: 192.0.2.1 is not an address and a port"),
        (with_remote("192.0.2.01:80"), f"{REMOTE}: 192.0.2.01:80 is not an address and a port"),
        (with_remote("192.0.2.1:65536"), f"{REMOTE}: 192.0.2.1:65536 is not an address and a port"),
        (with_remote("[192.0.2.1]:80"), f"{REMOTE}: [192.0.2.1]:80 is not an address and a port"),
        (with_remote("2001:db8:::5:80"), f"{REMOTE}: 2001:db8:::5:80 is not an address and a port"),
        (with_remote("::1:\u0664\u0664"), f"{REMOTE}: ::1:\\u0664\\u0664 is not an address and a port"),
        (with_remote(7), f"{REMOTE}: not a string"),
        (with_remote("1.2.3.4:5", local_port=-1), REMOTE[:-11] + f"local_port: -1 is not within 0..{2**63 - 1}"),
        (with_custom("m", {"number": 1}), "custom_metrics.m: not an array with exactly one element"),  # vector 15
        (with_custom("m", []), "custom_metrics.m: not an array with exactly one element"),
        (with_custom("m", [{"number": 1}] * 2), "custom_metrics.m: not an array with exactly one element"),
        (with_custom("m", [5]), "custom_metrics.m[0]: not an object"),
        (with_custom("m", [{"number": True}]), "custom_metrics.m[0].number: not a number"),
        (with_custom("m", [{"number": "1"}]), "custom_metrics.m[0].number: not a number"),
        (with_custom("m", [{"number": 10**400}]), "custom_metrics.m[0].number: not a finite number"),
        (with_custom("m", [{"number_list": [1, False]}]), "custom_metrics.m[0].number_list[1]: not a number"),
        (with_custom("m", [{"number_list": 1}]), "custom_metrics.m[0].number_list: not a list"),
        (with_custom("m", [{"string_list": ["a", 1]}]), "custom_metrics.m[0].string_list[1]: not a string"),
        (with_custom("m", [{"ip_list": [1]}]), "custom_metrics.m[0].ip_list[0]: not a string"),
    ],
)  # fmt: skip
def test_a_broken_rule_rejects_and_the_message_names_the_place(tree: Any, says: str):
    assert problem(tree) == says


@pytest.mark.parametrize(("tree", "says"), [({"a": float("nan")}, "not JSON"), ({"a": float("inf")}, "not JSON")])
def test_json_without_finite_numbers_is_none(tree: Any, says: str):
    assert problem(tree).startswith(says)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_cbor_may_carry_only_finite_numbers(number: float):
    rejected = decode(cbor2.dumps(with_custom("m", [{"number": number}])), True)
    assert isinstance(rejected, Rejected)
    assert rejected.message.endswith("custom_metrics.m[0].number: not a finite number")


def test_the_report_id_of_a_rejected_report_is_told_when_it_could_be_read():
    assert getattr(told(with_ports({"port": 0})), "report_id") == ID
    assert getattr(told({"header": {"report_id": ID}, "metrics": {"disk": 1}}), "report_id") == ID
    assert getattr(told({"header": {"report_id": -1, "version": "1.0"}}), "report_id") is None


def test_a_message_shows_little_of_what_a_device_wrote_and_nothing_unprintable():
    says = problem(with_custom("\x1b[2J" + "\u00fc" * 20_000, 5))
    assert len(says) < 400
    assert re.fullmatch(r"[ -~]+", says)


# ---- custom values (spec.md §2.3): some are accepted and dropped ----


@pytest.mark.parametrize(
    "value",
    [
        {"number": 0.1234567890123456},  # 16 digits
        {"number": 1234567890123456},
        {"number": -33.333333333333336},
        {"number_list": [1, 1234567890123456]},
        {"string_list": ["good", "not good"]},
        {"string_list": [""]},
        {"string_list": ["größe"]},
        {"ip_list": ["192.0.2.1", "192.0.2.0/24"]},
        {"ip_list": ["nowhere"]},
        {"Number": 1},
        {},
    ],
)
def test_a_custom_value_that_breaks_a_rule_of_values_is_dropped_and_counted(value: Any):
    report = accepted(with_custom("m", [value]))
    assert (report.custom, report.ignored) == ({}, 1)


@pytest.mark.parametrize(
    ("number", "read"),
    [
        (123456789012345, 123456789012345.0),
        (-0.123456789012345, -0.123456789012345),
        (10**20, 1e20),
        (10**23, 1e23),  # no float is it, yet it has one digit
        (1e-300, 1e-300),
        (0, 0.0),
    ],
)
def test_fifteen_significant_digits_are_kept(number: float, read: float):
    report = accepted(with_custom("m", [{"number": number}]))
    assert (report.custom, report.ignored) == ({"m": CustomValue(number=read)}, 0)


def test_a_number_of_four_bytes_in_cbor_is_kept():
    """12.3 in four bytes is 12.300000190734863 in eight: those are not digits that a device has written."""
    single = bytes.fromhex("fa4144cccd")
    payload = cbor2.dumps(with_custom("m", [{"number": "@"}])).replace(b"\x61@", single)
    report = decode(payload, True)
    assert isinstance(report, Report)
    assert report.custom["m"].number == pytest.approx(12.3)


def test_one_value_dropped_leaves_the_others():
    tree = {"header": HEADER, "custom_metrics": {"a": [{"number": 1}], "b": [{"string_list": ["?"]}]}}
    report = accepted(tree)
    assert (report.custom, report.ignored) == ({"a": CustomValue(number=1.0)}, 1)


def test_lenient_takes_a_bare_object_and_nothing_else():
    assert accepted(with_custom("m", {"number": 1}), lenient=True).custom == {"m": CustomValue(number=1.0)}
    assert "exactly one element" in problem(with_custom("m", 1), lenient=True)
    assert "exactly one element" in problem(with_custom("m", []), lenient=True)


# ---- hostile bytes ----


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


def around(value: bytes) -> bytes:
    return b'{"hed":{"rid":5,"v":"1.0"},"met":{"ns":{"bi":1}},"other":' + value + b"}"


@pytest.mark.parametrize("depth", [65, 500, 30_000])
def test_deep_nesting_is_rejected_whatever_the_depth_of_the_stack(depth: int):
    def at(frames: int) -> Report | Rejected:
        return at(frames - 1) if frames else decode(around(nested(depth)), False)

    for frames in (0, 300):
        assert isinstance(at(frames), Rejected)


def test_nesting_that_nobody_reads_may_be_64_deep():
    assert isinstance(decode(around(nested(64)), False), Report)


def test_a_payload_is_too_large_by_the_byte():
    report = json.dumps(with_metrics(ns={"bi": 1})).encode()
    assert isinstance(decode(report, False, payload_bytes_max=len(report)), Report)
    assert decode(report, False, payload_bytes_max=len(report) - 1) == Rejected(
        "InvalidPayload", f"the report has {len(report)} bytes; at most {len(report) - 1} are accepted", "too-large"
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{", b"\xff\xfe", b'{"a":"\xff"}', b'{"a":"\\ud800"}', b"null", b"NaN", b'{"hed":1e999}', b"9" * 100_000,
        b'{"hed":' * 20_000, b"[" * 131_072, b"\x00" * 1000, b'{"a":1}{"a":1}', b'{"a":1,}', b"\xef\xbb\xbf{}",
        around(b"9" * 100_000), around(b"1e-999999999"), around(b'"' + b"\\u0000" * 20_000 + b'"'), b"x" * 10_000_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("cbor", [False, True])
def test_garbage_is_rejected_never_raised(payload: bytes, cbor: bool):
    result = decode(payload, cbor)
    assert isinstance(result, Rejected | Report)
    assert isinstance(result, Rejected) or payload == around(b"1e-999999999") or payload.startswith(around(b'"')[:-1])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | damaged(texts(reports(any_customs))), st.booleans())
def test_no_bytes_make_the_decoder_raise(payload: bytes, cbor: bool):
    assert isinstance(decode(payload, cbor), Rejected | Report)


@settings(max_examples=300, deadline=None)
@given(damaged(reports(any_customs).map(cbor2.dumps)))
def test_no_damaged_cbor_makes_the_decoder_raise(payload: bytes):
    assert isinstance(decode(payload, True), Rejected | Report)


# ---- values for events ----


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("aws:all-bytes-in", MetricValue(count=48211)),
        ("aws:all-bytes-out", MetricValue(count=19044)),
        ("aws:all-packets-in", MetricValue(count=310)),
        ("aws:all-packets-out", MetricValue(count=201)),
        ("aws:num-listening-tcp-ports", MetricValue(count=9)),
        ("aws:num-listening-udp-ports", MetricValue(count=1)),
        ("aws:num-established-tcp-connections", MetricValue(count=2)),
        ("aws:listening-tcp-ports", MetricValue(ports=(22, 8080))),
        ("aws:listening-udp-ports", MetricValue(ports=(5353,))),
        ("aws:destination-ip-addresses", MetricValue(cidrs=("203.0.113.9", "2001:db8::5"))),
    ],
)
def test_the_value_of_a_metric_of_the_device(metric: str, value: MetricValue):
    assert metric_value(accepted(AGENT), kinds().metrics[metric]) == value


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("battery", "number", MetricValue(number=81.0)),
        ("temps", "number-list", MetricValue(numbers=(41.5, 43.0, -1.0))),
        ("services", "string-list", MetricValue(strings=("sshd", "ntpd"))),
        ("dns", "ip-address-list", MetricValue(cidrs=("192.0.2.53", "192.0.2.1"))),
        ("battery", "string-list", None),
        ("nothing", "number", None),
    ],
)
def test_the_value_of_a_custom_metric(name: str, kind: str, value: MetricValue | None):
    assert metric_value(accepted(AGENT), kinds().custom[kind](name)) == value


def test_a_set_names_each_element_once_and_a_cloud_metric_has_no_value():
    report = accepted(with_ports({"port": 443}, {"port": 22}, {"port": 443}))
    assert metric_value(report, kinds().metrics["aws:listening-tcp-ports"]) == MetricValue(ports=(443, 22))
    assert metric_value(report, kinds().metrics["aws:num-messages-sent"]) is None
