"""What the compiled scanner accepts by itself, what it leaves to the reference, and that it stays in its payload."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_examples import NUMBERS, SHORT, tame, texts
from scanning import deferred, frames

from actors.columns import decode_frames, schema_of
from actors.custom_names import CustomNames
from actors.metrics import kinds
from actors.numbers import float_of, key_of
from config.model import CustomMetric, Limits, Rules

CUSTOM = (
    *(CustomMetric(metric_name=name, metric_type="number") for name in NUMBERS),
    CustomMetric(metric_name="words", metric_type="string-list"),
)
SCHEMA = schema_of(Rules(custom_metrics=CUSTOM), kinds())
HEADER = '"hed":{"rid":5,"v":"1.0"}'


def metrics(text: str) -> bytes:
    return f'{{{HEADER},"met":{{{text}}}}}'.encode()


def remote(text: str) -> bytes:
    return metrics(f'"tc":{{"ec":{{"cs":[{{"rad":"{text}"}}]}}}}')


def custom(text: str) -> bytes:
    return f'{{{HEADER},"cmet":{{{text}}}}}'.encode()


def is_scanned(payload: bytes) -> bool:
    return not deferred([payload], SCHEMA)[0]


# ---- what it is for ----


@settings(max_examples=100, deadline=None)
@given(texts(tame))
def test_what_agents_send_is_scanned(payload: bytes):
    assert is_scanned(payload)


@pytest.mark.parametrize(
    "payload",
    [
        metrics('"ns":{}'),
        metrics('"ns":{"bi":0,"bytes_out":999999999999999999}'),
        metrics('"tp":{"pts":[]},"listening_udp_ports":{"total":3}'),
        metrics('"tp":{"pts":[{"pt":1,"if":null},{"if":"0.0.0.0","port":65535}]}'),
        metrics('"tc":{},"tp":{}'),
        metrics('"tc":{"ec":{"cs":[],"t":0}}'),
        metrics(' "ns" : { "bi" : 1 } ').replace(b",", b"\r\n,\t"),
        remote("1.2.3.4:443"),
        remote("[2001:db8::5]:443"),
        remote("::1:443"),
        remote("::ffff:1.2.3.4:443"),
        remote("[1:2:3:4:5:6:7::]:0"),
        custom('"x":[{"number":1}]'),
        custom('"x":[{"number":-0.5e-3}],"temperature":[{"number":123456789012345}]'),
        custom('"undefined":[{"number":1}]'),
        custom('"words":[{"number":1}]'),
    ],
)
def test_it_accepts_by_itself(payload: bytes):
    assert is_scanned(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        metrics('"ns":{"bi":1}') + b"x",
        metrics('"ns":{"bi":1},"disk":1'),
        metrics('"ns":{"bi":1},"ns":{"bi":1}'),
        metrics('"ns":{"bi":1},"network_stats":{"bo":1}'),
        metrics('"ns":{"bi":1,"bytes_in":1}'),
        metrics('"ns":{"bi":1,}'),
        metrics('"ns":{"bi":01}'),
        metrics('"ns":{"bi":-1}'),
        metrics('"ns":{"bi":1.0}'),
        metrics('"ns":{"bi":1e3}'),
        metrics('"ns":{"bi":true}'),
        metrics('"ns":{"bi":1000000000000000000}'),
        metrics('"n\\u0073":{"bi":1}'),
        metrics('"tp":{"pts":[{"pt":0}]}'),
        metrics('"tp":{"pts":[{"pt":65536}]}'),
        metrics('"tp":{"pts":[{"pt":1,"if":"ä"}]}'),
        metrics('"tp":{"pts":[{"pt":1,"if":"a\\"b"}]}'),
        metrics('"tp":{"pts":[{"pt":1,"if":"a\tb"}]}'),
        metrics('"tp":{"pts":[{"pt":1,"if":nul}]}'),
        metrics('"tp":{"pts":[{}]}'),
        metrics('"tp":{"pts":[{"pt":1}'),
        remote("1.2.3.4"),
        remote("1.2.3.4:"),
        remote("1.2.3.4:65536"),
        remote("01.2.3.4:1"),
        remote("[1.2.3.4]:1"),
        remote("1:2:3:4:5:6:7:443"),
        remote("[::1%lo]:443"),
        custom('"x":[]'),
        custom('"x":{"number":1}'),
        custom('"x":[{"number":1},{"number":1}]'),
        custom('"x":[{"number":1,"number_list":[]}]'),
        custom('"x":[{"number":1234567890123456}]'),
        custom('"x":[{"number":1e23}]'),
        custom('"x":[{"number":1.}]'),
        custom('"x":[{"number":.5}]'),
        custom('"x":[{"number":+5}]'),
        custom('"x":[{"number":NaN}]'),
        custom('"x":[{"number":1}],"x":[{"number":2}]'),
        custom('"a":[{"number":1}],"b":[{"number":2}]'),  # both undefined: perhaps one name twice
        custom('"words":[{"string_list":["a"]}]'),
    ],
)
def test_it_leaves_to_the_reference(payload: bytes):
    assert not is_scanned(payload)


@pytest.mark.parametrize(("long", "short"), SHORT.items())
def test_a_key_is_recognised_in_both_spellings_and_not_one_letter_off(long: str, short: str):
    report = json.dumps(EVERYTHING)
    assert is_scanned(report.encode())
    assert is_scanned(report.replace(f'"{long}"', f'"{short}"').encode())
    for spelling in (long, short):
        for wrong in (spelling + "s", spelling[:-1], spelling[:-1] + "#", "#" + spelling[1:]):
            assert not is_scanned(report.replace(f'"{long}"', f'"{wrong}"').encode())


EVERYTHING: Any = {
    "header": {"report_id": 5, "version": "1.0"},
    "metrics": {
        "listening_tcp_ports": {"ports": [{"port": 22, "interface": "eth0"}], "total": 1},
        "listening_udp_ports": {"ports": [{"port": 22, "interface": "eth0"}], "total": 1},
        "network_stats": {"bytes_in": 1, "bytes_out": 2, "packets_in": 3, "packets_out": 4},
        "tcp_connections": {
            "established_connections": {
                "connections": [{"remote_addr": "1.2.3.4:5", "local_port": 6, "local_interface": "lo"}],
                "total": 7,
            }
        },
    },
    "custom_metrics": {"x": [{"number": 1}]},
}


# ---- it stays within its payload ----


@pytest.mark.parametrize("tree", [EVERYTHING, {**EVERYTHING, "custom_metrics": {NUMBERS[-1]: [{"number": 1.25}]}}])
def test_a_report_that_is_cut_off_is_never_completed_by_what_lies_behind(tree: Any):
    whole = json.dumps(tree).encode()
    cut = [whole[:end] for end in range(len(whole))]
    assert all(deferred(cut, SCHEMA))


@settings(max_examples=200, deadline=None)
@given(texts(tame))
def test_a_cut_report_is_deferred_though_its_rest_lies_behind(whole: bytes):
    whole = whole.strip()
    batch = frames([whole])
    for end in range(len(whole) - 1, max(len(whole) - 40, 0), -1):
        batch.payload_len[0] = end
        assert not decode_frames(batch, SCHEMA, Limits()).ok[0]


def test_a_payload_at_the_very_end_of_the_buffer_is_read():
    batch = frames([json.dumps(EVERYTHING).encode()])
    exact = type(batch)(
        batch.data[: -len(b'"}]}}}}0123456789:8883"}')].copy(), *(getattr(batch, n) for n in batch.__slots__[1:])
    )
    assert decode_frames(exact, SCHEMA, Limits()).ok[0]


# ---- room and limits ----


def test_room_for_elements_grows_until_all_fit():
    """Reports that are nearly all ports and addresses: many more than the first guess, in every set."""
    ports = ",".join(f'{{"pt":{i + 1}}}' for i in range(2000))
    hosts = ",".join(f'{{"rad":"::{i:x}:1"}}' for i in range(2000))
    payload = metrics(f'"tp":{{"pts":[{ports}]}},"up":{{"pts":[{ports}]}},"tc":{{"ec":{{"cs":[{hosts}]}}}}')
    columns = decode_frames(frames([payload, metrics('"tp":{"pts":[{"pt":7}]}'), payload]), SCHEMA, Limits())
    assert columns.ok.tolist() == [1, 1, 1]
    for entry in (0, 2):
        for column, first in zip(columns.sets[:3], (1, 1, 0), strict=True):
            start = column.start[entry]
            assert column.count[entry] == 2000
            assert column.lo[start : start + 2000].tolist() == list(range(first, first + 2000))
    assert columns.sets[0].lo[columns.sets[0].start[1]] == 7


def test_a_payload_above_the_limit_is_not_scanned():
    payload = metrics('"ns":{"bi":1}')
    assert deferred([payload], SCHEMA, len(payload)) == [False]
    assert deferred([payload], SCHEMA, len(payload) - 1) == [True]


# ---- numbers and names ----


@settings(max_examples=500, deadline=None)
@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(-22, 22))
def test_a_decimal_is_the_nearest_float(mantissa: int, exponent: int):
    text = f"{mantissa}e{exponent}"
    assert number(text) == float(text)


@pytest.mark.parametrize(
    "text", ["0", "-0", "0.0", "-0.0e0", "0.1", "1E5", "1e+5", "12.50", "123456789.012345", "1e22"]
)
def test_decimals_at_their_edges(text: str):
    assert number(text) == float(text)


def number(text: str) -> float:
    payload = custom(f'"x":[{{"number":{text}}}]')
    assert is_scanned(payload)
    columns = decode_frames(frames([payload]), SCHEMA, Limits())
    column = SCHEMA.scalar("x")
    assert column is not None
    return float_of(int(columns.scalars[0, column]))


def test_a_hundred_names_are_told_apart():
    names = [f"metric-{i}" for i in range(100)]
    schema = schema_of(
        Rules(custom_metrics=tuple(CustomMetric(metric_name=n, metric_type="number") for n in names)), kinds()
    )
    payload = custom(",".join(f'"{name}":[{{"number":{i}}}]' for i, name in enumerate(names)))
    assert deferred([payload], schema) == [False]
    columns = decode_frames(frames([payload]), schema, Limits())
    assert [columns.scalars[0, schema.scalar(name)] for name in names] == [key_of(float(i)) for i in range(100)]


def test_names_that_fall_into_one_slot_are_told_apart():
    """`Aa` and `BB` have one hash, and so do their repetitions."""
    names = ["Aa" * 3, "BB" * 3, "AaBBAa", "BBAaBB"]
    table = CustomNames({name: column for column, name in enumerate(names)})
    assert np.count_nonzero(table.slots[:, 1]) == 4
    schema = schema_of(
        Rules(custom_metrics=tuple(CustomMetric(metric_name=n, metric_type="number") for n in names)), kinds()
    )
    columns = decode_frames(frames([custom('"AaBBAa":[{"number":1}],"BBBBBB":[{"number":2}]')]), schema, Limits())
    found = {
        name: int(columns.scalars[0, schema.scalar(name)])
        for name in names
        if columns.scalars[0, schema.scalar(name)] >= 0
    }
    assert found == {"AaBBAa": key_of(1.0), "BBBBBB": key_of(2.0)}
    missing = decode_frames(frames([custom('"AaAaBB":[{"number":1}]')]), schema, Limits())
    assert missing.ignored == 1
