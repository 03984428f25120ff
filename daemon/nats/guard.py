"""Which acknowledged reports the log lacks, and how they get into it: the guard is compared with the log.

nats-server hands a publish to the log's queue, stores it in the guard, and acknowledges. The queue dies with the
server, so after a crash the log may lack the newest of what the guard has (design.md §2). For one publisher both
streams have the same order, hence what is missing is copied in the guard's order.

*Marks* keep the comparison short. A mark says: all that the guard had up to `guard_seq` is in the log before this
entry. It is true while devices publish as well, because the log's queue is first in, first out, and the mark goes
through it after `guard_seq` was read. An entry may reach the log before it reaches the guard (nats-server 2.15
has hundreds of a publisher's on the way), so a comparison begins at an earlier mark, one that was written longer
before than nats-server waits for its own store (5 s): what was on its way then has arrived, or was never promised.
"""

from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from config.model import NS
from daemon.clock import Clock
from daemon.log.stream_read import Draft, Entry, append, append_all, read
from daemon.log.streams import GUARD, GUARD_PREFIX, REPORTS, JetStreamError, LogIdentity, api, instant_ns

FIRST_TIME: Final = "Detectd-First-Time"
MARK_SUBJECT: Final = "detectd.log.reconciled"
BARRIER_SUBJECT: Final = "detectd.log.barrier"

_GUARDED: Final = tuple(GUARD_PREFIX + subject for subject in REPORTS)
_NOT_FOUND: Final = 10037
# How much earlier than in the guard an entry may be in the log: nats-server waits 5 s for the guard to store.
_LEAD_NS: Final = 6 * NS
_LONG: Final = 100_000


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What a mark says. A comparison based on it takes guard entries > since_guard, log entries > since_log."""

    guard: str  # which guard: when it was created, RFC 3339
    guard_seq: int
    since_guard: int
    since_log: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A mark, its position in the log, and when it was written (ns)."""

    mark: Mark
    seq: int
    ts_ns: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    copied: int
    looked_at: int  # guard entries that were compared
    unguarded: int  # entries after the last mark that the guard had dropped: nothing to compare them with
    placed: Placed

    def counts(self) -> dict[str, object]:
        return {"copied": self.copied, "looked_at": self.looked_at, "unguarded": self.unguarded}


async def reconcile(nc: Client, identity: LogIdentity, clock: Clock) -> Reconciled:
    """Copy into the log what the guard has and the log lacks; then write a mark.

    May be killed anywhere and run again: copies carry the guard's position as their Nats-Msg-Id and are recognised.
    While devices publish it loses and doubles nothing either, but a copy then stands behind younger entries of its
    thing. Raises JetStreamError, nats.errors.Error, TimeoutError.
    """
    guard = _guard_state(await api(nc, f"STREAM.INFO.{GUARD}"), clock)
    # All that the guard had a moment ago stands before the barrier, or nowhere.
    barrier = await append(nc, identity.stream, Draft(BARRIER_SUBJECT, b"{}", {}))
    log = await api(nc, f"STREAM.INFO.{identity.stream}")
    found = await last_mark(nc, identity)
    base = _base(found, guard, log)
    copied, looked_at = await _compare(nc, identity.stream, base, guard, barrier, log)
    unguarded = max(0, guard.first_seq - base.mark.guard_seq - 1)
    return Reconciled(copied, looked_at, unguarded, await _place(nc, identity, guard, base, clock))


async def settle(nc: Client, identity: LogIdentity, last: Placed, clock: Clock, unless: Callable[[], bool]) -> Placed:
    """Write a mark if the guard has grown since `last`; the newest mark.

    `unless` says whether the server lost something of what the guard has by then: no mark may claim it.
    """
    guard = _guard_state(await api(nc, f"STREAM.INFO.{GUARD}"), clock)
    if guard.id != last.mark.guard or guard.last_seq == last.mark.guard_seq or unless():
        return last
    return await _place(nc, identity, guard, last, clock)


async def last_mark(nc: Client, identity: LogIdentity) -> Placed | None:
    """The newest mark in the log."""
    try:
        found = await api(nc, f"STREAM.MSG.GET.{identity.stream}", {"last_by_subj": MARK_SUBJECT})
    except JetStreamError as error:
        if error.code == _NOT_FOUND:
            return None
        raise
    message = found["message"]
    written = instant_ns(message["time"])
    return Placed(msgspec.json.decode(b64decode(message["data"]), type=Mark), message["seq"], written)


@dataclass(frozen=True, slots=True)
class _Guard:
    id: str
    first_seq: int
    last_seq: int
    seen_ns: int  # when its last_seq was read


def _guard_state(info: dict[str, Any], clock: Clock) -> _Guard:
    state = info["state"]
    return _Guard(info["created"], state["first_seq"], state["last_seq"], clock.now_ns())


async def _compare(
    nc: Client, stream: str, base: Placed, guard: _Guard, barrier: int, log: dict[str, Any]
) -> tuple[int, int]:
    first = await _first_guarded_ns(nc, base.mark.since_guard)
    if first is None:
        return 0, 0
    span = _Span(base, first, barrier, log)
    present = await _present(nc, stream, span)
    after = base.mark.since_guard
    if span.cut_ns:
        after = await _first_kept(nc, base, guard, present, span.cut_ns) - 1
    return await _copy_missing(nc, stream, after, base, guard, present)


async def _first_guarded_ns(nc: Client, after: int) -> int | None:
    """When the first report after this guard position was stored; None: there is none, hence nothing to compare."""
    request = {"seq": after + 1, "next_by_subj": f"{GUARD_PREFIX}$aws.things.*.defender.metrics.*"}
    try:
        found = await api(nc, f"STREAM.MSG.GET.{GUARD}", request)
    except JetStreamError as error:
        if error.code == _NOT_FOUND:
            return None
        raise
    return instant_ns(found["message"]["time"])


def _base(found: Placed | None, guard: _Guard, log: dict[str, Any]) -> Placed:
    if found is not None and found.mark.guard == guard.id:
        return found
    # The first mark is laid before devices come. A log without one has dropped it, and is compared as far as it
    # goes; or it is younger than the guard, whose reports were another log's.
    is_new = log["state"]["first_seq"] <= 1
    settled = guard.last_seq if is_new else 0
    return Placed(Mark(guard=guard.id, guard_seq=settled, since_guard=settled, since_log=0), 0, 0)


class _Span:
    """The part of the log that is compared, and whether the log has already dropped some of it."""

    def __init__(self, base: Placed, first_ns: int, barrier: int, log: dict[str, Any]) -> None:
        self.after = base.mark.since_log
        self.before = barrier
        log_ns = instant_ns(log["state"]["first_ts"])
        is_cut = log["state"]["first_seq"] > self.after + 1 and log_ns > first_ns - _LEAD_NS
        self.cut_ns = log_ns if is_cut else 0
        # After a long absence millions of entries may lie between the mark and the first report that is compared.
        # Elsewhere positions are better than times: a clock may have been set back.
        self.since = _time(first_ns - _LEAD_NS) if barrier - self.after > _LONG else None


@dataclass(slots=True)
class _Present:
    """What the log has of the reports that came with a promise (QoS 1 or 2)."""

    originals: Counter[bytes] = field(default_factory=Counter)
    copies: set[str] = field(default_factory=set)  # by Nats-Msg-Id

    def add(self, entry: Entry) -> None:
        if FIRST_TIME in entry.headers:
            self.copies.add(entry.headers.get("Nats-Msg-Id", ""))
        elif entry.headers.get("Nmqtt-Pub", "0") != "0":
            self.originals[_digest(entry.subject, entry.payload)] += 1

    def has(self, entry: Entry) -> bool:
        return self.originals[_guarded_digest(entry)] > 0

    def take(self, entry: Entry, copy_id: str) -> bool:
        """Whether the log has this guard entry; one log entry answers for one guard entry."""
        if copy_id in self.copies:
            return True
        key = _guarded_digest(entry)
        self.originals[key] -= (found := self.originals[key] > 0)
        return found


async def _present(nc: Client, stream: str, span: _Span) -> _Present:
    present = _Present()
    async with aclosing(read(nc, stream, REPORTS, after=span.after, since=span.since, last=span.before)) as batches:
        async for batch in batches:
            for entry in batch:
                present.add(entry)
    return present


async def _copy_missing(
    nc: Client, stream: str, after: int, base: Placed, guard: _Guard, present: _Present
) -> tuple[int, int]:
    copied = looked_at = 0
    async with aclosing(read(nc, GUARD, _GUARDED, after=after, since=None, last=guard.last_seq)) as batches:
        async for batch in batches:
            # Taken before the position is looked at: a settled entry uses up its log entry all the same.
            lacking = [entry for entry in batch if not present.take(entry, _copy_id(guard, entry))]
            drafts = [_copy(guard, entry) for entry in lacking if entry.seq > base.mark.guard_seq]
            await append_all(nc, stream, drafts)
            copied += len(drafts)
            looked_at += len(batch)
    return copied, looked_at


async def _first_kept(nc: Client, base: Placed, guard: _Guard, present: _Present, cut_ns: int) -> int:
    """Before which guard entry the log's own limits have dropped all, in a log that they have cut.

    That is where the two first meet; if they don't, where the log begins in time. To look by time alone would
    bring back what was dropped: the guard may have stored an entry a little later than the log.
    """
    by_time = guard.last_seq + 1
    span = read(nc, GUARD, _GUARDED, after=base.mark.since_guard, since=None, last=guard.last_seq)
    async with aclosing(span) as batches:
        async for batch in batches:
            for entry in batch:
                if present.has(entry):
                    return entry.seq
                if entry.ts_ns >= cut_ns:
                    by_time = min(by_time, entry.seq)
    return by_time


def _copy(guard: _Guard, entry: Entry) -> Draft:
    headers = {FIRST_TIME: str(entry.ts_ns), "Nats-Msg-Id": _copy_id(guard, entry)}
    return Draft(entry.subject.removeprefix(GUARD_PREFIX), entry.payload, headers)


def _copy_id(guard: _Guard, entry: Entry) -> str:
    return f"guard-{guard.id}-{entry.seq}"


async def _place(nc: Client, identity: LogIdentity, guard: _Guard, last: Placed, clock: Clock) -> Placed:
    since = (last.mark.guard_seq, last.seq)
    if guard.seen_ns - last.ts_ns < _LEAD_NS:
        since = (last.mark.since_guard, last.mark.since_log)
    mark = Mark(guard=guard.id, guard_seq=guard.last_seq, since_guard=since[0], since_log=since[1])
    seq = await append(nc, identity.stream, Draft(MARK_SUBJECT, msgspec.json.encode(mark), {}))
    return Placed(mark, seq, clock.now_ns())


def _guarded_digest(entry: Entry) -> bytes:
    return _digest(entry.subject.removeprefix(GUARD_PREFIX), entry.payload)


def _digest(subject: str, payload: bytes) -> bytes:
    return blake2b(b"%b\0%b" % (subject.encode(), payload), digest_size=16).digest()


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / NS, UTC)
