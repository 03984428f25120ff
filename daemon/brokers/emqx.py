"""EMQX 4 and 5: its system topics about clients, and the rule engine's events where a rule publishes them again.

    $SYS/brokers/NODE/clients/CLIENT/connected|disconnected     on by default; the broker must let us subscribe
    $events/client_connected, client_disconnected               republished: by a rule (5), by a setting (4)
    $events/client_connack                                      a login that failed: `reason_code` is not `success`
    $events/client_check_authz_complete, …_check_acl_complete   (5, 4) a permission refused: `result` is `deny`
    $events/message_publish, message_delivered                  `topic`, and `payload` or, without it, `bytes`

Read are `clientid`, `username`, `ipaddress`, `peerhost` or `peername`, `connected_at` (the session; ms), `timestamp` or
`ts` (ms), `connack`, `reason_code`, `result`, `topic`, `payload`, `bytes`: the names of both versions. EMQX 4.0 and 4.1
tell of a failed login on `…/connected` with a `connack` that is not 0, which is no connection (clients.md #55). Topics
spelled `$events/client/connected`, as EMQX 6 has them, are understood. `$events` is not the broker's own topic: forbid
devices to publish there, and on `$SYS`.

**One fact, two ways.** A client that connects is told of on `$SYS` and, where the operator republishes it, on
`$events`. Per kind of event one way is believed: `$events` once it was heard of, `$SYS` before that and again after
SILENT_S without it. Around the change both tell of the same clients: what `$SYS` told within SAME_S is not taken from
`$events` a second time. What was left out is counted (`doubled`).
"""

from typing import Any, Final

import msgspec

from actors.events import Event, Kind
from config.model import NS, Bridge
from daemon.brokers._base import Feed
from daemon.brokers._tally import Tally
from daemon.brokers._told import UNREADABLE, client_id_of, count_of, instant_ns, ip_of, text_of

SYSTEM: Final = "$SYS/brokers/"
EVENTS: Final = "$events/"
SILENT_S: Final = 600
SAME_S: Final = 5
RECENT_MAX: Final = 10_000
SUCCESS: Final = ("success", 0, None)

_NAMES: Final[dict[str, Kind]] = {
    "client_connected": "connected",
    "client_disconnected": "disconnected",
    "client_connack": "connect-failed",
    "client_check_authz_complete": "denied",
    "client_check_acl_complete": "denied",
    "message_publish": "published",
    "message_delivered": "delivered",
}


class _Told(msgspec.Struct):
    """Any, since a strange value in one member says nothing against the others."""

    clientid: Any = None
    username: Any = None
    ipaddress: Any = None
    peerhost: Any = None
    peername: Any = None
    connected_at: Any = None
    timestamp: Any = None
    ts: Any = None
    connack: Any = None
    reason_code: Any = None
    result: Any = None
    topic: Any = None
    payload: Any = None
    bytes: Any = None


class Emqx:
    """See `_base.Feed`."""

    def __init__(self) -> None:
        # `#`, since a client id may have levels.
        self.topics: tuple[str, ...] = (f"{SYSTEM}+/clients/#", f"{EVENTS}#")
        self.unreadable = 0
        self.doubled = 0
        self._ways = {kind: _Ways() for kind in ("connected", "disconnected")}

    def hear(self, topic: str, payload: bytes, received_ns: int, tally: Tally) -> bool:
        if topic.startswith(EVENTS):
            kind, is_system = _NAMES.get(topic.removeprefix(EVENTS).replace("/", "_")), False
        elif topic.startswith(SYSTEM) and topic.split("/", 4)[3:4] == ["clients"]:
            kind, is_system = _NAMES.get(f"client_{topic.rpartition('/')[2]}"), True
        else:
            return False
        if kind is not None:
            self._take(kind, is_system, payload, received_ns, tally)
        return True  # the other events say nothing of what a device does: subscriptions, acknowledgements …

    def _take(self, kind: Kind, is_system: bool, payload: bytes, received_ns: int, tally: Tally) -> None:
        try:
            told = _decoder.decode(payload)
        except UNREADABLE:
            self.unreadable += 1
            return
        client_id = client_id_of(told.clientid)
        if not client_id:
            self.unreadable += 1
            return
        if kind == "connected" and told.connack not in SUCCESS:
            kind = "connect-failed"
        elif not _counts(kind, told):
            return
        ways = self._ways.get(kind)
        if ways is not None and not ways.believes(is_system, client_id, received_ns):
            self.doubled += 1
            return
        _add(kind, client_id, told, received_ns, tally)


class _Ways:
    """Which of the two ways is believed for one kind of event."""

    def __init__(self) -> None:
        self._events_heard_ns = -SILENT_S * NS - 1
        self._by_system: dict[str, int] = {}  # client -> when $SYS last told of it; the oldest go first

    def believes(self, is_system: bool, client_id: str, now_ns: int) -> bool:
        if not is_system:
            self._events_heard_ns = now_ns
            before_ns = self._by_system.pop(client_id, None)
            return before_ns is None or now_ns - before_ns > SAME_S * NS
        if now_ns - self._events_heard_ns <= SILENT_S * NS:
            return False
        self._by_system.pop(client_id, None)
        self._by_system[client_id] = now_ns
        if len(self._by_system) > RECENT_MAX:
            del self._by_system[next(iter(self._by_system))]
        return True


def _counts(kind: Kind, told: _Told) -> bool:
    """Whether the message tells of something that counts: a login that worked is told of by `client_connected`."""
    match kind:
        case "connect-failed":
            return told.reason_code not in SUCCESS
        case "denied":
            return bool(told.result == "deny")
        case _:
            return True


def _add(kind: Kind, client_id: str, told: _Told, received_ns: int, tally: Tally) -> None:
    time_ns = instant_ns(told.timestamp if told.timestamp is not None else told.ts, received_ns)
    ip, user = _ip(told), text_of(told.username)
    match kind:
        case "connected" | "disconnected":
            since = count_of(told.connected_at)
            session = str(since) if since else ""
            tally.put(Event(event=kind, client_id=client_id, time=time_ns, ip=ip, user=user, session=session))
        case "connect-failed":
            tally.add(kind, client_id, time_ns, ip=ip, user=user)
        case "denied":
            tally.add(kind, client_id, time_ns, topic=text_of(told.topic))
        case "published" | "delivered":
            tally.add(kind, client_id, time_ns, topic=text_of(told.topic), size=_size(told))


def _ip(told: _Told) -> str:
    return ip_of(told.ipaddress) or ip_of(told.peerhost) or ip_of(told.peername, has_port=True)


def _size(told: _Told) -> int:
    """Of the payload. A rule that decodes it makes it an object: its size is that of the JSON then, about the same."""
    if told.payload is None:
        return count_of(told.bytes)
    if isinstance(told.payload, str):
        return len(told.payload.encode(errors="replace"))
    return len(msgspec.json.encode(told.payload))


_decoder: Final = msgspec.json.Decoder(_Told)


def FEED(_options: Bridge) -> Feed:  # noqa: N802  # what a module of this kind exports
    """The feed of one bridge."""
    return Emqx()
