"""What EMQX's messages about clients become; payloads are as EMQX 4.4, 5.8 and their documentation have them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.events import Event, packed, unpacked
from daemon.brokers._tally import Tally
from daemon.brokers.emqx import RECENT_MAX, SAME_S, SILENT_S, Emqx

NS = 1_000_000_000
NOW_NS = 1_767_323_045_500_000_000
AT_MS = 1_767_323_045_000
AT_NS = AT_MS * 1_000_000
SYSTEM = "$SYS/brokers/emqx@127.0.0.1/clients/"

UP = {
    "username": "u", "ts": AT_MS, "sockport": 1883, "proto_ver": 5, "proto_name": "MQTT", "keepalive": 60,
    "ipaddress": "192.0.2.7", "expiry_interval": 0, "connected_at": AT_MS - 3, "clientid": "p1", "clean_start": True,
}  # fmt: skip
DOWN = {
    "username": "u", "ts": AT_MS, "reason": "tcp_closed", "connected_at": AT_MS - 3, "disconnected_at": AT_MS,
    "clientid": "p1", "ipaddress": "192.0.2.7",
}  # fmt: skip
RULE_UP = {
    "event": "client.connected", "clientid": "p1", "username": "u", "peername": "192.0.2.7:56412",
    "sockname": "0.0.0.0:1883", "proto_ver": 5, "connected_at": AT_MS - 3, "timestamp": AT_MS, "node": "emqx@127.0.0.1",
}  # fmt: skip
SESSION = str(AT_MS - 3)
BEGAN = Event(event="connected", client_id="p1", time=AT_NS, ip="192.0.2.7", user="u", session=SESSION)
ENDED = Event(event="disconnected", client_id="p1", time=AT_NS, ip="192.0.2.7", user="u", session=SESSION)


def heard(topic: str, payload: Any, feed: Emqx | None = None, now_ns: int = NOW_NS) -> list[Event] | None:
    """None: not this feed's."""
    feed, tally = feed or Emqx(), Tally()
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return tally.taken() if feed.hear(topic, content, now_ns, tally) else None


def sized(kind: Any, size: int) -> Event:
    return Event(event=kind, client_id="p1", time=AT_NS, topic="t/a", bytes=size, bytes_min=size, bytes_max=size)


MESSAGE = {"clientid": "p1", "topic": "t/a", "payload": "hällo", "timestamp": AT_MS, "qos": 1, "peerhost": "192.0.2.7"}
CHECK = {"clientid": "p1", "topic": "t/a", "action": "publish", "result": "deny", "timestamp": AT_MS}
FAILED = Event(event="connect-failed", client_id="p1", time=AT_NS, ip="192.0.2.7", user="u")


@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [
        (f"{SYSTEM}p1/connected", UP, [BEGAN]),
        (f"{SYSTEM}p1/disconnected", DOWN, [ENDED]),
        (f"{SYSTEM}a/b/connected", {**UP, "clientid": "a/b"},
         [Event(event="connected", client_id="a/b", time=AT_NS, ip="192.0.2.7", user="u", session=SESSION)]),
        (f"{SYSTEM}p1/connected", {**UP, "ipaddress": "192.0.2.7:4711"}, [BEGAN]),
        (f"{SYSTEM}p1/connected", {**UP, "ipaddress": "::ffff:192.0.2.7"}, [BEGAN]),
        (f"{SYSTEM}p1/connected", {**UP, "connack": 0}, [BEGAN]),
        (f"{SYSTEM}p1/connected", {**UP, "connack": 5}, [FAILED]),
        (f"{SYSTEM}p1/subscribed", {"clientid": "p1", "topic": "t"}, []),
        ("$events/client_connected", RULE_UP, [BEGAN]),
        ("$events/client/connected", RULE_UP, [BEGAN]),
        ("$events/client_disconnected", {**RULE_UP, "event": "client.disconnected"}, [ENDED]),
        ("$events/client_connected", {**RULE_UP, "peername": "2001:db8::7:56412"},
         [Event(event="connected", client_id="p1", time=AT_NS, ip="2001:db8::7", user="u", session=SESSION)]),
        ("$events/client_connack", {**RULE_UP, "reason_code": "not_authorized"}, [FAILED]),
        ("$events/client_connack", {**RULE_UP, "reason_code": "success"}, []),
        ("$events/client_check_authz_complete", CHECK,
         [Event(event="denied", client_id="p1", time=AT_NS, topic="t/a")]),
        ("$events/client_check_acl_complete", CHECK, [Event(event="denied", client_id="p1", time=AT_NS, topic="t/a")]),
        ("$events/client_check_authz_complete", {**CHECK, "result": "allow"}, []),
        ("$events/message_publish", MESSAGE, [sized("published", 6)]),
        ("$events/message_delivered", {**MESSAGE, "from_clientid": "p2"}, [sized("delivered", 6)]),
        ("$events/message_publish", {**MESSAGE, "payload": {"a": 1}}, [sized("published", 7)]),
        ("$events/message_publish", {**MESSAGE, "payload": None, "bytes": 12}, [sized("published", 12)]),
        ("$events/message_acked", MESSAGE, []),
        ("$events/session_subscribed", MESSAGE, []),
        ("$SYS/brokers/emqx@127.0.0.1/uptime", b"12", None),
        ("$SYS/brokers", b"12", None),
        ("t/a", b"12", None),
    ],
)  # fmt: skip
def test_each_message_becomes_what_it_says(topic: str, payload: Any, expected: list[Event] | None) -> None:
    assert heard(topic, payload) == expected


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"clientid": 7}', b'{"clientid": "\xff"}', b'{"a":' * 99_999])
def test_what_makes_no_sense_is_counted(payload: bytes) -> None:
    feed = Emqx()
    assert heard(f"{SYSTEM}p1/connected", payload, feed) == []
    assert feed.unreadable == 1


@pytest.mark.parametrize("first", ["$SYS", "$events"])
def test_clients_told_of_both_ways_count_once(first: str) -> None:
    feed, told = Emqx(), []
    for number in range(5):
        both = [(f"{SYSTEM}c/connected", UP), ("$events/client_connected", RULE_UP)]
        for topic, payload in both if first == "$SYS" else reversed(both):
            told += heard(topic, {**payload, "clientid": f"c{number}"}, feed, NOW_NS + number * NS) or []
    assert [event.client_id for event in told] == ["c0", "c1", "c2", "c3", "c4"]
    assert feed.doubled == 5


def test_clients_whose_events_overtake_each_other_count_once() -> None:
    feed = Emqx()
    told = [heard(f"{SYSTEM}c/connected", {**UP, "clientid": name}, feed) for name in ("a", "b", "c")]
    told += [heard("$events/client_connected", {**RULE_UP, "clientid": name}, feed) for name in ("a", "b", "c", "d")]
    assert [event.client_id for events in told for event in events or []] == ["a", "b", "c", "d"]


def test_a_second_connection_soon_after_counts_by_itself() -> None:
    feed = Emqx()
    later_ns = NOW_NS + (SAME_S + 1) * NS
    assert len(heard(f"{SYSTEM}p1/connected", UP, feed) or []) == 1
    assert len(heard("$events/client_connected", RULE_UP, feed, later_ns) or []) == 1


def test_the_system_topics_are_believed_again_when_the_others_stay_away() -> None:
    feed = Emqx()
    heard("$events/client_connected", RULE_UP, feed)
    assert heard(f"{SYSTEM}p2/connected", {**UP, "clientid": "p2"}, feed, NOW_NS + SILENT_S * NS) == []
    assert len(heard(f"{SYSTEM}p2/connected", {**UP, "clientid": "p2"}, feed, NOW_NS + (SILENT_S + 1) * NS) or []) == 1


def test_one_kind_on_one_way_says_nothing_of_another() -> None:
    feed = Emqx()
    heard("$events/client_connected", RULE_UP, feed)
    assert heard(f"{SYSTEM}p1/disconnected", DOWN, feed) == [ENDED]


def test_what_is_remembered_of_the_system_topics_is_bounded() -> None:
    feed = Emqx()
    for number in range(RECENT_MAX + 10):
        feed.hear(f"{SYSTEM}c/connected", b'{"clientid": "c%d"}' % number, NOW_NS, Tally())
    assert len(feed._ways["connected"]._by_system) == RECENT_MAX


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda one: st.lists(one, max_size=2),
    max_leaves=3,
)
MEMBERS = st.sampled_from(
    ["clientid", "username", "ipaddress", "peerhost", "peername", "connected_at", "timestamp", "ts", "connack",
     "reason_code", "result", "topic", "payload", "bytes"]
)  # fmt: skip
PAYLOADS = st.dictionaries(MEMBERS, ANYTHING).map(lambda one: json.dumps({"clientid": "p1", **one}).encode())
TOPICS = st.sampled_from(
    [f"{SYSTEM}p1/connected", f"{SYSTEM}p1/disconnected", "$events/client_connack", "$events/message_publish",
     "$events/client_check_authz_complete", "$events/message_delivered", "$events/client_connected"]
)  # fmt: skip


@given(TOPICS, st.binary() | PAYLOADS)
def test_whatever_comes_the_log_can_carry_it(topic: str, payload: bytes) -> None:
    feed, tally = Emqx(), Tally()
    assert feed.hear(topic, payload, NOW_NS, tally)
    events = tally.taken()
    assert len(events) + feed.unreadable <= 1
    assert all(unpacked(packed([event])) for event in events)
