"""Every criterion's arithmetic against its definition: set membership, ranks, operators, horizons."""

import math
from itertools import pairwise

import naive
import numpy as np
import pytest
from builders import behavior, metric_value, numbered, play, profile, report, rules, told, world
from hypothesis import given
from hypothesis import strategies as st

from actors.columns import schema_of
from actors.criteria import membership, percentile, threshold
from actors.criteria._base import OPERATORS
from actors.metrics import kinds
from actors.numbers import address_key, key_of
from config.model import NS, MetricValue

SCHEMA = schema_of(rules(), kinds())

addresses = st.one_of(
    st.ip_addresses(v=4), st.ip_addresses(v=6), st.sampled_from(["::1", "::ffff:1.2.3.4", "::", "0.0.0.0", "ffff::"])
).map(str)


@st.composite
def networks(draw):
    """A CIDR, host bits and all, or a bare address."""
    address = draw(addresses)
    if draw(st.booleans()):
        return address
    return f"{address}/{draw(st.integers(0, 128 if ':' in address else 32))}"


def judged(operator, metric, expected, value):
    """Whether the world raises no alarm."""
    keyword = {"aws:destination-ip-addresses": "addresses", "aws:listening-tcp-ports": "tcp"}[metric]
    one = world(rules(profile(behavior(metric, operator, expected))))
    return play(one, numbered([report("a", 0, **{keyword: tuple(value)})])) == []


@given(st.lists(networks(), min_size=1, max_size=4), addresses)
def test_an_address_is_inside_as_the_definition_says(cidrs, address):
    ranges = membership.ranges_of(MetricValue(cidrs=tuple(cidrs)), SCHEMA)
    hi, lo = address_key(address)
    assert membership.is_inside(ranges, hi << 64 | lo) == naive.in_any(address, cidrs)


@given(st.lists(networks(), min_size=1, max_size=4))
def test_the_ranges_of_a_set_are_sorted_and_neither_overlap_nor_touch(cidrs):
    ranges = membership.ranges_of(MetricValue(cidrs=tuple(cidrs)), SCHEMA)
    assert all(first <= last for first, last in ranges)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(ranges))


@given(st.lists(st.lists(st.integers(0, 2**128 - 1), max_size=6), max_size=8), st.data(), st.booleans())
def test_the_kernel_finds_what_the_definition_finds(sets, data, negated):
    bounds = sorted(data.draw(st.sets(st.integers(0, 2**128 - 1), max_size=8)))
    if sets and bounds and sets[0]:
        sets[0][0] = bounds[0]  # an edge is the likeliest place for a mistake
    ranges = list(zip(bounds[::2], bounds[1::2], strict=False))
    flat = [element for one in sets for element in one]
    counts = [len(one) if number % 3 else len(one) or -1 for number, one in enumerate(sets)]
    starts = np.cumsum([0, *[len(one) for one in sets]])[:-1].astype(np.int32)
    verdicts = np.full((len(sets), 2), -1, np.int8)
    membership._judge(
        np.arange(len(sets), dtype=np.int32), starts, np.array(counts, np.int32),
        np.array([e >> 64 for e in flat], np.uint64), np.array([e & membership.LOW for e in flat], np.uint64),
        *membership._table(ranges), negated, 1, verdicts,
    )  # fmt: skip
    for one, count, verdict in zip(sets, counts, verdicts[:, 1].tolist(), strict=True):
        inside = [any(first <= element <= last for first, last in ranges) for element in one]
        wrong = any(inside) if negated else not all(inside)
        assert verdict == (-1 if count < 0 else int(wrong))
    assert (verdicts[:, 0] == -1).all()


@pytest.mark.parametrize(
    ("cidr", "address", "inside"),
    [
        ("::/0", "192.0.2.1", False),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::ffff:192.0.2.0/120", "192.0.2.9", True),
        ("192.0.2.0/24", "::ffff:192.0.2.9", True),
        ("::ffff:0:0/95", "192.0.2.9", False),
        ("::fffe:0:0/95", "::fffe:c000:209", True),
        ("192.168.100.14/24", "192.168.100.200", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::/32", "2001:db8:ffff::", True),
        ("2001:db8::/32", "2001:db9::", False),
    ],
)
def test_families_never_mix(cidr, address, inside):
    for operator, expected in (("in-cidr-set", inside), ("not-in-cidr-set", not inside)):
        assert judged(operator, "aws:destination-ip-addresses", [cidr], [address]) is expected


@pytest.mark.parametrize("operator", ["in-port-set", "not-in-port-set", "in-cidr-set", "not-in-cidr-set"])
def test_an_empty_observation_always_complies(operator):
    metric, expected = (
        ("aws:listening-tcp-ports", [22]) if "port" in operator else ("aws:destination-ip-addresses", ["10.0.0.0/8"])
    )
    assert judged(operator, metric, expected, [])


def test_one_element_on_the_wrong_side_decides():
    assert not judged("in-port-set", "aws:listening-tcp-ports", [22, 80], [22, 443, 80])
    assert not judged("not-in-port-set", "aws:listening-tcp-ports", [22, 80], [443, 80])


@given(st.sampled_from(["p0", "p0.1", "p0.01", "p1", "p10", "p50", "p90", "p99", "p99.9", "p99.99", "p100"]),
       st.integers(1, 400))  # fmt: skip
def test_a_rank_is_the_nearest_rank(statistic, population):
    assert percentile.rank(statistic, population) == naive.nearest_rank(statistic, population)


@pytest.mark.parametrize(
    ("statistic", "population", "place"),
    [("p99.9", 1000, 999), ("p99.9", 1001, 1000), ("p99.99", 10_000, 9999), ("p50", 4, 2), ("p0", 9, 1), ("p100", 9, 9),
     ("p0.01", 10_000, 1), ("p0.01", 10_001, 2), ("p90", 10, 9), ("p0.1", 1_000_000, 1000)],
)  # fmt: skip
def test_a_rank_is_exact_where_floats_are_not(statistic, population, place):
    assert percentile.rank(statistic, population) == place


@given(st.sampled_from(range(4)), st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62))
def test_an_operator_compares_as_it_is_named(code, value, limit):
    assert threshold.complies(code, value, limit) == naive.complies(OPERATORS[code], value, limit)


@pytest.mark.parametrize("code", range(4))
def test_an_operator_s_edge_is_equality(code):
    assert threshold.complies(code, 5, 5) == OPERATORS[code].endswith("-equals")


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.sampled_from(OPERATORS), finite, finite)
def test_a_custom_number_is_compared_as_a_number(operator, value, limit):
    one = world(rules(profile(behavior("m", operator, limit)), custom={"m": "number"}))
    value = 0.0 if value == 0 else float(f"{value:.14e}")  # 15 digits, as devices may report
    events = play(one, numbered([report("a", 0, custom={"m": ("number", value)})]))
    if math.isfinite(value):
        assert (events == []) == naive.complies(operator, value, limit)


@pytest.mark.parametrize(("duration_s", "seconds"), [(300, 285), (600, 585), (3600, 3585), (100, 95), (1, 0.95)])
def test_a_sum_looks_back_a_little_less_than_its_duration(duration_s, seconds):
    assert threshold.horizon_ns(duration_s) == naive.horizon(duration_s) == round(seconds * NS)


def test_reports_with_jitter_around_the_interval_are_never_summed_with_the_one_before():
    one = world(rules(profile(behavior("aws:all-bytes-out", "less-than", 150, duration=300))))
    at, log = 0.0, []
    for jitter in (0, -14, 9, -3, 14, -14.9):
        at += 300 + jitter
        log.append(report("a", at, bytes_out=100))
    assert play(one, numbered(log)) == []


def test_a_longer_duration_sums_the_reports_of_its_time():
    one = world(rules(profile(behavior("aws:all-bytes-out", "less-than", 300, duration=900))))
    events = play(one, numbered([report("a", at * 300, bytes_out=100) for at in range(4)]))
    assert [(event.position, event.value.count) for event in events] == [(3, 300)]


def test_a_snapshot_is_never_summed():
    one = world(rules(profile(behavior("aws:num-listening-tcp-ports", "less-than", 5, duration=3600))))
    assert play(one, numbered([report("a", at, tcp_total=4) for at in range(5)])) == []


MEDIAN = behavior("aws:all-bytes-out", "less-than-equals", duration=300, statistic="p50")


def test_a_window_sums_a_things_deltas_and_takes_its_latest_snapshot():
    ports = behavior("aws:num-listening-tcp-ports", "less-than-equals", name="ports", duration=300, statistic="p50")
    one = world(rules(profile(MEDIAN, ports)))
    log = [report("a", 0, bytes_out=3, tcp_total=9), report("b", 0, bytes_out=5, tcp_total=2),
           report("a", 9, bytes_out=3, tcp_total=1), report("c", 299, bytes_out=1, tcp_total=1)]  # fmt: skip
    events = play(one, numbered([*log, report("d", 300)]))
    assert [(e.thing, e.behavior.name, e.value.count) for e in events] == [("a", "b", 6), ("b", "ports", 2)]


def test_below_the_least_population_nothing_is_judged_and_nothing_moves():
    at_least_two = behavior("aws:all-bytes-out", "less-than", duration=300, statistic="p100", alarm=2)
    one = world(rules(profile(at_least_two)))
    both = [report("a", 0, bytes_out=1), report("b", 1, bytes_out=1)]
    alone = [report("a", 300, bytes_out=1)]
    again = [report("a", 600, bytes_out=1), report("b", 601, bytes_out=0), report("c", 900)]
    assert told(play(one, numbered([*both, *alone, *again]))) == [("a", "in-alarm")]


def test_a_negative_value_in_the_population_makes_it_no_percentile():
    load = behavior("m", "less-than-equals", duration=300, statistic="p50")
    one = world(rules(profile(load), custom={"m": "number"}))
    values = {"a": -1.0, "b": 2.0, "c": 3.0}
    log = [report(thing, 0, custom={"m": ("number", value)}) for thing, value in values.items()]
    assert play(one, numbered([*log, report("d", 300)])) == []
    log = [report(thing, 300, custom={"m": ("number", abs(value))}) for thing, value in values.items()]
    assert told(play(one, numbered([report("d", 301), *log, report("d", 600)])[1:])) == [("c", "in-alarm")]


def test_a_window_without_a_report_says_nothing():
    one = world(rules(profile(MEDIAN)))
    log = [report("a", 0, bytes_out=1), report("b", 0, bytes_out=9), report("c", 10_000), report("c", 20_000)]
    assert told(play(one, numbered(log))) == [("b", "in-alarm")]


def test_windows_of_different_lengths_close_in_order_of_their_ends():
    short, long = (
        behavior("aws:all-bytes-out", "less-than-equals", name=n, duration=d, statistic="p50")
        for n, d in (("short", 300), ("long", 600))
    )
    one = world(rules(profile(long, short)))
    events = play(one, numbered([report("a", 0, bytes_out=1), report("b", 1, bytes_out=9), report("c", 900)]))
    assert [(e.behavior.name, e.position) for e in events] == [("short", 3), ("long", 3)]
    assert events[0].time_ns + 300 * NS == events[1].time_ns


def test_offenders_are_named_each_once():
    one = world(rules(profile(behavior("aws:listening-tcp-ports", "in-port-set", [22]))))
    [event] = play(one, numbered([report("a", 0, tcp=(23, 22, 443, 23))]))
    assert event.reason == "aws:listening-tcp-ports: 23, 443; expected in-port-set [22]"


@pytest.mark.parametrize(
    ("custom_type", "value", "key"),
    [
        ("number-list", (1.0, -0.0), "numbers"),
        ("string-list", ("x",), "strings"),
        ("ip-address-list", ("::1",), "cidrs"),
    ],
)
def test_a_custom_list_is_judged_and_shown_in_its_own_kind(custom_type, value, key):
    operator = "in-cidr-set" if key == "cidrs" else "in-set"
    expected = {"numbers": [2.0], "strings": ["y"], "cidrs": ["10.0.0.0/8"]}[key]
    one = world(rules(profile(behavior("m", operator, expected)), custom={"m": custom_type}))
    [event] = play(one, numbered([report("a", 0, custom={"m": (custom_type, value)})]))
    assert getattr(event.value, key) == value


def test_zero_has_one_sign():
    one = world(rules(profile(behavior("m", "in-set", [0.0])), custom={"m": "number-list"}))
    assert play(one, numbered([report("a", 0, custom={"m": ("number-list", (-0.0,))})])) == []
    assert key_of(-0.0) == key_of(0.0)


def test_the_builder_of_values_agrees_with_the_metric():
    assert metric_value("aws:all-bytes-out", "less-than", 3) == MetricValue(count=3)
