"""What the core is told: log entries as columns, decoded reports as columns, and the share of one actor.

Everything that travels here is immutable once made: arrays are shared between actors and never written again.
Shapes: n = entries of one log batch, c = scalar columns, m = elements of a ragged column.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

I8 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint64]
I4 = npt.NDArray[np.int32]
U1 = npt.NDArray[np.uint8]
I1 = npt.NDArray[np.int8]

ABSENT: Final = -(2**63)
"""No datapoint in an int64 column. Counts are ≥ 0, and no finite float maps to it (`actors.numbers.key_of`)."""

NO_EVENTS: Final = np.zeros(0, np.int32)
NO_THINGS: Final = np.zeros(0, np.uint8)

# Frames.kind
REPORT_JSON: Final = 0
REPORT_CBOR: Final = 1
CONTROL: Final = 2  # ticks, changes, starts, resumptions, broker events: everything that is not a report

# Frames.flags
NAME_ENCODED: Final = 1  # the name token needs `thing_name` (it holds `//` or `%`)
BACKLOG: Final = 2  # a bridge delivered it from its backlog: not throttled (design.md §4)
COPIED: Final = 4  # copied from the guard: `origin` is its first time
BRIDGED: Final = 8  # came through a bridge: the subject names it


@dataclass(frozen=True, slots=True)
class Frames:
    """A batch of log entries as they lie in memory. Offsets point into `data`.

    Reports have a subject of one of these forms, where TOKEN is the thing's name as NATS spells it:
    `$aws.things.TOKEN.defender.metrics.{json|cbor}` (embedded broker) and
    `detectd.log.report.BRIDGE.TOKEN.{json|cbor}` (a bridge; TOKEN is percent-encoded).
    """

    data: U1  # [bytes]
    seq: I8  # [n] position in the log, increasing
    ts: I8  # [n] receipt time, ns; may step back (the router clamps it)
    origin: I8  # [n] first time of an entry copied from the guard, else ts
    kind: U1  # [n]
    flags: U1  # [n]
    subject_off: I4  # [n]
    subject_len: I4  # [n]
    name_off: I4  # [n] TOKEN of a report
    name_len: I4  # [n] 0 for a control entry
    payload_off: I4  # [n]
    payload_len: I4  # [n]

    def __len__(self) -> int:
        return len(self.seq)

    def payload(self, i: int) -> bytes:
        off = int(self.payload_off[i])
        return self.data[off : off + int(self.payload_len[i])].tobytes()

    def token(self, i: int) -> bytes:
        off = int(self.name_off[i])
        return self.data[off : off + int(self.name_len[i])].tobytes()

    def subjects(self) -> list[bytes]:
        """Of every entry; much cheaper than one by one."""
        return _cut(self.data, self.subject_off, self.subject_len)

    def tokens(self) -> list[bytes]:
        """The name token of every entry, b"" where there is none."""
        return _cut(self.data, self.name_off, self.name_len)

    def subject(self, i: int) -> str:
        off = int(self.subject_off[i])
        return self.data[off : off + int(self.subject_len[i])].tobytes().decode("utf-8", "replace")


def _cut(data: U1, off: I4, length: I4) -> list[bytes]:
    """Many small pieces of `data`: one copy of the stretch that holds them all, then slices of that."""
    if not length.any():
        return [b""] * len(length)
    low = int(off[length > 0].min())
    stretch = data[low : int((off + length).max())].tobytes()
    starts = (off - low).tolist()
    return [stretch[start:end] for start, end in zip(starts, (off + length - low).tolist(), strict=True)]


@dataclass(frozen=True, slots=True)
class Ragged:
    """A set-valued column: report i has elements [start[i], start[i] + count[i]).

    Elements are 128-bit (hi, lo). Ports: lo. Addresses: IPv6 as it is, IPv4 as its IPv4-mapped form, so that
    both families live in one order. Numbers: lo = `key_of`. Strings: lo = the word's index in the schema's
    vocabulary, or UNKNOWN_WORD.
    """

    start: I4  # [n]
    count: I4  # [n] -1 = no datapoint; 0 = an empty set, which is one
    hi: U8  # [m]
    lo: U8  # [m]


@dataclass(frozen=True, slots=True)
class Columns:
    """The reports of one batch, decoded. Row i belongs to entry i of the frames; control entries are not ok."""

    ok: U1  # [n] 1 = a well-formed report
    report_id: I8  # [n] ABSENT where it could not be read
    scalars: I8  # [n, c] by `Schema.scalars`; ABSENT = no datapoint
    sets: tuple[Ragged, ...]  # by `Schema.sets`
    rejected: dict[int, "Rejected"]  # entry -> why
    ignored: int  # custom values that were accepted and dropped (undefined name, wrong type; spec.md §2.3)


@dataclass(frozen=True, slots=True)
class Events:
    """What brokers told in one batch, in the order of the log (`actors.events`): m facts, or sums of equal ones."""

    things: list[bytes]  # every thing once
    ips: list[str]  # every address once, canonical
    entry: I4  # [m] the log entry that brought it, ascending
    thing: I4  # [m] a place in `things`
    kind: U1  # [m] a place in `actors.events.KINDS`
    time: I8  # [m] ns, never after the entry's
    count: I8  # [m]
    least: I8  # [m] payload bytes of the smallest message,
    most: I8  # [m] of the largest,
    total: I8  # [m] and of all
    bits: U8  # [m] the dimensions that the topic lies in
    ip: I4  # [m] a place in `ips`, -1 = not told
    turn: I1  # [m] what it changes about who is connected (`actors.presence.BEGAN` …)
    source: U1  # [m] which broker told; as `Batch.sources`


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a report was refused: AWS's error code, a message that names the offending path, a counter label."""

    code: str  # InvalidPayload | Throttled
    message: str
    reason: str  # one of a fixed few: malformed, too-large, name, duplicate, throttled, table-full
    report_id: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of the log, decoded and gated; shared by all actors it concerns."""

    frames: Frames
    ts: I8  # [n] clamped: never going back
    columns: Columns
    names: list[bytes]  # [n] the thing of an entry, b"" for a control entry
    marks: I8  # [n] stands for the name in look-ups: a position at which that thing reported; 0 = it has none
    sources: U1  # [n] where a report came from: 0 = the log itself, else a bridge's number
    events: Events | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """What one actor gets of a batch: its reports, and the time of every entry, its own or not.

    Time passes for an actor with every entry of the log: windows close at the first entry at or after their
    end, whoever's it is. Hence the whole batch comes along.
    """

    batch: Batch
    first: int  # the share covers entries [first, last) of the batch
    last: int
    entries: I4  # [k] indices of the actor's accepted reports, within [first, last), increasing
    registered: U1  # [k] 1 = the thing is in the registry
    events: I4 = field(default_factory=lambda: NO_EVENTS)  # [j] indices into the batch's events, of the actor's things
    registered_things: U1 = field(default_factory=lambda: NO_THINGS)  # by place in `Events.things`


@dataclass(frozen=True, slots=True)
class Moment:
    """The log entry that is being looked at."""

    position: int
    ts: int  # ns


@dataclass(frozen=True, slots=True)
class Downtime:
    """Time during which nothing could be heard: not silence of the devices (design.md §4)."""

    position: int
    ts: int  # ns, of the entry
    since: int  # ns
    source: str  # "" = all
