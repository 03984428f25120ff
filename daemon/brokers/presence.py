"""AWS-style presence events: who connected, who left, who was turned away (spec.md §10.8).

    PREFIX/events/presence/connected|disconnected|connect_failed/CLIENT
    {"clientId", "timestamp" (ms), "sessionIdentifier", "versionNumber", "ipAddress", …}

AWS IoT Core publishes them by itself, out of order and sometimes twice; MiniStack does too. A connection's events carry
the same session and version, by which the core puts them in order and knows one that comes again. `connect_failed` is
newer than spec.md §10.8: AWS publishes it for clients that it did not let in.

The feed believes whoever may publish on these topics: on brokers that don't reserve them, forbid devices to.
"""

from typing import Any, Final

import msgspec

from actors.events import Event, Kind
from config.model import Bridge
from daemon.brokers._base import Feed
from daemon.brokers._tally import Tally
from daemon.brokers._told import UNREADABLE, client_id_of, count_of, instant_ns, ip_of, text_of

KINDS: Final[dict[str, Kind]] = {
    "connected": "connected",
    "disconnected": "disconnected",
    "connect_failed": "connect-failed",
}


class _Told(msgspec.Struct, rename="camel"):
    """Any, since a strange value in one member says nothing against the others."""

    client_id: Any = None
    timestamp: Any = None
    session_identifier: Any = None
    version_number: Any = None
    ip_address: Any = None


class Presence:
    """See `_base.Feed`."""

    def __init__(self, prefix: str) -> None:
        self._start = f"{prefix}/events/presence/"
        self.topics: tuple[str, ...] = (f"{self._start}#",)
        self.unreadable = 0

    def hear(self, topic: str, payload: bytes, received_ns: int, tally: Tally) -> bool:
        if not topic.startswith(self._start):
            return False
        event = _event(topic.removeprefix(self._start), payload, received_ns)
        if event is None:
            self.unreadable += 1
        elif event.event == "connect-failed":
            tally.add(event.event, event.client_id, event.time, ip=event.ip)
        else:
            tally.put(event)
        return True


def _event(rest: str, payload: bytes, received_ns: int) -> Event | None:
    word, _, named = rest.partition("/")
    kind = KINDS.get(word)
    if kind is None:
        return None
    try:
        told = _decoder.decode(payload)
    except UNREADABLE:
        return None
    client_id = client_id_of(told.client_id, named)
    if not client_id:
        return None
    return Event(
        event=kind,
        client_id=client_id,
        time=instant_ns(told.timestamp, received_ns),
        ip=ip_of(told.ip_address),
        session=text_of(told.session_identifier),
        version=count_of(told.version_number),
    )


_decoder: Final = msgspec.json.Decoder(_Told)


def FEED(options: Bridge) -> Feed:  # noqa: N802  # what a module of this kind exports
    """The feed of one bridge."""
    return Presence(options.prefix)
