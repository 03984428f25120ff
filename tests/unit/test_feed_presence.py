"""What AWS-style presence events become, told by a table of examples; and that nothing breaks the feed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.events import Event, packed, unpacked
from config.model import Bridge
from daemon import brokers
from daemon.brokers._tally import Tally
from daemon.brokers.presence import Presence

NOW_NS = 1_767_323_045_500_000_000
AT_MS = 1_767_323_045_000
AT_NS = AT_MS * 1_000_000
START = "$aws/events/presence/"


def heard(topic: str, payload: bytes | dict[str, Any], feed: Presence | None = None) -> list[Event] | None:
    """None: not this feed's."""
    feed, tally = feed or Presence("$aws"), Tally()
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return tally.taken() if feed.hear(topic, content, NOW_NS, tally) else None


CONNECTED = {
    "clientId": "p1", "timestamp": AT_MS, "eventType": "connected", "sessionIdentifier": "s-1",
    "principalIdentifier": "cert", "ipAddress": "192.0.2.7", "versionNumber": 4,
}  # fmt: skip
LEFT = {
    "clientId": "p1", "timestamp": AT_MS, "eventType": "disconnected", "sessionIdentifier": "s-1",
    "clientInitiatedDisconnect": True, "disconnectReason": "CLIENT_INITIATED_DISCONNECT", "versionNumber": 4,
}  # fmt: skip
P1 = Event(event="connected", client_id="p1", time=AT_NS, ip="192.0.2.7", session="s-1", version=4)


@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [
        ("connected/p1", CONNECTED, [P1]),
        ("disconnected/p1", LEFT, [Event(event="disconnected", client_id="p1", time=AT_NS, session="s-1", version=4)]),
        (
            "connect_failed/p1",
            {**CONNECTED, "connectFailureReason": "AUTHORIZATION_FAILED"},
            [Event(event="connect-failed", client_id="p1", time=AT_NS, ip="192.0.2.7")],
        ),
        ("connected/of-the-topic", {}, [Event(event="connected", client_id="of-the-topic", time=NOW_NS)]),
        ("connected/other", {"clientId": "p1"}, [Event(event="connected", client_id="p1", time=NOW_NS)]),
        ("connected/a/b", {}, [Event(event="connected", client_id="a/b", time=NOW_NS)]),
        ("connected/p1", {**CONNECTED, "ipAddress": "::ffff:192.0.2.7"}, [P1]),
    ],
)
def test_each_event_becomes_what_it_says(topic: str, payload: dict[str, Any], expected: list[Event]) -> None:
    assert heard(START + topic, payload) == expected


def test_an_event_of_the_future_happened_when_it_was_heard() -> None:
    assert heard(f"{START}connected/p1", {"clientId": "p1", "timestamp": AT_MS + 60_000}) == [
        Event(event="connected", client_id="p1", time=NOW_NS)
    ]


@pytest.mark.parametrize("topic", ["$aws/events/subscriptions/subscribed/p1", "$aws/things/p1/x", "x/connected/p1"])
def test_other_topics_are_not_the_feeds(topic: str) -> None:
    assert heard(topic, CONNECTED) is None


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("connected/p1", b""),
        ("connected/p1", b"[]"),
        ("connected/p1", b'{"clientId": "\xff"}'),
        ("connected/p1", b"[" * 100_000),
        ("connected/", b"{}"),
        ("connected", b"{}"),
        ("arrived/p1", b"{}"),
        ("connected/" + "x" * 600, b"{}"),
        ("connected/", b'{"clientId": "a\\u0000b"}'),
    ],
)
def test_what_makes_no_sense_is_counted(topic: str, payload: bytes) -> None:
    feed = Presence("$aws")
    assert heard(START + topic, payload, feed) == []
    assert feed.unreadable == 1


def test_the_prefix_is_the_bridges() -> None:
    feed = brokers.feeds()["presence"](Bridge(name="b", url="mqtt://x", prefix="site/aws"))
    assert feed.topics == ("site/aws/events/presence/#",)
    assert feed.hear("site/aws/events/presence/connected/p1", b"{}", NOW_NS, Tally())
    assert not feed.hear("$aws/events/presence/connected/p1", b"{}", NOW_NS, Tally())


ANYTHING = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)
MEMBERS = st.sampled_from(["clientId", "timestamp", "sessionIdentifier", "versionNumber", "ipAddress"])


@given(st.text(max_size=20), st.binary() | st.dictionaries(MEMBERS, ANYTHING).map(lambda one: json.dumps(one).encode()))
def test_whatever_comes_the_log_can_carry_it(rest: str, payload: bytes) -> None:
    feed, tally = Presence("$aws"), Tally()
    assert feed.hear(f"{START}connected/{rest}", payload, NOW_NS, tally)
    events = tally.taken()
    assert len(events) + feed.unreadable == 1
    assert all(unpacked(packed([event])) for event in events)
