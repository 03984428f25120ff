"""What each broker of a configuration lets us see of its clients, and what to switch on for the rest.

A function of the settings alone: whether a broker really is set up as it `needs` is not looked at.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from actors.events import KINDS, Kind
from config.kinds import Metric
from config.model import Bridge, Settings

Answer = Literal["yes", "partly", "no"]


class Sight(msgspec.Struct, frozen=True, omit_defaults=True):
    """One metric at one broker: whether it is seen, what of it is not, what the broker must be set to for it, and what
    else to switch on to see it, or all of it.
    """

    seen: Answer
    but: str = ""
    needs: str = ""
    instead: str = ""


class Place(msgspec.Struct, frozen=True):
    """One source of events."""

    name: str
    kind: str
    metrics: dict[str, Sight]


class _Way(msgspec.Struct, frozen=True):
    """What one means gives: kinds of events, what they need at the broker, and what is missing of a kind."""

    needs: dict[Kind, tuple[str, ...]]
    but: dict[Kind, str] = {}


_SENSOR: Final = _Way(dict.fromkeys(KINDS, ()))
_NATS: Final = _Way(dict.fromkeys(("connected", "connect-failed", "disconnected"), ()))
_PRESENCE: Final = _Way(dict.fromkeys(("connected", "connect-failed", "disconnected"), ()))
_RULE: Final = "a rule of EMQX that republishes {} as $events/{}"
_LEAVE: Final = "leave to subscribe to $SYS/brokers/+/clients/#"
_EMQX: Final = _Way(
    {
        "connected": (_LEAVE,),
        "disconnected": (_LEAVE,),
        "connect-failed": (_RULE.format("$events/client_connack", "client_connack"),),
        "denied": (_RULE.format("$events/client_check_authz_complete", "client_check_authz_complete"),),
        "delivered": (_RULE.format("$events/message_delivered", "message_delivered"),),
        "published": (_RULE.format("messages", "message_publish"),),
    }
)
_MOSQUITTO: Final = _Way(
    {
        "connected": ("log_type notice",),
        "disconnected": ("log_type notice", "log_type error"),
        "published": ("log_type debug",),
        "delivered": ("log_type debug",),
        "denied": ("log_type debug",),
    },
    {
        "connect-failed": "of logins that fail its log does not say whose they were",
        "denied": "of subscriptions that are refused it says nothing",
    },
)
_FRONT: Final = "a sensor in front of it (broker.sensors)"


def sights(settings: Settings, metrics: Iterable[Metric]) -> Iterator[Place]:
    """Every source of broker events that is configured, and every broker that could be one."""
    broker, made_of = settings.broker, {metric.name: _in_order(metric) for metric in metrics if metric.side == "cloud"}

    def place(name: str, kind: str, ways: list[_Way], instead: str) -> Place:
        return Place(name, kind, {metric: _sight(kinds, ways, instead) for metric, kinds in made_of.items()})

    if broker.embedded is not None:
        instead = "broker.embedded.sensor: true"
        yield place("embedded", "embedded broker", [_SENSOR] if broker.embedded.sensor else [], instead)
    if broker.nats is not None:
        has_account = broker.nats.system_credentials_file is not None
        instead = _FRONT if has_account else f"broker.nats.system_credentials_file for connections; {_FRONT} for all"
        yield place("cluster", "NATS cluster", [_NATS] if has_account else [], instead)
    for bridge in broker.bridges:
        yield place(bridge.name, f"bridge to {bridge.url}", list(_ways(bridge)), _instead(bridge))
    for sensor in broker.sensors:
        yield place(sensor.name, f"sensor in front of {sensor.upstream}", [_SENSOR], "")
    for file in broker.mosquitto_logs:
        yield place(file.name, f"Mosquitto's log {file.path}", [_MOSQUITTO], _FRONT)


def unseen(settings: Settings, places: list[Place]) -> list[str]:
    """profile/behavior: metric, of each behavior whose metric no source tells of."""
    dark = {metric for place in places for metric in place.metrics}
    dark -= {metric for place in places for metric, sight in place.metrics.items() if sight.seen != "no"}
    return [
        f"{profile.security_profile_name}/{behavior.name}: {behavior.metric}"
        for profile in settings.rules.profiles
        for behavior in profile.behaviors
        if behavior.metric in dark
    ]


def _ways(bridge: Bridge) -> Iterator[_Way]:
    if "presence" in bridge.events:
        yield _PRESENCE
    if "emqx" in bridge.events:
        yield _EMQX
    if bridge.tap is not None:
        yield _Way({"published": ()}, {"published": f"only messages on {', '.join(bridge.tap.topics)}"})


def _instead(bridge: Bridge) -> str:
    if bridge.events:
        return _FRONT
    return (
        f"events: [presence] or [emqx] of the bridge, where the broker has them; its log, if it is Mosquitto; {_FRONT}"
    )


def _in_order(metric: Metric) -> tuple[Kind, ...]:
    return tuple(kind for kind in KINDS if kind in metric.events)


def _sight(kinds: tuple[Kind, ...], ways: list[_Way], instead: str) -> Sight:
    """The first way that has an event gives it: they are in the order of what they tell."""
    found = {kind: next((way for way in ways if kind in way.needs), None) for kind in kinds}
    told = {kind: way for kind, way in found.items() if way is not None}
    missing = [_missing(kind, ways) for kind in kinds if kind not in told]
    if not told:
        return Sight("no", but="; ".join(missing), instead=instead)
    missing += [way.but[kind] for kind, way in told.items() if kind in way.but]
    needs = dict.fromkeys(need for kind, way in told.items() for need in way.needs[kind])
    return Sight("partly" if missing else "yes", "; ".join(missing), " and ".join(needs), instead if missing else "")


def _missing(kind: Kind, ways: list[_Way]) -> str:
    return next((way.but[kind] for way in ways if kind in way.but), f"nothing tells of {_PLAIN[kind]}")


_PLAIN: Final[dict[Kind, str]] = {
    "published": "messages from a device",
    "delivered": "messages to a device",
    "denied": "refused permissions",
    "connected": "connections",
    "connect-failed": "logins that fail",
    "disconnected": "the ends of connections",
}
