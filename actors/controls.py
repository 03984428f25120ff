"""Log entries that are not reports: ticks, changes of the rules, starts and resumptions (design.md §1.1, §4).

A batch is cut before and after each entry that acts on all actors at once; ticks and marks only let time pass and
stay where they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

import msgspec
import numpy as np

from actors.messages import CONTROL, Frames

TICK: Final = "detectd.log.tick"
CHANGE: Final = "detectd.log.change"
STARTED: Final = "detectd.log.started"
RESUMED: Final = "detectd.log.resumed"
RETRY: Final = "detectd.log.retry"


class Change(msgspec.Struct, frozen=True):
    """New rules take effect here; the digest names them, the store has them (a recording carries them along)."""

    digest: str
    by: str = ""  # who changed: a file, the API


class Pause(msgspec.Struct, frozen=True):
    """The daemon started, or a source is back: nothing could be heard since `since` (ns). source "" = all."""

    since: int
    source: str = ""
    cut: bool = False
    """Every connection that the source told of has ended: it went through the source."""


class Retry(msgspec.Struct, frozen=True):
    """A report that was set aside is judged again here, by the actor that it broke, as if it came now."""

    actor: str
    position: int  # where it stood
    subject: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Control:
    """An entry that acts on all actors at once."""

    position: int
    ts: int
    what: Change | Pause | Retry


def pieces(frames: Frames) -> Iterator[Frames | Control]:
    """A batch in order, cut at its acting entries. One that can't be read is skipped like a mark."""
    at = 0
    for i in np.flatnonzero(frames.kind == CONTROL).tolist():
        control = _control(frames, i)
        if control is not None:
            if i > at:
                yield part(frames, at, i)
            yield control
            at = i + 1
    if at < len(frames):
        yield part(frames, at, len(frames)) if at else frames


def part(frames: Frames, first: int, last: int) -> Frames:
    """Entries [first, last) of a batch; the bytes are shared."""
    arrays = {f.name: getattr(frames, f.name)[first:last] for f in fields(Frames) if f.name != "data"}
    return Frames(data=frames.data, **arrays)


def _control(frames: Frames, i: int) -> Control | None:
    kind = {CHANGE: Change, STARTED: Pause, RESUMED: Pause, RETRY: Retry}.get(frames.subject(i))
    if kind is None:
        return None
    try:
        what: Change | Pause | Retry = msgspec.json.decode(frames.payload(i), type=kind)
    except msgspec.MsgspecError:
        return None
    return Control(int(frames.seq[i]), int(frames.ts[i]), what)
