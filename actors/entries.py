"""What a log entry's subject says it is, and a batch of entries made by hand: for replays and tests.

The compiled splitter (`daemon.log.frames`, `.sheet`) reads the same rules off the wire; a test compares the two.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from actors.messages import BRIDGED, CONTROL, COPIED, I8, NAME_ENCODED, REPORT_CBOR, REPORT_JSON, Frames

FORMATS: Final = {b"json": REPORT_JSON, b"cbor": REPORT_CBOR}


class Subject(NamedTuple):
    """kind, flags (NAME_ENCODED, BRIDGED), and where TOKEN lies within the subject: bytes."""

    kind: int
    flags: int
    name_off: int
    name_len: int


def classify(subject: bytes) -> Subject:
    """What an entry with this subject is (`Frames` names the two forms of a report's); all else is a control entry."""
    match subject.split(b"."):
        case [b"$aws", b"things", token, b"defender", b"metrics", fmt] if fmt in FORMATS and token:
            return _report(fmt, 0, len(b"$aws.things."), token)
        case [b"detectd", b"log", b"report", bridge, token, fmt] if fmt in FORMATS and token and bridge:
            return _report(fmt, BRIDGED, len(b"detectd.log.report.") + len(bridge) + 1, token)
    return Subject(CONTROL, 0, 0, 0)


def _report(fmt: bytes, flags: int, name_off: int, token: bytes) -> Subject:
    # A lone `/` is an empty level (`actors.topics`): as little a plain name as one that holds `//`.
    encoded = NAME_ENCODED if b"/" in token or b"%" in token else 0
    return Subject(FORMATS[fmt], flags | encoded, name_off, len(token))


def frames_of(entries: Iterable[tuple[int, int, str, bytes, int | None, int]]) -> Frames:
    """Build a batch from (seq, ts ns, subject, payload, origin ns or None, further flags), in log order.

    An origin makes an entry COPIED; of the further flags BACKLOG makes sense.
    """
    data = bytearray()
    rows: list[Sequence[int]] = []
    for seq, ts, subject, payload, origin, more in entries:
        name = subject.encode()
        kind, flags, name_off, name_len = classify(name)
        flags |= more if origin is None else more | COPIED
        at, start = len(data), len(data) + len(name)
        token_off = at + name_off if name_len else 0
        first = ts if origin is None else origin
        rows.append((seq, ts, first, kind, flags, at, len(name), token_off, name_len, start, len(payload)))
        data += name + payload
    return _frames(data, np.array(rows, np.int64).reshape(len(rows), 11))


def _frames(data: bytearray, table: I8) -> Frames:
    """`table` has a column for every column of Frames, in their order."""
    seq, ts, origin, kind, flags, *places = table.T.copy()
    # Not frozen bytes: a kernel's signature asks for a writable array.
    text = np.frombuffer(data, np.uint8)
    return Frames(
        text,
        seq,
        ts,
        origin,
        kind.astype(np.uint8),
        flags.astype(np.uint8),
        *(place.astype(np.int32) for place in places),
    )
