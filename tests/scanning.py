"""The compiled scanner called by itself, on some payloads."""

from collections.abc import Sequence

import numpy as np

from actors.columns import Schema
from actors.entries import frames_of
from actors.messages import Frames
from actors.scan import DEFERRED, SETS, TALLY, scan

# Behind every payload lies what would complete a cut one: a scanner that reads on is found out.
BEHIND = b'"}]}}}}0123456789:8883"}'


def frames(payloads: Sequence[bytes], kind: str = "json") -> Frames:
    topic = f"$aws.things.p1.defender.metrics.{kind}"
    found = frames_of((i + 1, i, topic, payload, None, 0) for i, payload in enumerate(payloads))
    behind = np.frombuffer(BEHIND, np.uint8)
    return Frames(np.concatenate((found.data, behind)), *(getattr(found, name) for name in Frames.__slots__[1:]))


def deferred(payloads: Sequence[bytes], schema: Schema, payload_bytes_max: int = 131_072) -> list[bool]:
    """Which payloads the scanner leaves to the reference."""
    batch = frames(payloads)
    count = len(payloads)
    ok = np.empty(count, np.uint8)
    rows = (ok, np.empty(count, np.int64), np.empty((count, len(schema.scalars)), np.int64))
    places = np.empty((SETS, 2, count), np.int32)
    elements = np.empty((SETS, 2, 1 + sum(map(len, payloads))), np.uint64)
    stopped = scan(
        batch.data, batch.kind, batch.payload_off, batch.payload_len, 0, payload_bytes_max,
        schema.names.text, schema.names.slots, *rows, places, elements, np.zeros(TALLY, np.int64),
    )  # fmt: skip
    assert stopped == count
    return (ok == DEFERRED).tolist()
