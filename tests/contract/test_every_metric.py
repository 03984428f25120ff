"""What every metric promises, run over all that are found; and that the catalogue is the one of spec.md Appendix A."""

import json
from pathlib import Path

import pytest

import actors.metrics
from actors.metrics import kinds
from actors.report import Report, decode
from config.kinds import CIDR, NUMERIC, PORT, SET, discover

FOUND = discover(actors.metrics, "METRIC")
BUILT_IN = sorted(FOUND.items())
CUSTOM = [(kind, make("m")) for kind, make in sorted(kinds().custom.items())]
EVERY = [metric for _, metric in BUILT_IN + CUSTOM]
MEMBERS = {"number": "number", "number-list": "number_list", "string-list": "string_list", "ip-address-list": "ip_list"}

# name: side, value field, kind, operators, duration, statistical, ml, dimension (spec.md Appendix A)
N, T, F = NUMERIC, True, False
APPENDIX_A = {
    "aws:message-byte-size": ("cloud", "count", "permessage", N, "optional", T, T, T),
    "aws:num-messages-sent": ("cloud", "count", "counter", N, "required", T, T, T),
    "aws:num-messages-received": ("cloud", "count", "counter", N, "required", T, T, T),
    "aws:num-authorization-failures": ("cloud", "count", "counter", N, "required", T, T, T),
    "aws:num-connection-attempts": ("cloud", "count", "counter", N, "required", T, T, F),
    "aws:num-disconnects": ("cloud", "count", "counter", N, "required", T, T, F),
    "aws:source-ip-address": ("cloud", "cidrs", "set", CIDR, "none", F, F, T),
    "aws:disconnect-duration": ("cloud", "count", "gauge", {"less-than", "less-than-equals"}, "none", F, F, F),
    "aws:all-bytes-out": ("device", "count", "delta", N, "required", T, T, F),
    "aws:all-bytes-in": ("device", "count", "delta", N, "required", T, T, F),
    "aws:all-packets-out": ("device", "count", "delta", N, "required", T, T, F),
    "aws:all-packets-in": ("device", "count", "delta", N, "required", T, T, F),
    "aws:num-listening-tcp-ports": ("device", "count", "snapshot", N, "optional", T, T, F),
    "aws:num-listening-udp-ports": ("device", "count", "snapshot", N, "optional", T, T, F),
    "aws:num-established-tcp-connections": ("device", "count", "snapshot", N, "optional", T, T, F),
    "aws:destination-ip-addresses": ("device", "cidrs", "set", CIDR, "none", F, F, F),
    "aws:listening-tcp-ports": ("device", "ports", "set", PORT, "none", F, F, F),
    "aws:listening-udp-ports": ("device", "ports", "set", PORT, "none", F, F, F),
    "number": ("custom", "number", "snapshot", N, "optional", T, T, F),
    "number-list": ("custom", "numbers", "set", SET, "forbidden", F, F, F),
    "string-list": ("custom", "strings", "set", SET, "forbidden", F, F, F),
    "ip-address-list": ("custom", "cidrs", "set", CIDR, "forbidden", F, F, F),
}

FULL = {
    "header": {"report_id": 1, "version": "1.0"},
    "metrics": {
        "listening_tcp_ports": {"ports": [{"port": 22}, {"port": 8080}], "total": 9},
        "listening_udp_ports": {"ports": [{"port": 53}]},
        "network_stats": {"bytes_in": 1, "bytes_out": 2, "packets_in": 3, "packets_out": 4},
        "tcp_connections": {
            "established_connections": {"connections": [{"remote_addr": "192.0.2.9:8883"}], "total": 7}
        },
    },
    "custom_metrics": {"m": [{"number": 81.5}]},
}
VALUES = {
    "aws:all-bytes-in": 1,
    "aws:all-bytes-out": 2,
    "aws:all-packets-in": 3,
    "aws:all-packets-out": 4,
    "aws:num-listening-tcp-ports": 9,
    "aws:num-listening-udp-ports": 1,
    "aws:num-established-tcp-connections": 7,
    "aws:listening-tcp-ports": (22, 8080),
    "aws:listening-udp-ports": (53,),
    "aws:destination-ip-addresses": ("192.0.2.9",),
}


def report(document):
    found = decode(json.dumps(document).encode(), cbor=False)
    assert isinstance(found, Report), found
    return found


def custom_report(member, value):
    return report({"header": {"report_id": 1, "version": "1.0"}, "custom_metrics": {"m": [{member: value}]}})


def traits(metric):
    return (
        metric.side, metric.value_field, metric.kind, metric.operators, metric.duration,
        metric.statistical, metric.ml, metric.dimension,
    )  # fmt: skip


def test_the_catalogue_is_that_of_the_specification():
    found = {metric.name: traits(metric) for _, metric in BUILT_IN} | {kind: traits(metric) for kind, metric in CUSTOM}
    assert found == APPENDIX_A


@pytest.mark.parametrize(("module", "metric"), BUILT_IN)
def test_a_file_is_named_for_its_metric(module, metric):
    assert metric.name == "aws:" + module.replace("_", "-")
    assert kinds().metrics[metric.name] is metric


def test_every_file_of_the_package_is_found():
    files = {path.stem for path in Path(actors.metrics.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    assert set(FOUND) == files


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_its_operators_fit_its_value(metric):
    fitting = {"count": NUMERIC, "number": NUMERIC, "cidrs": CIDR, "ports": PORT, "numbers": SET, "strings": SET}
    assert metric.operators
    assert metric.operators <= fitting[metric.value_field]
    assert metric.is_set == (metric.value_field not in {"count", "number"})


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_only_numbers_have_percentiles_and_models(metric):
    assert not (metric.is_set and (metric.statistical or metric.ml))


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_a_metric_of_a_device_is_read_from_its_report_and_one_of_the_broker_is_not(metric):
    assert (metric.read is None) == (metric.side == "cloud")
    assert metric.column is None or metric.side == "device"


@pytest.mark.parametrize(("name", "value"), sorted(VALUES.items()))
def test_its_natural_value_is_read(name, value):
    assert kinds().metrics[name].read(report(FULL)) == value


def test_a_value_is_expected_of_every_metric_of_a_device():
    assert set(VALUES) == {metric.name for _, metric in BUILT_IN if metric.side == "device"}


@pytest.mark.parametrize("metric", [m for m in EVERY if m.read], ids=lambda metric: metric.name)
def test_a_block_that_is_missing_is_no_datapoint(metric):
    other = {"header": {"report_id": 1, "version": "1.0"}, "custom_metrics": {"other": [{"number": 1}]}}
    assert metric.read(report(other)) is None


@pytest.mark.parametrize("name", ["aws:listening-tcp-ports", "aws:listening-udp-ports", "aws:destination-ip-addresses"])
def test_an_empty_list_is_a_datapoint(name):
    empty = {
        "listening_tcp_ports": {"ports": []},
        "listening_udp_ports": {"ports": []},
        "tcp_connections": {"established_connections": {"connections": []}},
    }
    assert kinds().metrics[name].read(report({"header": {"report_id": 1, "version": "1.0"}, "metrics": empty})) == ()


CUSTOM_VALUES = {
    "number": (81.5, 81.5),
    "number-list": ([1, -2.5], (1.0, -2.5)),
    "string-list": (["sshd", "ntpd"], ("sshd", "ntpd")),
    "ip-address-list": (["192.0.2.53"], ("192.0.2.53",)),
}


@pytest.mark.parametrize(("kind", "metric"), CUSTOM)
def test_a_custom_value_is_read_by_its_type_and_another_type_is_no_datapoint(kind, metric):
    for other, member in MEMBERS.items():
        given, expected = CUSTOM_VALUES[other]
        assert metric.read(custom_report(member, given)) == (expected if other == kind else None)


@pytest.mark.parametrize("kind", sorted(kinds().custom))
def test_custom_metrics_of_one_name_and_type_are_equal(kind):
    # A reload makes them anew, and must see that nothing has changed.
    make = kinds().custom[kind]
    assert make("m") == make("m")
    assert make("m") != make("n")
