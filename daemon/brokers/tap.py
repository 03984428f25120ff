"""A plain tap: topics whose level `{clientId}` says which device sent the message.

The last resort on a broker that tells nothing: it gives messages sent and their sizes, and believes the topic, so the
broker must let a device publish under its own name only. A message that two tapped filters of the broker's match may
come twice, as brokers see fit.
"""

from typing import Final

from config.model import Bridge, Tap
from daemon.brokers._base import Feed
from daemon.brokers._tally import Tally
from daemon.brokers._told import client_id_of

CLIENT: Final = "{clientId}"


class TapFeed:
    """See `_base.Feed`."""

    def __init__(self, tap: Tap) -> None:
        self.topics: tuple[str, ...] = tuple(dict.fromkeys(topic.replace(CLIENT, "+") for topic in tap.topics))
        self.unreadable = 0
        self._patterns = [topic.split("/") for topic in tap.topics]

    def hear(self, topic: str, payload: bytes, received_ns: int, tally: Tally) -> bool:
        levels = topic.split("/")
        for pattern in self._patterns:
            if _matches(pattern, levels):
                self._count(levels[pattern.index(CLIENT)], topic, len(payload), received_ns, tally)
                return True
        return False

    def _count(self, named: str, topic: str, size: int, received_ns: int, tally: Tally) -> None:
        client_id = client_id_of(named)
        if client_id:
            tally.add("published", client_id, received_ns, topic=topic, size=size)
        else:
            self.unreadable += 1


def _matches(pattern: list[str], levels: list[str]) -> bool:
    """As MQTT filters do; `#` stands for the level above it, too."""
    if levels[0].startswith("$") and pattern[0] != levels[0]:
        return False  # no wildcard in the first place takes the broker's own topics
    if pattern[-1] == "#":
        pattern = pattern[:-1]
        levels = levels[: len(pattern)]
    return len(pattern) == len(levels) and all(map(_fits, pattern, levels))


def _fits(wanted: str, level: str) -> bool:
    return wanted in ("+", CLIENT, level)


def FEED(options: Bridge) -> Feed:  # noqa: N802  # what a module of this kind exports
    """The feed of one bridge, which has a tap."""
    assert options.tap is not None
    return TapFeed(options.tap)
