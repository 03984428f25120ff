"""What a broker tells of its clients, one small fact or a sum of equal ones, and how facts lie in a log entry.

A source (daemon/brokers, daemon/sensor) gathers what it hears of up to a second into `Event`s, sums those of the same
kind, client and topic, and writes them into the log as one entry with the subject `SUBJECT` + the source's name. The
payload is JSON by columns: every text once, every event a row of integers that point at them.
"""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec
import numpy as np

from actors.messages import I8

Kind = Literal["connected", "connect-failed", "disconnected", "published", "delivered", "denied"]

KINDS: Final[tuple[Kind, ...]] = ("connected", "connect-failed", "disconnected", "published", "delivered", "denied")
CONNECTED, CONNECT_FAILED, DISCONNECTED, PUBLISHED, DELIVERED, DENIED = range(6)

SUBJECT: Final = "detectd.log.events."
EMBEDDED: Final = "embedded"
"""The source that is the log's own broker."""

ENTRY_BYTES_MAX: Final = 256 * 1024
TEXT_BYTES_MAX: Final = 512
"""Longer topics, users and session names are cut. A client id that is longer names no thing: its events are dropped."""

# Columns of a row
TIME, KIND, CLIENT, TOPIC, IP, COUNT, BYTES_MIN, BYTES_MAX, BYTES, SESSION, VERSION = range(11)
ROW: Final = 11
NONE: Final = -1
TIME_MAX: Final = 2**61


class Event(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One fact, or the sum of `count` equal ones.

    published, delivered: messages from and to the device, their payload bytes (`bytes` in all, `bytes_min` and
    `bytes_max` of one). denied: refused by permission, whatever it was. connect-failed: an attempt that came to
    nothing. connected: one that did not; `ip` is where from.
    """

    event: Kind
    client_id: str
    time: int  # ns, of the first of them
    topic: str = ""
    ip: str = ""
    user: str = ""  # for people; nothing is judged by it
    count: int = 1
    bytes: int = 0
    bytes_min: int = 0
    bytes_max: int = 0
    session: str = ""
    """Names one connection of the client, where the source can: then an event that comes twice is known by it, and a
    late end of an earlier connection does not end the present one."""
    version: int = 0
    """With `session`: a source's own number of the event (spec.md §10.8)."""


class Packed(msgspec.Struct, frozen=True):
    """A payload. `rows` are ROW integers each; TIME is counted from `base`, texts are places in their lists or NONE."""

    base: int  # ns
    clients: list[str]
    topics: list[str]
    ips: list[str]
    sessions: list[str]
    rows: list[list[int]]


class Places:
    """Texts and their numbers, in the order of their first use."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def of(self, text: str) -> int:
        return self._places.setdefault(text, len(self._places)) if text else NONE

    def texts(self) -> list[str]:
        return list(self._places)


def packed(events: Iterable[Event]) -> bytes:
    """The payload of an entry. There is at least one event."""
    events = list(events)
    base = min(event.time for event in events)
    clients, topics, ips, sessions = Places(), Places(), Places(), Places()
    rows = [
        [
            event.time - base, KINDS.index(event.event), clients.of(event.client_id), topics.of(event.topic),
            ips.of(event.ip), event.count, event.bytes_min, event.bytes_max, event.bytes,
            sessions.of(event.session), event.version,
        ]
        for event in events
    ]  # fmt: skip
    texts = (clients.texts(), topics.texts(), ips.texts(), sessions.texts())
    return msgspec.json.encode(Packed(base, *texts, rows))


def unpacked(payload: bytes) -> tuple[Packed, I8] | None:
    """What `packed` wrote, and its rows as a table [events, ROW]; None where it did not: no actor may break of it."""
    try:
        content = _decoder.decode(payload)
        table = np.array(content.rows, np.int64).reshape(len(content.rows), ROW)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return None
    ends = ((CLIENT, content.clients), (TOPIC, content.topics), (IP, content.ips), (SESSION, content.sessions))
    is_sound = (
        (table >= NONE).all()
        and (table[:, _COUNTED] >= 0).all()
        and (table[:, COUNT] > 0).all()
        and (table[:, KIND] < len(KINDS)).all()
        and all((table[:, column] < len(texts)).all() for column, texts in ends)
        and 0 <= content.base < TIME_MAX
        and (table[:, TIME] < TIME_MAX).all()
    )
    return (content, table) if is_sound else None


_COUNTED: Final = (TIME, KIND, COUNT, BYTES_MIN, BYTES_MAX, BYTES, VERSION)
_decoder: Final = msgspec.json.Decoder(Packed)
