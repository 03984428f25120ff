"""Which columns a set of rules has, and what the reference writes into them behind the scanner."""

import json
from collections.abc import Mapping
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_examples import any_customs, reports, texts

from actors.columns import FIXED_SCALARS, FIXED_SETS, UNKNOWN_WORD, Schema, decode_frames, schema_of
from actors.entries import frames_of
from actors.messages import ABSENT, Columns
from actors.metrics import kinds
from actors.numbers import address_key, key_of
from config.kinds import NUMERIC, SET, Kinds, Metric
from config.model import Behavior, Criteria, CustomMetric, Limits, MetricToRetain, MetricValue, Rules, SecurityProfile

JSON, CBOR = "$aws.things.p1.defender.metrics.json", "$aws.things.p1.defender.metrics.cbor"
HEADER = {"report_id": 5, "version": "1.0"}


def rules(custom: Mapping[str, str] | None = None, *behaviors: Behavior, **profile: Any) -> Rules:
    metrics = tuple(CustomMetric(metric_name=name, metric_type=kind) for name, kind in (custom or {}).items())  # type: ignore[arg-type]
    profiles = (SecurityProfile(security_profile_name="p", behaviors=behaviors, **profile),)
    return Rules(custom_metrics=metrics, profiles=profiles)


def words(name: str, *strings: str) -> Behavior:
    return Behavior(
        name=name,
        metric="services",
        criteria=Criteria(comparison_operator="in-set", value=MetricValue(strings=strings)),
    )


def decoded(schema: Schema, *reports: tuple[str, Any], **limits: Any) -> Columns:
    """The columns of (subject, report), where a report is a tree or bytes."""

    def payload(subject: str, tree: Any) -> bytes:
        if isinstance(tree, bytes):
            return tree
        return cbor2.dumps(tree) if subject == CBOR else json.dumps(tree).encode()

    entries = [(i + 1, i, subject, payload(subject, tree), None, 0) for i, (subject, tree) in enumerate(reports)]
    return decode_frames(frames_of(entries), schema, Limits(**limits))


def elements(columns: Columns, which: int | None, entry: int) -> list[tuple[int, int]] | None:
    assert which is not None
    column = columns.sets[which]
    start, count = int(column.start[entry]), int(column.count[entry])
    if count < 0:
        return None
    span = slice(start, start + count)
    return list(zip(column.hi[span].tolist(), column.lo[span].tolist(), strict=True))


# ---- the schema ----


def test_the_fixed_columns_come_first_and_built_in_metrics_find_theirs():
    schema = schema_of(rules(), kinds())
    assert schema.scalars == FIXED_SCALARS
    assert schema.sets == FIXED_SETS
    assert schema.compiled
    for metric in kinds().metrics.values():
        expected = {metric.column} if metric.side == "device" else {None}
        scalar, held = schema.scalar(metric.name), schema.set(metric.name)
        assert {
            None if scalar is None else schema.scalars[scalar],
            None if held is None else schema.sets[held],
        } == expected | {None}


def test_every_custom_metric_has_a_column_of_its_kind():
    schema = schema_of(
        rules({"b": "number", "a": "number", "s": "string-list", "n": "number-list", "i": "ip-address-list"}), kinds()
    )
    assert schema.scalars == (*FIXED_SCALARS, "custom:b", "custom:a")
    assert schema.sets == (*FIXED_SETS, "custom:s", "custom:n", "custom:i")
    assert (schema.scalar("b"), schema.scalar("a"), schema.scalar("s")) == (7, 8, None)
    assert (schema.set("s"), schema.set("i"), schema.set("b"), schema.set("unheard-of")) == (3, 5, None, None)


def test_the_vocabulary_is_every_string_that_some_behavior_names():
    schema = schema_of(rules({"services": "string-list"}, words("x", "b", "a"), words("y", "c", "a")), kinds())
    assert schema.vocabulary == {"a": 0, "b": 1, "c": 2}


def test_schemas_are_equal_when_their_columns_mean_the_same():
    custom = {"services": "string-list", "t": "number"}
    schema = schema_of(rules(custom, words("x", "a")), kinds())
    assert schema == schema_of(rules(custom, words("renamed", "a"), words("x", "a")), kinds())
    assert schema != schema_of(rules(custom, words("x", "b")), kinds())
    assert schema != schema_of(rules({**custom, "u": "number"}, words("x", "a")), kinds())
    assert schema != schema_of(rules({"services": "string-list", "t": "number-list"}, words("x", "a")), kinds())


# ---- what is written ----


def test_custom_values_of_every_type_reach_their_columns():
    custom = {"t": "number", "services": "string-list", "temps": "number-list", "dns": "ip-address-list"}
    schema = schema_of(rules(custom, words("x", "sshd")), kinds())
    report = {
        "header": HEADER,
        "custom_metrics": {
            "t": [{"number": -1.5}],
            "services": [{"string_list": ["sshd", "other"]}],
            "temps": [{"number_list": [-1, 41.5]}],
            "dns": [{"ip_list": ["192.0.2.53", "2001:db8::53"]}],
        },
    }
    for subject in (JSON, CBOR):
        columns = decoded(schema, (subject, report))
        assert columns.ok.tolist() == [1]
        assert columns.ignored == 0
        assert columns.scalars[0].tolist() == [ABSENT] * 7 + [key_of(-1.5)]
        assert elements(columns, schema.set("services"), 0) == [(0, 0), (0, UNKNOWN_WORD)]
        assert elements(columns, schema.set("temps"), 0) == [(0, key_of(-1.0) + 2**64), (0, key_of(41.5))]
        assert elements(columns, schema.set("dns"), 0) == [address_key("192.0.2.53"), address_key("2001:db8::53")]
        assert elements(columns, 0, 0) is None


def test_undefined_names_and_other_types_are_counted_and_not_kept():
    schema = schema_of(rules({"t": "number", "s": "string-list"}), kinds())
    report = {
        "header": HEADER,
        "custom_metrics": {
            "t": [{"number_list": [1]}],
            "s": [{"number": 1}],
            "u": [{"number": 1}],
            "v": [{"string_list": ["not a word"]}],
        },
    }
    columns = decoded(schema, (JSON, report), (JSON, {"header": HEADER, "custom_metrics": {"u": [{"number": 1}]}}))
    assert (columns.ok.tolist(), columns.rejected, columns.ignored) == ([1, 1], {}, 5)
    assert columns.scalars[0].tolist() == [ABSENT] * 8
    assert elements(columns, 3, 0) is None


def test_a_batch_of_all_kinds_of_entries():
    schema = schema_of(rules(), kinds())
    ports = {"header": HEADER, "metrics": {"listening_tcp_ports": {"ports": [{"port": 22}, {"port": 80}]}}}
    odd = {
        "header": {"report_id": 6, "version": "1.0"},
        "metrics": {"listening_tcp_ports": {"ports": [{"port": 443}]}, "disk": 1},
    }
    broken = {
        "header": {"report_id": 7, "version": "1.0"},
        "metrics": {"listening_tcp_ports": {"ports": [{"port": 0}]}},
    }
    entries = [(JSON, ports), ("detectd.log.tick", b"{}"), (CBOR, odd), (JSON, broken)]
    entries += [(JSON, odd), (JSON, b"?"), (CBOR, b"?"), (JSON, ports)]
    columns = decoded(schema, *entries)
    assert columns.ok.tolist() == [1, 0, 1, 0, 1, 0, 0, 1]
    assert columns.report_id.tolist() == [5, ABSENT, 6, 7, 6, ABSENT, ABSENT, 5]
    assert sorted(columns.rejected) == [3, 5, 6]
    assert columns.rejected[3].report_id == 7
    two, one = [(0, 22), (0, 80)], [(0, 443)]
    assert [elements(columns, 0, i) for i in range(8)] == [two, None, one, None, one, None, None, two]
    assert columns.scalars[:, 4].tolist() == [2, ABSENT, 1, ABSENT, 1, ABSENT, ABSENT, 2]


def test_nothing_in_is_nothing_out():
    columns = decoded(schema_of(rules(), kinds()))
    assert (len(columns.ok), columns.scalars.shape, columns.rejected, columns.ignored) == (0, (0, 7), {}, 0)


def test_limits_hold_in_both_formats():
    schema = schema_of(rules(), kinds())
    report = {"header": HEADER, "metrics": {"network_stats": {"bytes_in": 1}}}
    columns = decoded(schema, (JSON, report), (CBOR, report), payload_bytes_max=10)
    assert [rejected.reason for rejected in columns.rejected.values()] == ["too-large", "too-large"]


def test_lenient_reaches_the_reference():
    schema = schema_of(rules({"t": "number"}), kinds())
    bare = {"header": HEADER, "custom_metrics": {"t": {"number": 1}}}
    assert decoded(schema, (JSON, bare)).ok.tolist() == [0]
    columns = decoded(schema, (JSON, bare), lenient=True)
    assert (columns.ok.tolist(), columns.scalars[0, 7]) == ([1], key_of(1.0))


@settings(max_examples=100, deadline=None)
@given(st.lists(texts(reports(any_customs)), min_size=1, max_size=6), st.data())
def test_a_batch_says_what_its_parts_say(payloads: list[bytes], data: st.DataObject):
    schema = schema_of(
        rules({"list": "number-list", "words": "string-list", "hosts": "ip-address-list", "x": "number"}), kinds()
    )
    cut = data.draw(st.integers(0, len(payloads)))
    entries = [(JSON, payload) for payload in payloads]
    whole, parts = decoded(schema, *entries), (decoded(schema, *entries[:cut]), decoded(schema, *entries[cut:]))
    assert said(whole) == said(parts[0]) + said(parts[1])
    assert whole.ignored == parts[0].ignored + parts[1].ignored


def said(columns: Columns) -> list[Any]:
    return [
        (
            int(columns.ok[i]),
            int(columns.report_id[i]),
            columns.scalars[i].tolist(),
            [elements(columns, which, i) for which in range(len(columns.sets))],
            columns.rejected.get(i),
        )
        for i in range(len(columns.ok))
    ]


# ---- metrics that the scanner does not know ----


def disk_free(report: Any) -> float | None:
    value: float | None = report.extra.get("disk", {}).get("free")
    return value


def disk_names(report: Any) -> tuple[str, ...] | None:
    names = report.extra.get("disk", {}).get("names")
    return None if names is None else tuple(names)


FREE = Metric(
    name="x:disk-free", side="device", value_field="number", kind="snapshot", operators=NUMERIC, duration="optional",
    read=disk_free,
)  # fmt: skip
MOUNTED = Metric(
    name="x:disks", side="device", value_field="strings", kind="set", operators=SET, duration="forbidden",
    read=disk_names,
)  # fmt: skip
MORE = Kinds(metrics={**kinds().metrics, FREE.name: FREE, MOUNTED.name: MOUNTED}, custom=kinds().custom)


@pytest.mark.parametrize(
    "profile",
    [
        {"additional_metrics_to_retain": ("x:disk-free", "x:disks")},
        {"additional_metrics_to_retain_v2": (MetricToRetain(metric="x:disk-free"), MetricToRetain(metric="x:disks"))},
    ],
)
def test_a_metric_without_a_compiled_column_works_by_way_of_the_reference(profile: Any):
    schema = schema_of(rules({"t": "number"}, **profile), MORE)
    assert schema.scalars == (*FIXED_SCALARS, "custom:t", "x:disk-free")
    assert schema.sets == (*FIXED_SETS, "x:disks")
    assert not schema.compiled
    blocks = {"disk": {"free": 0.5, "names": ["a"]}, "network_stats": {"bytes_in": 9}}
    tree = {"header": HEADER, "metrics": blocks, "custom_metrics": {"t": [{"number": 2}]}}
    columns = decoded(
        schema, (JSON, tree), (CBOR, tree), (JSON, {"header": HEADER, "metrics": {"network_stats": {"bytes_in": 9}}})
    )
    row = [9, *[ABSENT] * 6, key_of(2.0), key_of(0.5)]
    assert columns.scalars.tolist() == [row, row, [9, *[ABSENT] * 8]]
    assert [elements(columns, schema.set("x:disks"), i) for i in range(3)] == [[(0, UNKNOWN_WORD)]] * 2 + [None]


def test_a_metric_that_no_profile_names_costs_nothing():
    schema = schema_of(rules(), MORE)
    assert schema.compiled
    assert schema.scalar("x:disk-free") is None
