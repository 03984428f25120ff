"""What a new configuration changes, and the bytes and the digest that name the rules."""

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.metrics import kinds
from config.diff import RELOADABLE, Change, Names, diff, rules_bytes, rules_digest, rules_from_bytes
from config.load import load_text
from config.model import (
    AlertTarget,
    Behavior,
    Criteria,
    CustomMetric,
    Dimension,
    Fleet,
    Group,
    Limits,
    MetricValue,
    Rules,
    SecurityProfile,
    Settings,
    Tag,
)

BEHAVIOR = {
    "name": "B",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [22]}},
}


def settings(file="/c/detectd.json", **given):
    return load_text(json.dumps(given), file=file, kinds=kinds()).settings


def profile(name, **more):
    return {"securityProfileName": name, "behaviors": [BEHAVIOR], "targets": ["all/things"], **more}


def test_nothing_has_changed_between_equal_settings():
    change = diff(settings(profiles=[profile("P")]), settings(profiles=[profile("P")]))
    assert change == Change()
    assert not change


def test_objects_in_another_file_are_no_change():
    one, other = settings(profiles=[profile("P")]), settings(profiles=[profile("P")], data_dir="/c/data")
    moved = msgspec.structs.replace(other, sources=(), origin={"profile/P": "/elsewhere"})
    assert not diff(one, moved)


def test_each_kind_of_object_is_added_removed_and_changed_by_name():
    def hook(name, port):
        return {"name": name, "url": f"http://127.0.0.1:{port}/"}

    def bridge(name, port):
        return {"name": name, "url": f"mqtt://h:{port}"}

    def metric(name, kind):
        return {"metricName": name, "metricType": kind}

    def state(version, last):
        return settings(
            profiles=[profile("same"), profile("edited", securityProfileDescription=version), profile(last)],
            custom_metrics=[metric("same", "number"), metric("edited", version), metric(last, "number")],
            dimensions=[{"name": name, "stringValues": [value]} for name, value in
                        (("same", "a"), ("edited", version), (last, "a"))],
            fleet={"groups": {"same": {}, "edited": {"things": [version]}, last: {}}},
            receivers={"webhooks": [hook("same", 1), hook("edited", len(version)), hook(last, 1)]},
            broker={"bridges": [bridge("same", 1), bridge("edited", len(version)), bridge(last, 1)]},
        )  # fmt: skip

    change = diff(state("number", "removed"), state("string-list", "added"))
    names = Names(added=("added",), removed=("removed",), changed=("edited",))
    assert change == Change(
        profiles=names, custom_metrics=names, dimensions=names, groups=names, webhooks=names, bridges=names,
        rules_changed=True, settings=("broker.bridges", "receivers.webhooks"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "restart", "taken"),
    [
        ({"data_dir": "other"}, ["data_dir"], []),
        ({"account": {"id": "123456789012"}}, ["account.id"], []),
        ({"http": {"listen": "127.0.0.1:1"}}, ["http.listen"], []),
        ({"broker": {"embedded": {"mqtt": "127.0.0.1:1"}}}, ["broker.embedded.mqtt"], []),
        ({"broker": {"embedded": {"sync_interval_s": 0}}}, ["broker.embedded.sync_interval_s"], []),
        ({"broker": {"nats": {"url": "nats://h:1"}}}, ["broker.embedded", "broker.nats"], []),
        ({"log": {"max_bytes": 2**21, "stream": "X"}}, ["log.max_bytes", "log.stream"], []),
        ({"logging": {"format": "json"}}, ["logging.format"], []),
        ({"logging": {"level": "debug"}}, [], ["logging.level"]),
        ({"checkpoint": {"every_s": 1}}, [], ["checkpoint.every_s"]),
        ({"aws": {"endpoint_urls": {"sns": "http://h"}}}, [], ["aws.endpoint_urls"]),
        ({"broker": {"bridges": [{"name": "b", "url": "mqtt://h"}]}}, [], ["broker.bridges"]),
    ],
)
def test_a_setting_is_taken_over_or_needs_a_restart(given, restart, taken):
    change = diff(settings(), settings(**given))
    assert (list(change.needs_restart), list(change.settings), change.rules_changed) == (restart, taken, False)
    assert change


def test_a_proxy_in_front_needs_a_restart():
    before = settings()
    http = msgspec.structs.replace(before.http, behind_proxy=True)  # a file would need keys for it
    assert diff(before, msgspec.structs.replace(before, http=http)).needs_restart == ("http.behind_proxy",)


def test_access_keys_are_taken_over(tmp_path):
    (tmp_path / "key").write_text("x")
    keys = [{"id": "A", "secret_file": str(tmp_path / "key")}]
    change = diff(settings(), settings(http={"access_keys": keys}))
    assert (change.settings, change.needs_restart) == (("http.access_keys",), ())


@pytest.mark.parametrize(
    "given",
    [
        {"limits": {"lenient": True}},
        {"fleet": {"things": ["p1"]}},
        {"profiles": [profile("P")]},
        {"custom_metrics": [{"metricName": "m", "metricType": "number"}]},
    ],
)
def test_what_decides_alarms_is_a_change_of_rules(given):
    change = diff(settings(), settings(**given))
    assert (change.rules_changed, change.settings, change.needs_restart) == (True, (), ())


def test_what_can_be_reloaded_are_settings_that_there_are():
    for name in RELOADABLE:
        value = Settings()
        for step in name.split("."):
            value = getattr(value, step)


NAMES = st.text("abc-", min_size=1, max_size=4)
VALUES = st.one_of(
    st.builds(MetricValue, count=st.integers(0, 2**63 - 1)),
    st.builds(MetricValue, number=st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(MetricValue, numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple)),
    st.builds(MetricValue, strings=st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple)),
    st.builds(MetricValue, ports=st.lists(st.integers(0, 65535)).map(tuple)),
)
BEHAVIORS = st.builds(Behavior, name=NAMES, criteria=st.none() | st.builds(Criteria, value=VALUES))
RULES = st.builds(
    Rules,
    profiles=st.lists(
        st.builds(
            SecurityProfile,
            security_profile_name=NAMES,
            behaviors=st.lists(BEHAVIORS, max_size=3).map(tuple),
            alert_targets=st.dictionaries(NAMES, st.just(AlertTarget("arn", "role")), max_size=3),
            tags=st.lists(st.builds(Tag, NAMES), max_size=2).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    custom_metrics=st.lists(st.builds(CustomMetric, metric_name=NAMES, metric_type=st.just("number")), max_size=2).map(
        tuple
    ),
    dimensions=st.lists(st.builds(Dimension, name=NAMES), max_size=2).map(tuple),
    fleet=st.builds(Fleet, things=st.lists(NAMES).map(tuple), groups=st.dictionaries(NAMES, st.just(Group()))),
    limits=st.builds(Limits, report_interval_s=st.none() | st.floats(0, 1e9)),
)


@given(RULES)
def test_rules_come_back_from_their_bytes(rules):
    data = rules_bytes(rules)
    assert rules_from_bytes(data) == rules
    assert rules_bytes(rules_from_bytes(data)) == data
    assert rules_digest(rules) == hashlib.sha256(data).hexdigest()


def test_the_order_of_a_mapping_does_not_show_in_the_bytes():
    one, other = (Rules(fleet=Fleet(groups={name: Group() for name in names})) for names in ("ab", "ba"))
    assert rules_bytes(one) == rules_bytes(other)


def test_the_digest_of_no_rules_is_known():
    # Stored content is found by its digest: a change of the form must be noticed here, and must be meant.
    expected = (
        b'{"profiles":[],"custom_metrics":[],"dimensions":[],"fleet":{"things":[],"groups":{}},"limits":'
        b'{"report_interval_s":null,"durations":"aws","grace_s":30.0,"silence_s":172800.0,"population_min":2,'
        b'"lenient":false,"skip_first_counters":false,"payload_bytes_max":131072,"things_max":2000000,'
        b'"topic_filters":"aws","cloud_window_s":300},"clients":[]}'
    )
    assert rules_bytes(Rules()) == expected


@pytest.mark.parametrize("data", [b"", b"{}x", b'{"rules": 1}', b'{"profiles": 1}'])
def test_other_bytes_are_refused(data):
    with pytest.raises(msgspec.DecodeError):
        rules_from_bytes(data)
