"""Which daemon settings are valid: addresses and who may reach them, brokers, receivers, bounds, and the files named.

What is on loopback may be open; what others can reach must be guarded (design.md §5).
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from math import isfinite
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from config.address import parse_address
from config.model import (
    Bridge,
    Broker,
    Client,
    Devices,
    Embedded,
    Http,
    Limits,
    Log,
    Nats,
    Receivers,
    Sensor,
    Settings,
    Tls,
    Topic,
    Webhook,
)
from config.problem import ConfigError, Finding
from config.secret import loose, read_secret
from config.topics import RULE, is_topic

SECONDS_MAX: Final = 1e9
"""About 31 years: in nanoseconds it still fits into an int64 beside today's date."""
PAYLOAD_BYTES_MAX: Final = 256 * 1024
GRACE_S_MIN: Final = 1.5
"""Below it, what a source gathers may find its window closed."""
THINGS_MAX: Final = 16_000_000
LOG_BYTES_MIN: Final = 1024**2
WHSEC: Final = "whsec_"

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME_RULE: Final = 'must be 1 to 64 characters of a-z, A-Z, 0-9, "_" and "-"'
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_REGION: Final = re.compile(r"[a-z0-9-]{1,32}")
_ACCESS_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TOPIC_PREFIX: Final = re.compile(r"[^+#\0/]+(?:/[^+#\0/]+)*")

Found = Iterator[Finding]


def check_daemon(settings: Settings) -> list[Finding]:
    """Everything wrong with, or odd about, how the daemon is to run; secret and TLS files are looked at."""
    return [
        *_account(settings),
        *_http(settings.http),
        *_brokers(settings),
        *_log(settings.log),
        *_webhooks(settings.receivers.webhooks),
        *_topics(settings.receivers),
        *_aws(settings),
        *_limits(settings.rules.limits),
        *_clients(settings.rules.clients),
        *_seconds(settings.checkpoint.every_s, "checkpoint", "every_s", above=0.0),
        *_data_dir(settings.data_dir),
    ]


def _account(settings: Settings) -> Found:
    if not _ACCOUNT.fullmatch(settings.account.id):
        yield _at("an account's id has 12 digits", "account", "id")
    if not _REGION.fullmatch(settings.account.region):
        yield _at("a region is made of a-z, 0-9 and -", "account", "region")


def _data_dir(data_dir: Path) -> Found:
    if data_dir.exists() and not data_dir.is_dir():
        yield _at(f"{data_dir} is no directory", "data_dir")


# HTTP


def _http(http: Http) -> Found:
    address = parse_address(http.listen)
    if address is None:
        yield _no_address("http", "listen")
    elif not address.is_loopback:
        yield from _http_off_loopback(http)
    elif http.behind_proxy and not http.access_keys:
        # What comes through it looks like this machine's own, to which everything is open.
        yield _at("a proxy brings in others: give access_keys, so that requests are signed", "http", "behind_proxy")
    yield from _tls(http.tls, "http", "tls")
    yield from _twice((key.id for key in http.access_keys), "id", "http", "access_keys")
    for at, key in enumerate(http.access_keys):
        if not _ACCESS_KEY.fullmatch(key.id):
            message = 'an access key\'s id must be 1 to 128 characters of a-z, A-Z, 0-9, "_" and "-"'
            yield _at(message, "http", "access_keys", at, "id")
        yield from _secret(key.secret_file, "http", "access_keys", at, "secret_file")


def _http_off_loopback(http: Http) -> Found:
    missing = [
        *([] if http.access_keys else ["access_keys, so that requests are signed"]),
        *([] if http.tls or http.behind_proxy else ["tls (or behind_proxy: true, where a proxy in front speaks it)"]),
    ]
    if missing:
        yield _at(f"{http.listen} is off loopback: give {' and '.join(missing)}", "http", "listen")


# Brokers


def _brokers(settings: Settings) -> Found:
    broker = settings.broker
    if broker.embedded is not None and broker.nats is not None:
        yield _at("embedded and nats exclude each other: the log is in one of them", "broker", "nats")
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
            yield _at(f'"{name}" is defined a second time', "broker", kind, at, "name")
        seen.add(name)


def _source_name(name: str, *path: str | int) -> Found:
    if not _NAME.fullmatch(name):
        yield _at(f"a source's name {_NAME_RULE}", *path, "name")
    if name in {"embedded", "cluster"}:
        yield _at(f'"{name}" is the name of the broker that has the log', *path, "name")


def _sensor(sensor: Sensor) -> Found:
    yield from _source_name(sensor.name)
    listen = parse_address(sensor.listen)
    if listen is None:
        yield _no_address("listen")
    elif not listen.is_loopback and sensor.tls is None:
        yield _at(f"{sensor.listen} is off loopback: give tls", "listen")
    upstream = _url(sensor.upstream)
    if upstream is None or upstream.scheme not in {"mqtt", "mqtts"} or upstream.username is not None:
        yield _at("upstream is like mqtt://host:1883 or mqtts://host:8883", "upstream")
    yield from _tls(sensor.tls, "tls")
    if sensor.upstream_ca is not None:
        yield from _file(sensor.upstream_ca, "upstream_ca")


def _devices(devices: Devices) -> Found:
    for gateway, things in devices.gateways.items():
        for at, thing in enumerate(things):
            # A wildcard of topics in a name would open the topics of every thing.
            if not thing or set(thing[:-1]) & set("*+#/\0") or thing[-1] in "+#/\0":
                message = "a thing's name, or the beginning of names with * behind it"
                yield _at(message, "broker", "devices", "gateways", gateway, at)


def _identity(broker: Broker) -> Found:
    """That somebody looks at who a device is, where that matters."""
    embedded, identity = broker.embedded, broker.devices.identity
    has_sensor = bool(broker.sensors) or (embedded is not None and embedded.sensor)
    if identity == "on" and not has_sensor:
        yield _at("identity needs a sensor, which sees who a client is", "broker", "devices", "identity")
    address = parse_address(embedded.mqtt) if embedded is not None else None
    if identity == "off" and address is not None and not address.is_loopback:
        message = f"off is for brokers on loopback: at {address} any device could report for any other"
        yield _at(message, "broker", "devices", "identity")


def _clients(clients: Iterable[Client]) -> Found:
    for at, client in enumerate(clients):
        try:
            pattern = re.compile(client.pattern)
        except re.error as problem:
            yield _at(f"pattern is no regular expression: {problem}", "clients", at, "pattern")
            continue
        message = _bad_template(pattern, client.thing)
        if message:
            yield _at(message, "clients", at, "thing")


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


def _embedded(embedded: Embedded) -> Found:
    mqtt, nats = parse_address(embedded.mqtt), parse_address(embedded.nats)
    if mqtt is None:
        yield _no_address("broker", "embedded", "mqtt")
    elif not mqtt.is_loopback:
        yield from _mqtt_off_loopback(embedded)
    if nats is None:
        yield _no_address("broker", "embedded", "nats")
    elif not nats.is_loopback:
        yield _at("the log's own port must be on loopback", "broker", "embedded", "nats")
    if embedded.sync_interval_s is not None:
        yield from _seconds(embedded.sync_interval_s, "broker", "embedded", "sync_interval_s")
    yield from _tls(embedded.tls, "broker", "embedded", "tls")


def _mqtt_off_loopback(embedded: Embedded) -> Found:
    """Who comes in by a certificate needs a CA; who comes in by a password, the sensor that asks for it."""
    if embedded.tls is None:
        message = "give tls, and devices their credentials (detectd devices add), or tls with ca"
    elif embedded.tls.ca is None and not embedded.sensor:
        message = "give tls with ca: without the sensor nobody asks devices for a password"
    else:
        return
    yield _at(f"{embedded.mqtt} is off loopback: {message}", "broker", "embedded", "mqtt")


def _nats(nats: Nats) -> Found:
    urls = [_url(each.strip()) for each in nats.url.split(",")]
    if any(url is None or url.scheme not in {"nats", "tls"} for url in urls):
        yield _at("url is a list like nats://host:4222,tls://host:4222", "broker", "nats", "url")
    elif any(url is not None and url.username is not None for url in urls):
        # The text is not shown: it may hold a password.
        yield _at("put USER:PASSWORD into a file, and its name into credentials_file", "broker", "nats", "url")
    if nats.credentials_file is not None:
        yield from _secret(nats.credentials_file, "broker", "nats", "credentials_file")
    if nats.system_credentials_file is not None:
        yield from _secret(nats.system_credentials_file, "broker", "nats", "system_credentials_file")


def _bridge(bridge: Bridge) -> Found:
    yield from _source_name(bridge.name)
    yield from _bridge_url(bridge)
    yield from _tap(bridge)
    if bridge.silent_s is not None:
        yield from _seconds(bridge.silent_s, "silent_s", above=0.0)
    if bridge.alpn and bridge.url.startswith(("mqtt:", "ws:")):
        yield _at("without mqtts or wss in url there is no TLS that it is for", "alpn")
    if not (bridge.reports or bridge.events or bridge.tap):
        yield _at("neither reports, nor events, nor tap: the bridge would read nothing", "reports")
    if not _TOPIC_PREFIX.fullmatch(bridge.prefix):
        yield _at("a prefix is one or more topic levels, without wildcards and without / at an end", "prefix")
    if bridge.client_id is not None and not 1 <= len(bridge.client_id.encode()) <= 128:
        yield _at("a client_id has 1 to 128 bytes", "client_id")
    if bridge.password_file is not None:
        if bridge.username is None:
            yield _at("MQTT knows no password without a username", "password_file")
        yield from _secret(bridge.password_file, "password_file")
    yield from _bridge_tls(bridge)


def _tap(bridge: Bridge) -> Found:
    for at, topic in enumerate(bridge.tap.topics if bridge.tap else ()):
        levels = topic.split("/")
        if levels.count("{clientId}") != 1 or any(
            level not in {"+", "#", "{clientId}"} and set(level) & set("+#{}\0") for level in levels
        ):
            yield _at('a tapped topic has one level {clientId}, as in "fleet/{clientId}/#"', "tap", "topics", at)
        elif "#" in levels[:-1]:
            yield _at("in a topic filter, # is the last level", "tap", "topics", at)
    if bridge.tap is not None and not bridge.tap.topics:
        yield _at("topics is empty", "tap", "topics")


def _bridge_url(bridge: Bridge) -> Found:
    url = _url(bridge.url)
    if url is None or url.scheme not in {"mqtt", "mqtts", "ws", "wss"}:
        yield _at("url is like mqtt://host:1883 or mqtts://host:8883 (or ws, wss)", "url")
    elif url.username is not None:
        # The text is not shown: it holds the password.
        yield _at("put the user into username, and the password into password_file", "url")


def _bridge_tls(bridge: Bridge) -> Found:
    given = {"ca": bridge.ca, "cert": bridge.cert, "key": bridge.key}
    plain = bridge.url.startswith(("mqtt:", "ws:"))
    if (bridge.cert is None) != (bridge.key is None):
        yield _at("cert and key go together", "cert" if bridge.cert else "key")
    for name, path in given.items():
        if path is not None and plain:
            yield _at("without mqtts or wss in url there is no TLS that it is for", name)
        if path is not None:
            yield from _file(path, name)


# Receivers


def _webhooks(webhooks: Iterable[Webhook]) -> Found:
    webhooks = list(webhooks)
    yield from _twice((webhook.name for webhook in webhooks), "name", "receivers", "webhooks")
    for at, webhook in enumerate(webhooks):
        for found in _webhook(webhook):
            yield found.below("receivers", "webhooks", at)


def _topics(receivers: Receivers) -> Found:
    taken = {webhook.name for webhook in receivers.webhooks}
    yield from _twice((topic.name for topic in receivers.topics), "name", "receivers", "topics")
    for at, topic in enumerate(receivers.topics):
        for found in _topic(topic, taken):
            yield found.below("receivers", "topics", at)


def _topic(topic: Topic, taken: AbstractSet[str]) -> Found:
    if not _NAME.fullmatch(topic.name):
        yield _at(f"a topic's name {_NAME_RULE}", "name")
    if topic.name in taken:
        yield _at(f'"{topic.name}" is the name of a webhook already', "name")
    if not is_topic(topic.arn):
        yield _at(f"the ARN of an SNS topic {RULE}", "arn")
    yield from _seconds(topic.timeout_s, "timeout_s", above=0.0, at_most=300.0)


def _webhook(webhook: Webhook) -> Found:
    if not _NAME.fullmatch(webhook.name):
        yield _at(f"a webhook's name {_NAME_RULE}", "name")
    url = _url(webhook.url)
    if url is None or url.scheme not in {"http", "https"}:
        yield _at("url is like https://host/path", "url")
    yield from _seconds(webhook.timeout_s, "timeout_s", above=0.0, at_most=300.0)
    if webhook.secret_file is not None:
        yield from _secret(webhook.secret_file, "secret_file", look_at=_webhook_secrets)
    elif url is not None and not _is_local(url):
        yield _odd("without secret_file the receiver can't tell our messages from forged ones", "url")


def _webhook_secrets(text: str) -> Found:
    """One Standard Webhooks secret, or two while one takes the place of the other; paths begin at the file's name."""
    for secret in text.split():
        try:
            key = base64.b64decode(secret.removeprefix(WHSEC), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not key or not secret.startswith(WHSEC):
            yield _at(f"a webhook's secret is {WHSEC} and base64 after it")
        elif not 24 <= len(key) <= 64:
            yield _odd(f"a webhook's secret should be {WHSEC} and base64 of 24 to 64 bytes")


def _aws(settings: Settings) -> Found:
    for service, text in settings.aws.endpoint_urls.items():
        url = _url(text)
        if url is None or url.scheme not in {"http", "https"}:
            yield _at("an endpoint is like https://host:port", "aws", "endpoint_urls", service)


# Bounds


def _log(log: Log) -> Found:
    yield from _seconds(log.max_age_s, "log", "max_age_s", above=0.0)
    for name, size in (("max_bytes", log.max_bytes), ("guard_bytes", log.guard_bytes)):
        if not LOG_BYTES_MIN <= size <= 2**50:
            yield _at(f"{name} should be in range[{LOG_BYTES_MIN},{2**50}]", "log", name)
    if not _NAME.fullmatch(log.stream):
        yield _at(f"a stream's name {_NAME_RULE}", "log", "stream")


def _limits(limits: Limits) -> Found:
    if limits.report_interval_s is not None:
        yield from _seconds(limits.report_interval_s, "limits", "report_interval_s")
    yield from _seconds(limits.grace_s, "limits", "grace_s")
    if 0 <= limits.grace_s < GRACE_S_MIN:
        message = f"sources gather for up to a second: with less than {GRACE_S_MIN:g} s their last events come late"
        yield _odd(message, "limits", "grace_s")
    yield from _seconds(limits.silence_s, "limits", "silence_s", above=0.0)
    counts = (
        ("population_min", limits.population_min, THINGS_MAX),
        ("payload_bytes_max", limits.payload_bytes_max, PAYLOAD_BYTES_MAX),
        ("things_max", limits.things_max, THINGS_MAX),
        ("cloud_window_s", limits.cloud_window_s, 3600),
    )
    for name, count, most in counts:
        if not 1 <= count <= most:
            yield _at(f"{name} should be in range[1,{most}]", "limits", name)


def _seconds(seconds: float, *path: str, above: float | None = None, at_most: float = SECONDS_MAX) -> Found:
    """A span: 0 or more, or more than `above`; and within reason."""
    enough = seconds > above if above is not None else seconds >= 0
    if not isfinite(seconds) or not enough or seconds > at_most:
        least = f"more than {above:g}" if above is not None else "at least 0"
        yield _at(f"{path[-1]} should be {least} and at most {at_most:g} seconds", *path)


# Files


def _tls(tls: Tls | None, *path: str) -> Found:
    if tls is None:
        return
    for name, file in (("cert", tls.cert), ("key", tls.key), ("ca", tls.ca)):
        if file is not None:
            yield from _file(file, *path, name)
    warning = loose(tls.key)
    if warning:
        yield _odd(warning, *path, "key")


def _file(file: Path, *path: str) -> Found:
    if not file.is_file():
        yield _at(f"there is no file {file}", *path)


def _secret(file: Path, *path: str | int, look_at: Callable[[str], Found] = lambda _: iter(())) -> Found:
    """A secret file is there, holds something that `look_at` has nothing against, and is the owner's alone."""
    try:
        found = list(look_at(read_secret(file).reveal()))
    except ConfigError as error:
        found = [_at(error.problems[0].message)]
    for each in found:
        yield Finding(path, f"{file}: {each.message}", each.is_warning)
    warning = loose(file)
    if warning:
        yield _odd(warning, *path)


# What several settings have


def _url(text: str) -> SplitResult | None:
    """A URL with a host and a usable port, or None."""
    try:
        url = urlsplit(text)
        usable = bool(url.hostname) and url.port != 0 and text.isprintable() and " " not in text
    except ValueError:
        return None
    return url if usable else None


def _is_local(url: SplitResult) -> bool:
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    address = parse_address(f"{host}:0")
    return address is not None and address.is_loopback


def _twice(names: Iterable[str], member: str, *path: str) -> Found:
    seen = set()
    for at, name in enumerate(names):
        if name in seen:
            yield _at(f'"{name}" is defined a second time', *path, at, member)
        seen.add(name)


def _no_address(*path: str) -> Finding:
    return _at(f"{path[-1]} is an address like 127.0.0.1:8080 or [::1]:8080", *path)


def _odd(message: str, *path: str | int) -> Finding:
    return Finding(path, message, is_warning=True)


def _at(message: str, *path: str | int) -> Finding:
    return Finding(path, message)
