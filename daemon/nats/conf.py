"""The configuration text of the embedded nats-server: who may do what, and whether devices may come in.

One account, two users. Devices, anonymous ones too, run as `device`, who may use ordinary topics and nothing of
the server's or ours; `detectd` may do all. The door is `device`'s list of connection types (design.md §2).

Behind a sensor nobody is anonymous: it alone knows `device`'s password, so no local process gets past it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NewType

from config.address import Address
from config.model import Tls

Password = NewType("Password", str)

DAEMON_USER: Final = "detectd"
DEVICE_USER: Final = "device"

PAYLOAD_BYTES_MAX: Final = 512 * 1024
"""Twice what a report may have, so that a too large one is answered and not cut off (spec.md §2.6)."""

OTHERS_BYTES_MAX: Final = 1024**3
"""Room for what MQTT itself keeps (sessions, retained messages), beside the log and the guard."""

_MINE = ("$JS.>", "$KV.>", "$O.>", "$OBJ.>", "$SYS.>", "$SRV.>", "_INBOX.>", "detectd.>")
PUBLISH_DENIED = (*_MINE, "$MQTT.>", "_R_.>", "$aws.things.*.defender.metrics.*.>", "$aws.events.>")
SUBSCRIBE_DENIED = (
    *_MINE,
    "$MQTT.msgs.>",
    "$MQTT.sess.>",
    "$MQTT.rmsgs.>",
    "$aws.things.*.defender.metrics.json",
    "$aws.things.*.defender.metrics.cbor",
)


@dataclass(frozen=True, slots=True)
class BrokerConf:
    """All that the text depends on, the door aside. Addresses are (host, port)."""

    nats: tuple[str, int]
    mqtt: tuple[str, int]
    tls: Tls | None
    folder: Path
    file_bytes_max: int
    sync_interval_s: float | None
    daemon_password: Password = field(repr=False)
    device_password: Password = field(repr=False)
    callout_issuer: str | None  # the public key that signs who else may come in; None: only the sensor does


def render(conf: BrokerConf, *, door_open: bool) -> str:
    """The text of `server.conf`. It holds both passwords: write it for the owner alone."""
    return "\n".join(
        (
            "server_name: detectd",
            f"listen: {_quote(Address(*conf.nats))}",
            f"max_payload: {PAYLOAD_BYTES_MAX}",
            f"log_file: {_quote(conf.folder / 'server.log')}",
            "logfile_size_limit: 8MB",
            "logfile_max_num: 2",
            *_jetstream(conf),
            *_mqtt(conf),
            *_authorization(conf, door_open),
            "",
        )
    )


def _jetstream(conf: BrokerConf) -> list[str]:
    return [
        "jetstream {",
        f"  store_dir: {_quote(conf.folder / 'js')}",
        f"  max_file_store: {conf.file_bytes_max}",
        # What arrives faster than the log is written waits here; what finds it full is dropped after its PUBACK.
        "  max_buffered_msgs: 500000",
        "  max_buffered_size: 256MB",
        *_sync(conf.sync_interval_s),
        "}",
    ]


def _sync(interval_s: float | None) -> list[str]:
    if interval_s is None:
        return []
    return [f"  sync_interval: {_quote(f'{round(interval_s * 1000)}ms') if interval_s > 0 else 'always'}"]


def _mqtt(conf: BrokerConf) -> list[str]:
    return [
        "mqtt {",
        f"  listen: {_quote(Address(*conf.mqtt))}",
        *([f"  no_auth_user: {DEVICE_USER}"] if conf.callout_issuer else []),
        # Without an end, the consumers of clients that never come back would pile up.
        '  consumer_inactive_threshold: "168h"',
        *_tls(conf.tls),
        "}",
    ]


def _tls(tls: Tls | None) -> list[str]:
    if tls is None:
        return []
    lines = [f"    cert_file: {_quote(tls.cert)}", f"    key_file: {_quote(tls.key)}"]
    if tls.ca is not None:
        lines += [f"    ca_file: {_quote(tls.ca)}", "    verify: true"]
    return ["  tls {", *lines, "    timeout: 10", "  }"]


def _authorization(conf: BrokerConf, door_open: bool) -> list[str]:
    # A user with an empty list could connect in every way: LEAFNODE stands for a way that is not served.
    ways = '["MQTT", "MQTT_WS"]' if door_open else '["LEAFNODE"]'
    guest = f"allowed_connection_types: {ways}, permissions: $devices"
    return [
        f"devices: {{ publish: {_rules(PUBLISH_DENIED)}, subscribe: {_rules(SUBSCRIBE_DENIED)} }}",
        "authorization { users: [",
        f"  {{ user: {DAEMON_USER}, password: {_quote(conf.daemon_password)} }}",
        f"  {{ user: {DEVICE_USER}, password: {_quote(conf.device_password)}, {guest} }}",
        "]",
        *_callout(conf.callout_issuer),
        "}",
    ]


def _callout(issuer: str | None) -> list[str]:
    """A client with another user name is asked about: daemon/nats/named_devices.py."""
    return [f"  auth_callout: {{ issuer: {issuer}, auth_users: [{DAEMON_USER}, {DEVICE_USER}] }}"] if issuer else []


def _rules(denied: tuple[str, ...]) -> str:
    return f'{{ allow: [">"], deny: {json.dumps(denied)} }}'


def _quote(text: Path | Address | str) -> str:
    return json.dumps(str(text))
