"""What a bridge subscribes to: reports, and the feeds of its options, each made by the `FEED` of a module."""

from collections.abc import Sequence
from typing import Final

from config.model import Bridge
from daemon import brokers
from daemon.brokers._base import Feed

TAP: Final = "tap"


def feeds(options: Bridge) -> list[Feed]:
    """Raises ValueError where a feed is not known."""
    wanted = [*dict.fromkeys(options.events), *([TAP] if options.tap else [])]
    known = brokers.feeds() if wanted else {}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"bridge {options.name!r}: no feed is called {unknown[0]!r}: use one of {', '.join(known)}")
    return [known[name](options) for name in wanted]


def report_filters(options: Bridge) -> list[str]:
    return [f"{options.prefix}/things/+/defender/metrics/{fmt}" for fmt in ("json", "cbor")]


def unwanted_filters(options: Bridge) -> Sequence[str]:
    """What an earlier configuration may have left in the session that the broker keeps; of a tap it is not known."""
    wanted = {topic for feed in feeds(options) for topic in feed.topics}
    others = [make(options) for name, make in brokers.feeds().items() if name != TAP and name not in options.events]
    left = [topic for feed in others for topic in feed.topics if topic not in wanted]
    return left if options.reports else [*report_filters(options), *left]
