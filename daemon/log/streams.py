"""The two streams that detectd makes in JetStream: the log, and the guard that holds what devices were promised.

The guard is nats-server's own `$MQTT_msgs`, made by us before it makes one itself: as a bounded history instead
of a queue that forgets (design.md §2, "PUBACK is not proof that the log has it").
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from config.model import NS, Log

GUARD: Final = "$MQTT_msgs"
GUARD_PREFIX: Final = "$MQTT.msgs."
REPORTS: Final = ("$aws.things.*.defender.metrics.json", "$aws.things.*.defender.metrics.cbor")
OWN: Final = "detectd.log.>"
IDENTITY_KEY: Final = "detectd_identity"

# A resent entry is recognised by its Nats-Msg-Id for this long; each costs nats-server some 100 bytes of memory.
_DUPLICATE_WINDOW_S: Final = 60.0
_NO_SUCH_STREAM: Final = 10059
_TIMEOUT_S: Final = 10.0


class JetStreamError(Exception):
    """JetStream refused a request."""

    def __init__(self, subject: str, description: str, code: int) -> None:
        super().__init__(f"{subject}: {description} (JetStream error {code})")
        self.code = code


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Which log, and what of it is there: positions [first_seq, last_seq]; empty when last_seq < first_seq."""

    stream: str
    identity: str  # 32 hex digits, made with the stream
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class _Own:
    """A stream of nats-server's: its settings are nats-server's too, but for the bound."""

    subjects: tuple[str, ...]
    bytes_max: int
    more: dict[str, Any]


_ONE_EACH: Final = {"max_msgs_per_subject": 1}
_MIB: Final = 1024**2
_MQTT: Final = {
    "$MQTT_sess": _Own(("$MQTT.sess.>",), 256 * _MIB, _ONE_EACH),
    "$MQTT_rmsgs": _Own(("$MQTT.rmsgs.>",), 64 * _MIB, _ONE_EACH),
    "$MQTT_out": _Own(("$MQTT.out.>",), 64 * _MIB, {"retention": "interest"}),
    "$MQTT_qos2in": _Own(
        ("$MQTT.qos2.in.>",), 64 * _MIB, {**_ONE_EACH, "discard": "new", "discard_new_per_subject": True}
    ),
}


async def ensure(nc: Client, log: Log, replicas: int = 1) -> LogIdentity:
    """Make the guard and the log, or bring their limits up to date; what they hold stays.

    `replicas` is for a log that isn't there yet. Raises JetStreamError, nats.errors.Error, TimeoutError.
    """
    await _ensure_guard(nc, log.guard_bytes)
    info = await _ensure_log(nc, log, replicas)
    state = info["state"]
    return LogIdentity(log.stream, info["config"]["metadata"][IDENTITY_KEY], state["first_seq"], state["last_seq"])


async def bound_mqtt(nc: Client) -> None:
    """Bound what nats-server's MQTT keeps beside the guard: without it devices could fill the store, and stop the log.

    Made before the first device comes: nats-server uses what it finds. Raises as `ensure`.
    """
    for name, own in _MQTT.items():
        await _ensure_stream(nc, {**_bounded(name, own.subjects, own.bytes_max), **own.more})


async def api(nc: Client, subject: str, body: object = None) -> dict[str, Any]:
    """Ask JetStream's API. Raises JetStreamError, nats.errors.Error, TimeoutError."""
    payload = b"" if body is None else msgspec.json.encode(body)
    answer: dict[str, Any] = msgspec.json.decode((await nc.request(f"$JS.API.{subject}", payload, _TIMEOUT_S)).data)
    if error := answer.get("error"):
        raise JetStreamError(subject, error.get("description", "refused"), error.get("err_code", 0))
    return answer


def instant_ns(text: str) -> int:
    """A time as JetStream writes it, RFC 3339 in UTC with up to nine digits of a second, in ns."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * NS + int(fraction.ljust(9, "0"))


async def _ensure_guard(nc: Client, bytes_max: int) -> None:
    wanted = _bounded(GUARD, (f"{GUARD_PREFIX}>",), bytes_max)
    # No age limit: it would empty the guard during a downtime, which is what the guard is for.
    await _ensure_stream(nc, {**wanted, "max_age": 0})


async def _ensure_log(nc: Client, log: Log, replicas: int) -> dict[str, Any]:
    max_age = round(log.max_age_s * NS)
    window = min(round(_DUPLICATE_WINDOW_S * NS), max_age) if max_age else round(_DUPLICATE_WINDOW_S * NS)
    wanted = {
        **_bounded(log.stream, (*REPORTS, OWN), log.max_bytes),
        "max_age": max_age,
        "duplicate_window": window,
        "allow_direct": True,
    }
    info = await _ensure_stream(nc, wanted, {"num_replicas": replicas, "metadata": _new_identity()})
    if IDENTITY_KEY not in (info["config"].get("metadata") or {}):
        metadata = {**(info["config"].get("metadata") or {}), **_new_identity()}
        return await api(nc, f"STREAM.UPDATE.{log.stream}", {**info["config"], "metadata": metadata})
    return info


def _bounded(name: str, subjects: tuple[str, ...], bytes_max: int) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": list(subjects),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_bytes": bytes_max,
        "max_msgs": -1,
        "max_consumers": -1,
    }


def _new_identity() -> dict[str, str]:
    return {IDENTITY_KEY: secrets.token_hex(16)}


async def _ensure_stream(nc: Client, wanted: dict[str, Any], at_first: dict[str, Any] | None = None) -> dict[str, Any]:
    name = wanted["name"]
    try:
        info = await api(nc, f"STREAM.INFO.{name}")
    except JetStreamError as error:
        if error.code != _NO_SUCH_STREAM:
            raise
        return await api(nc, f"STREAM.CREATE.{name}", {**wanted, **(at_first or {})})
    if all(info["config"].get(key) == value for key, value in wanted.items()):
        return info
    return await api(nc, f"STREAM.UPDATE.{name}", {**info["config"], **wanted})
