"""Which daemon settings are valid: addresses and who may reach them, receivers, bounds; brokers in a room of their own.

What is on loopback may be open; what others can reach must be guarded (design.md §5).
"""

import base64
import binascii
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from config.address import parse_address
from config.brokers import brokers, clients
from config.findings import (
    NAME,
    NAME_RULE,
    Found,
    is_local,
    no_address,
    odd,
    seconds_at,
    secret_at,
    tls_at,
    twice,
    url_of,
    wrong,
)
from config.model import Http, Limits, Log, Receivers, Settings, Topic, Webhook
from config.problem import Finding
from config.topics import RULE, is_topic

PAYLOAD_BYTES_MAX: Final = 256 * 1024
GRACE_S_MIN: Final = 1.5
"""Below it, what a source gathers may find its window closed."""
THINGS_MAX: Final = 16_000_000
LOG_BYTES_MIN: Final = 1024**2
WHSEC: Final = "whsec_"

_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_REGION: Final = re.compile(r"[a-z0-9-]{1,32}")
_ACCESS_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def check_daemon(settings: Settings) -> list[Finding]:
    """Everything wrong with, or odd about, how the daemon is to run; secret and TLS files are looked at."""
    return [
        *_account(settings),
        *_http(settings.http),
        *brokers(settings),
        *_log(settings.log),
        *_webhooks(settings.receivers.webhooks),
        *_topics(settings.receivers),
        *_aws(settings),
        *_limits(settings.rules.limits),
        *clients(settings.rules.clients),
        *seconds_at(settings.checkpoint.every_s, "checkpoint", "every_s", above=0.0),
        *_data_dir(settings.data_dir),
    ]


def _account(settings: Settings) -> Found:
    if not _ACCOUNT.fullmatch(settings.account.id):
        yield wrong("an account's id has 12 digits", "account", "id")
    if not _REGION.fullmatch(settings.account.region):
        yield wrong("a region is made of a-z, 0-9 and -", "account", "region")


def _data_dir(data_dir: Path) -> Found:
    if data_dir.exists() and not data_dir.is_dir():
        yield wrong(f"{data_dir} is no directory", "data_dir")


# HTTP


def _http(http: Http) -> Found:
    address = parse_address(http.listen)
    if address is None:
        yield no_address("http", "listen")
    elif not address.is_loopback:
        yield from _http_off_loopback(http)
    elif http.behind_proxy and not http.access_keys:
        # What comes through it looks like this machine's own, to which everything is open.
        yield wrong("a proxy brings in others: give access_keys, so that requests are signed", "http", "behind_proxy")
    yield from tls_at(http.tls, "http", "tls")
    yield from twice((key.id for key in http.access_keys), "id", "http", "access_keys")
    for at, key in enumerate(http.access_keys):
        if not _ACCESS_KEY.fullmatch(key.id):
            message = 'an access key\'s id must be 1 to 128 characters of a-z, A-Z, 0-9, "_" and "-"'
            yield wrong(message, "http", "access_keys", at, "id")
        yield from secret_at(key.secret_file, "http", "access_keys", at, "secret_file")


def _http_off_loopback(http: Http) -> Found:
    missing = [
        *([] if http.access_keys else ["access_keys, so that requests are signed"]),
        *([] if http.tls or http.behind_proxy else ["tls (or behind_proxy: true, where a proxy in front speaks it)"]),
    ]
    if missing:
        yield wrong(f"{http.listen} is off loopback: give {' and '.join(missing)}", "http", "listen")


# Receivers


def _webhooks(webhooks: Iterable[Webhook]) -> Found:
    webhooks = list(webhooks)
    yield from twice((webhook.name for webhook in webhooks), "name", "receivers", "webhooks")
    for at, webhook in enumerate(webhooks):
        for found in _webhook(webhook):
            yield found.below("receivers", "webhooks", at)


def _topics(receivers: Receivers) -> Found:
    taken = {webhook.name for webhook in receivers.webhooks}
    yield from twice((topic.name for topic in receivers.topics), "name", "receivers", "topics")
    for at, topic in enumerate(receivers.topics):
        for found in _topic(topic, taken):
            yield found.below("receivers", "topics", at)


def _topic(topic: Topic, taken: AbstractSet[str]) -> Found:
    if not NAME.fullmatch(topic.name):
        yield wrong(f"a topic's name {NAME_RULE}", "name")
    if topic.name in taken:
        yield wrong(f'"{topic.name}" is the name of a webhook already', "name")
    if not is_topic(topic.arn):
        yield wrong(f"the ARN of an SNS topic {RULE}", "arn")
    yield from seconds_at(topic.timeout_s, "timeout_s", above=0.0, at_most=300.0)


def _webhook(webhook: Webhook) -> Found:
    if not NAME.fullmatch(webhook.name):
        yield wrong(f"a webhook's name {NAME_RULE}", "name")
    url = url_of(webhook.url)
    if url is None or url.scheme not in {"http", "https"}:
        yield wrong("url is like https://host/path", "url")
    yield from seconds_at(webhook.timeout_s, "timeout_s", above=0.0, at_most=300.0)
    if webhook.secret_file is not None:
        yield from secret_at(webhook.secret_file, "secret_file", look_at=_webhook_secrets)
    elif url is not None and not is_local(url):
        yield odd("without secret_file the receiver can't tell our messages from forged ones", "url")


def _webhook_secrets(text: str) -> Found:
    """One Standard Webhooks secret, or two while one takes the place of the other; paths begin at the file's name."""
    for secret in text.split():
        try:
            key = base64.b64decode(secret.removeprefix(WHSEC), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not key or not secret.startswith(WHSEC):
            yield wrong(f"a webhook's secret is {WHSEC} and base64 after it")
        elif not 24 <= len(key) <= 64:
            yield odd(f"a webhook's secret should be {WHSEC} and base64 of 24 to 64 bytes")


def _aws(settings: Settings) -> Found:
    for service, text in settings.aws.endpoint_urls.items():
        url = url_of(text)
        if url is None or url.scheme not in {"http", "https"}:
            yield wrong("an endpoint is like https://host:port", "aws", "endpoint_urls", service)


# Bounds


def _log(log: Log) -> Found:
    yield from seconds_at(log.max_age_s, "log", "max_age_s", above=0.0)
    for name, size in (("max_bytes", log.max_bytes), ("guard_bytes", log.guard_bytes)):
        if not LOG_BYTES_MIN <= size <= 2**50:
            yield wrong(f"{name} should be in range[{LOG_BYTES_MIN},{2**50}]", "log", name)
    if not NAME.fullmatch(log.stream):
        yield wrong(f"a stream's name {NAME_RULE}", "log", "stream")


def _limits(limits: Limits) -> Found:
    if limits.report_interval_s is not None:
        yield from seconds_at(limits.report_interval_s, "limits", "report_interval_s")
    yield from seconds_at(limits.grace_s, "limits", "grace_s")
    if 0 <= limits.grace_s < GRACE_S_MIN:
        message = f"sources gather for up to a second: with less than {GRACE_S_MIN:g} s their last events come late"
        yield odd(message, "limits", "grace_s")
    yield from seconds_at(limits.silence_s, "limits", "silence_s", above=0.0)
    counts = (
        ("population_min", limits.population_min, THINGS_MAX),
        ("payload_bytes_max", limits.payload_bytes_max, PAYLOAD_BYTES_MAX),
        ("things_max", limits.things_max, THINGS_MAX),
        ("cloud_window_s", limits.cloud_window_s, 3600),
    )
    for name, count, most in counts:
        if not 1 <= count <= most:
            yield wrong(f"{name} should be in range[1,{most}]", "limits", name)
