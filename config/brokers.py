"""Which settings of brokers are valid, and of who comes through them: bridges, sensors, sources, devices, clients."""

import re
from collections.abc import Iterable
from typing import Final

from config.address import parse_address
from config.findings import (
    NAME,
    NAME_RULE,
    Found,
    file_at,
    no_address,
    seconds_at,
    secret_at,
    tls_at,
    url_of,
    wrong,
)
from config.model import Bridge, Broker, Client, Devices, Embedded, Nats, Sensor, Settings

_TOPIC_PREFIX: Final = re.compile(r"[^+#\0/]+(?:/[^+#\0/]+)*")


def brokers(settings: Settings) -> Found:
    """Everything wrong with `broker`."""
    broker = settings.broker
    if broker.embedded is not None and broker.nats is not None:
        yield wrong("embedded and nats exclude each other: the log is in one of them", "broker", "nats")
    if broker.embedded is not None:
        yield from _embedded(broker.embedded)
    if broker.nats is not None:
        yield from _nats(broker.nats)
    for at, bridge in enumerate(broker.bridges):
        for found in _bridge(bridge):
            yield found.below("broker", "bridges", at)
    for at, sensor in enumerate(broker.sensors):
        for found in _sensor(sensor):
            yield found.below("broker", "sensors", at)
    for at, each in enumerate(broker.mosquitto_logs):
        yield from _source_name(each.name, "broker", "mosquitto_logs", at)
    yield from _sources_twice(settings)
    yield from _devices(broker.devices)
    yield from _identity(broker)


def _sources_twice(settings: Settings) -> Found:
    """All sources of events and reports are told apart by their names."""
    seen: set[str] = set()
    broker = settings.broker
    named = [
        *(("bridges", at, one.name) for at, one in enumerate(broker.bridges)),
        *(("sensors", at, one.name) for at, one in enumerate(broker.sensors)),
        *(("mosquitto_logs", at, one.name) for at, one in enumerate(broker.mosquitto_logs)),
    ]
    for kind, at, name in named:
        if name in seen:
            yield wrong(f'"{name}" is defined a second time', "broker", kind, at, "name")
        seen.add(name)


def _source_name(name: str, *path: str | int) -> Found:
    if not NAME.fullmatch(name):
        yield wrong(f"a source's name {NAME_RULE}", *path, "name")
    if name in {"embedded", "cluster"}:
        yield wrong(f'"{name}" is the name of the broker that has the log', *path, "name")


def _sensor(sensor: Sensor) -> Found:
    yield from _source_name(sensor.name)
    listen = parse_address(sensor.listen)
    if listen is None:
        yield no_address("listen")
    elif not listen.is_loopback and sensor.tls is None:
        yield wrong(f"{sensor.listen} is off loopback: give tls", "listen")
    upstream = url_of(sensor.upstream)
    if upstream is None or upstream.scheme not in {"mqtt", "mqtts"} or upstream.username is not None:
        yield wrong("upstream is like mqtt://host:1883 or mqtts://host:8883", "upstream")
    yield from tls_at(sensor.tls, "tls")
    if sensor.upstream_ca is not None:
        yield from file_at(sensor.upstream_ca, "upstream_ca")


def _devices(devices: Devices) -> Found:
    for gateway, things in devices.gateways.items():
        for at, thing in enumerate(things):
            # A wildcard of topics in a name would open the topics of every thing.
            if not thing or set(thing[:-1]) & set("*+#/\0") or thing[-1] in "+#/\0":
                message = "a thing's name, or the beginning of names with * behind it"
                yield wrong(message, "broker", "devices", "gateways", gateway, at)


def _identity(broker: Broker) -> Found:
    """That somebody looks at who a device is, where that matters."""
    embedded, identity = broker.embedded, broker.devices.identity
    has_sensor = bool(broker.sensors) or (embedded is not None and embedded.sensor)
    if identity == "on" and not has_sensor:
        yield wrong("identity needs a sensor, which sees who a client is", "broker", "devices", "identity")
    address = parse_address(embedded.mqtt) if embedded is not None else None
    if identity == "off" and address is not None and not address.is_loopback:
        message = f"off is for brokers on loopback: at {address} any device could report for any other"
        yield wrong(message, "broker", "devices", "identity")


def _embedded(embedded: Embedded) -> Found:
    mqtt, nats = parse_address(embedded.mqtt), parse_address(embedded.nats)
    if mqtt is None:
        yield no_address("broker", "embedded", "mqtt")
    elif not mqtt.is_loopback:
        yield from _mqtt_off_loopback(embedded)
    if nats is None:
        yield no_address("broker", "embedded", "nats")
    elif not nats.is_loopback:
        yield wrong("the log's own port must be on loopback", "broker", "embedded", "nats")
    if embedded.sync_interval_s is not None:
        yield from seconds_at(embedded.sync_interval_s, "broker", "embedded", "sync_interval_s")
    yield from tls_at(embedded.tls, "broker", "embedded", "tls")


def _mqtt_off_loopback(embedded: Embedded) -> Found:
    """Who comes in by a certificate needs a CA; who comes in by a password, the sensor that asks for it."""
    if embedded.tls is None:
        message = "give tls, and devices their credentials (detectd devices add), or tls with ca"
    elif embedded.tls.ca is None and not embedded.sensor:
        message = "give tls with ca: without the sensor nobody asks devices for a password"
    else:
        return
    yield wrong(f"{embedded.mqtt} is off loopback: {message}", "broker", "embedded", "mqtt")


def _nats(nats: Nats) -> Found:
    urls = [url_of(each.strip()) for each in nats.url.split(",")]
    if any(url is None or url.scheme not in {"nats", "tls"} for url in urls):
        yield wrong("url is a list like nats://host:4222,tls://host:4222", "broker", "nats", "url")
    elif any(url is not None and url.username is not None for url in urls):
        # The text is not shown: it may hold a password.
        yield wrong("put USER:PASSWORD into a file, and its name into credentials_file", "broker", "nats", "url")
    if nats.credentials_file is not None:
        yield from secret_at(nats.credentials_file, "broker", "nats", "credentials_file")
    if nats.system_credentials_file is not None:
        yield from secret_at(nats.system_credentials_file, "broker", "nats", "system_credentials_file")


def _bridge(bridge: Bridge) -> Found:
    yield from _source_name(bridge.name)
    yield from _bridge_url(bridge)
    yield from _tap(bridge)
    if bridge.silent_s is not None:
        yield from seconds_at(bridge.silent_s, "silent_s", above=0.0)
    if bridge.alpn and bridge.url.startswith(("mqtt:", "ws:")):
        yield wrong("without mqtts or wss in url there is no TLS that it is for", "alpn")
    if not (bridge.reports or bridge.events or bridge.tap):
        yield wrong("neither reports, nor events, nor tap: the bridge would read nothing", "reports")
    if not _TOPIC_PREFIX.fullmatch(bridge.prefix):
        yield wrong("a prefix is one or more topic levels, without wildcards and without / at an end", "prefix")
    if bridge.client_id is not None and not 1 <= len(bridge.client_id.encode()) <= 128:
        yield wrong("a client_id has 1 to 128 bytes", "client_id")
    if bridge.password_file is not None:
        if bridge.username is None:
            yield wrong("MQTT knows no password without a username", "password_file")
        yield from secret_at(bridge.password_file, "password_file")
    yield from _bridge_tls(bridge)


def _tap(bridge: Bridge) -> Found:
    for at, topic in enumerate(bridge.tap.topics if bridge.tap else ()):
        levels = topic.split("/")
        if levels.count("{clientId}") != 1 or any(
            level not in {"+", "#", "{clientId}"} and set(level) & set("+#{}\0") for level in levels
        ):
            yield wrong('a tapped topic has one level {clientId}, as in "fleet/{clientId}/#"', "tap", "topics", at)
        elif "#" in levels[:-1]:
            yield wrong("in a topic filter, # is the last level", "tap", "topics", at)
    if bridge.tap is not None and not bridge.tap.topics:
        yield wrong("topics is empty", "tap", "topics")


def _bridge_url(bridge: Bridge) -> Found:
    url = url_of(bridge.url)
    if url is None or url.scheme not in {"mqtt", "mqtts", "ws", "wss"}:
        yield wrong("url is like mqtt://host:1883 or mqtts://host:8883 (or ws, wss)", "url")
    elif url.username is not None:
        # The text is not shown: it holds the password.
        yield wrong("put the user into username, and the password into password_file", "url")


def _bridge_tls(bridge: Bridge) -> Found:
    given = {"ca": bridge.ca, "cert": bridge.cert, "key": bridge.key}
    plain = bridge.url.startswith(("mqtt:", "ws:"))
    if (bridge.cert is None) != (bridge.key is None):
        yield wrong("cert and key go together", "cert" if bridge.cert else "key")
    for name, path in given.items():
        if path is not None and plain:
            yield wrong("without mqtts or wss in url there is no TLS that it is for", name)
        if path is not None:
            yield from file_at(path, name)


def clients(named: Iterable[Client]) -> Found:
    """Everything wrong with `clients`: patterns of client ids, and the names made of their groups."""
    for at, client in enumerate(named):
        try:
            pattern = re.compile(client.pattern)
        except re.error as problem:
            yield wrong(f"pattern is no regular expression: {problem}", "clients", at, "pattern")
            continue
        message = _bad_template(pattern, client.thing)
        if message:
            yield wrong(message, "clients", at, "thing")


def _bad_template(pattern: "re.Pattern[str]", thing: str) -> str | None:
    """Why a thing's name can't be made of a match; None where it can."""
    groups = {int(group) for group in re.findall(r"\\([0-9]+)", thing)}
    if 0 in groups or re.search(r"\\(?![1-9])", thing):  # \0 would be a character, not the whole match
        return "in thing, \\ is followed by the number of a group of pattern, from 1"
    if max(groups, default=0) > pattern.groups:
        return f"pattern has no group {max(groups)}"
    if set(thing) & set("+#/\0"):
        return "a thing's name has none of + # /"
    return None if thing else "thing is empty"
