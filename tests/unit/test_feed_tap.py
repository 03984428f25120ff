"""Which client a tapped message is of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.events import Event
from config.model import Bridge, Tap
from daemon import brokers
from daemon.brokers._tally import Tally
from daemon.brokers.tap import TapFeed

NOW_NS = 1_767_323_045_500_000_000


def client(pattern: str, topic: str) -> str | None:
    """Whose message it is; None: not this feed's."""
    tally = Tally()
    is_mine = TapFeed(Tap((pattern,))).hear(topic, b"12345", NOW_NS, tally)
    events = tally.taken()
    if not is_mine:
        assert events == []
        return None
    [event] = events
    assert event == Event(
        event="published", client_id=event.client_id, time=NOW_NS, topic=topic, bytes=5, bytes_min=5, bytes_max=5
    )
    return event.client_id


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("fleet/{clientId}/#", "fleet/p1/up", "p1"),
        ("fleet/{clientId}/#", "fleet/p1/a/b", "p1"),
        ("fleet/{clientId}/#", "fleet/p1", "p1"),
        ("fleet/{clientId}/#", "fleet", None),
        ("fleet/{clientId}/#", "other/p1/up", None),
        ("fleet/{clientId}", "fleet/p1", "p1"),
        ("fleet/{clientId}", "fleet/p1/up", None),
        ("{clientId}/up", "p1/up", "p1"),
        ("{clientId}/#", "$SYS/broker", None),
        ("+/{clientId}/up", "site/p1/up", "p1"),
        ("+/{clientId}/up", "$SYS/p1/up", None),
        ("$own/{clientId}/#", "$own/p1/up", "p1"),
        ("a/+/{clientId}/b", "a/x/p1/b", "p1"),
        ("a/+/{clientId}/b", "a/x/p1/c", None),
    ],
)
def test_the_level_of_the_client_names_it(pattern: str, topic: str, expected: str | None) -> None:
    assert client(pattern, topic) == expected


def test_messages_on_a_topic_are_summed() -> None:
    feed, tally = TapFeed(Tap(("fleet/{clientId}/#",))), Tally()
    for size in (3, 1, 8):
        feed.hear("fleet/p1/up", b"x" * size, NOW_NS + size, tally)
    [event] = tally.taken()
    assert (event.client_id, event.topic, event.time) == ("p1", "fleet/p1/up", NOW_NS + 3)
    assert (event.count, event.bytes, event.bytes_min, event.bytes_max) == (3, 12, 1, 8)


def test_a_plus_is_subscribed_to_in_the_clients_place() -> None:
    bridge = Bridge(name="b", url="mqtt://x", tap=Tap(("fleet/{clientId}/#", "{clientId}/up", "+/up")))
    assert brokers.feeds()["tap"](bridge).topics == ("fleet/+/#", "+/up")


def test_an_empty_level_is_no_client() -> None:
    feed, tally = TapFeed(Tap(("fleet/{clientId}/#",))), Tally()
    assert feed.hear("fleet//up", b"", NOW_NS, tally)
    assert (feed.unreadable, len(tally)) == (1, 0)


LEVEL = st.sampled_from(["a", "b", "", "$x", "p1"])
WANTED = st.sampled_from(["a", "b", "+"])


@given(
    st.lists(WANTED, max_size=3), st.lists(WANTED, max_size=2), st.booleans(), st.lists(LEVEL, min_size=1, max_size=6)
)
def test_it_matches_as_an_mqtt_filter_does(
    before: list[str], behind: list[str], open_end: bool, levels: list[str]
) -> None:
    filter_ = [*before, "+", *behind, *(["#"] if open_end else [])]
    pattern = "/".join([*before, "{clientId}", *behind, *(["#"] if open_end else [])])
    feed = TapFeed(Tap((pattern,)))
    assert feed.hear("/".join(levels), b"", NOW_NS, Tally()) == matches(filter_, levels)


def matches(filter_: list[str], levels: list[str]) -> bool:
    """By the words of the MQTT standard (4.7), level by level."""
    if levels[0].startswith("$") and filter_[0] in ("+", "#"):
        return False
    if not filter_:
        return not levels
    if filter_[0] == "#":
        return True
    if not levels:
        return False
    return filter_[0] in ("+", levels[0]) and _rest(filter_[1:], levels[1:])


def _rest(filter_: list[str], levels: list[str]) -> bool:
    if not levels:
        return filter_ in ([], ["#"])
    if not filter_:
        return False
    if filter_[0] == "#":
        return True
    return filter_[0] in ("+", levels[0]) and _rest(filter_[1:], levels[1:])
