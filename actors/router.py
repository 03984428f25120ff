"""Which reports count, and for whom: decode, turn away, route (design.md §4.2-4.4).

The router is itself an actor: its state (the gate, the last time seen) is a function of the log.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numba import njit

from actors.columns import Schema, decode_frames
from actors.event_columns import Heard, event_columns, source_number
from actors.gate import ADMITTED, DUPLICATE, TABLE_FULL, TOO_SOON, Gate
from actors.messages import (
    ABSENT,
    BRIDGED,
    CONTROL,
    COPIED,
    I4,
    I8,
    NAME_ENCODED,
    U1,
    Batch,
    Events,
    Frames,
    Rejected,
    Share,
)
from actors.numbers import thing_name
from actors.plan import GroupPlan, Registry
from actors.presence import Presence
from actors.topic_filters import TopicFilters
from config.model import NS, Limits, Rules

HOUR_NS: Final = 3600 * NS
NAME_BYTES_MAX: Final = 128
NETWORK_COLUMNS: Final = 4  # bytes_in, bytes_out, packets_in, packets_out come first in every schema


@dataclass(frozen=True, slots=True)
class Routed:
    """One batch, judged at the door: whose it is, and the verdict on every report."""

    batch: Batch
    shares: Mapping[str, Share]  # by actor; every actor has one, if only for the time that passes
    reports: I4  # entries that are reports
    rejected: Mapping[int, Rejected]  # entry -> why; the other reports were accepted


class Router:
    """The door. `interval_default_s` is the floor between reports where the configuration states none."""

    def __init__(self, rules: Rules, schema: Schema, plans: Sequence[GroupPlan], interval_default_s: float) -> None:
        self.last_ts = 0
        self.gate = Gate(rules.limits, interval_default_s)
        self.presence = Presence(rules.clients, rules.limits.things_max)
        self.heard = Heard()
        self._flushed = 0  # of topic filters that were replaced
        self.filters = TopicFilters(())
        self.configure(rules, schema, plans, Registry(rules.fleet))

    def configure(self, rules: Rules, schema: Schema, plans: Sequence[GroupPlan], registry: Registry) -> None:
        """Take new rules; what is remembered of things stays."""
        self.schema, self._limits, self.registry = schema, rules.limits, registry
        self._keys = [plan.key for plan in plans]
        self.gate.configure(rules.limits)
        self.presence.configure(rules.clients, rules.limits.things_max)
        self._flushed += self.filters.flushed
        self.filters = TopicFilters(rules.dimensions, parent_too=rules.limits.topic_filters == "mqtt")
        codes = range(len(registry.groups))
        members = [[registry.covers_code(plan.targets, code) for plan in plans] for code in codes]
        self._members = np.array(members, bool).reshape(len(codes), len(plans))  # [code, actor]

    @property
    def flushed(self) -> int:
        """Times that the cache of topics was full."""
        return self._flushed + self.filters.flushed

    def route(self, frames: Frames, *, admitted: bool = False) -> Routed:
        """Decode and admit the reports of a run of log entries, and cut it into shares.

        `admitted`: they passed the gate before, and are judged again.
        """
        columns = decode_frames(frames, self.schema, self._limits)
        ts = np.maximum.accumulate(np.maximum(frames.ts, self.last_ts))
        names, unnamed = _names(frames)
        rejected = {**columns.rejected, **unnamed}
        accepted = np.flatnonzero(columns.ok).astype(np.int32)
        if unnamed:
            accepted = accepted[~np.isin(accepted, list(unnamed))]
        events = event_columns(frames, ts, self.presence, self.filters, self.heard, again=admitted)
        batch = Batch(frames, ts, columns, names, np.zeros(len(frames), np.int64), _sources(frames), events)
        if not admitted:
            accepted = self._admit(batch, accepted, rejected)
        self.last_ts = int(ts[-1])
        reports = np.flatnonzero(frames.kind != CONTROL).astype(np.int32)
        return Routed(batch, self._shares(batch, names, accepted), reports, rejected)

    def _admit(self, batch: Batch, entries: I4, rejected: dict[int, Rejected]) -> I4:
        """The gate, entry by entry in order; it forgets idle names on full hours of the log's time."""
        kept: list[I4] = []
        before = self.last_ts // HOUR_NS
        for hour, piece in _by_hour(batch.ts, entries):
            if hour != before:
                self.gate.forget_idle(hour * HOUR_NS)
                self.presence.forget_idle(hour * HOUR_NS)
            before = hour
            if len(piece):
                kept.append(self._admit_piece(batch, piece, rejected))
        return kept[0] if len(kept) == 1 else np.concatenate([entries[:0], *kept])

    def _admit_piece(self, batch: Batch, piece: I4, rejected: dict[int, Rejected]) -> I4:
        """Also writes the marks of the piece."""
        frames, columns, names = batch.frames, batch.columns, batch.names
        flags, times = frames.flags[piece], batch.ts[piece]
        if flags.any():
            times = np.where(flags & COPIED, frames.origin[piece], times)
        named = names if len(piece) == len(names) else [names[entry] for entry in piece.tolist()]
        verdicts, first, batch.marks[piece] = self.gate.admit(
            named, frames.seq[piece], columns.report_id[piece], times, flags
        )
        if self._limits.skip_first_counters:
            columns.scalars[piece[first == 1], :NETWORK_COLUMNS] = ABSENT
        if not verdicts.any():  # all ADMITTED, as a rule
            return piece
        for k in np.flatnonzero(verdicts != ADMITTED).tolist():
            entry = int(piece[k])
            rejected[entry] = _refusal(int(verdicts[k]), int(columns.report_id[entry]), self._limits)
        kept: I4 = piece[verdicts == ADMITTED]
        return kept

    def _shares(self, batch: Batch, names: list[bytes], accepted: I4) -> dict[str, Share]:
        find = self.registry.codes.get
        codes = np.array([find(names[entry], 0) for entry in accepted.tolist()], np.int32)
        registered = (codes > 0).astype(np.uint8)
        shares = {}
        for actor, key in enumerate(self._keys):
            mine = self._members[codes, actor]
            everyone = bool(mine.all())
            entries, flags = (accepted, registered) if everyone else (accepted[mine], registered[mine])
            shares[key] = Share(batch, 0, len(batch.frames), entries, flags)
        return shares if batch.events is None else self._event_shares(batch.events, shares)

    def _event_shares(self, events: Events, shares: dict[str, Share]) -> dict[str, Share]:
        """Give each actor the events of its things."""
        codes = np.array([self.registry.codes.get(thing, 0) for thing in events.things], np.int32)
        registered = (codes > 0).astype(np.uint8)
        chosen = {
            key: np.flatnonzero(self._members[codes, actor][events.thing]).astype(np.int32)
            for actor, key in enumerate(self._keys)
        }
        return {key: replace(share, events=chosen[key], registered_things=registered) for key, share in shares.items()}

    def dump(self) -> dict[str, Any]:
        return {"last_ts": self.last_ts, "gate": self.gate.dump(), "presence": self.presence.dump()}

    def load(self, state: dict[str, Any]) -> None:
        self.last_ts = state["last_ts"]
        self.gate.load(state["gate"])
        if "presence" in state:  # else of a version that heard no brokers
            self.presence.load(state["presence"])


def _by_hour(ts: I8, entries: I4) -> Iterator[tuple[int, I4]]:
    """The hours that a run of entries touches, and which of `entries` lie in each."""
    if int(ts[0]) // HOUR_NS == int(ts[-1]) // HOUR_NS:
        yield int(ts[0]) // HOUR_NS, entries
        return
    hours = ts // HOUR_NS
    for hour in np.unique(hours).tolist():
        yield hour, entries[hours[entries] == hour]


def _names(frames: Frames) -> tuple[list[bytes], dict[int, Rejected]]:
    """The thing of every entry, and the reports whose name is not one."""
    names = frames.tokens() if len(frames) > 1 else [frames.token(0)]
    odd = np.zeros(len(frames), np.uint8)
    if not _mark_odd(frames.data, frames.kind, frames.flags, frames.name_off, frames.name_len, _PLAIN, odd):
        return names, {}
    unnamed = {}
    for entry in np.flatnonzero(odd).tolist():
        name = thing_name(names[entry], bool(frames.flags[entry] & BRIDGED))
        if name is None:
            unnamed[entry] = Rejected(
                "InvalidPayload", "the thing's name is not 1-128 bytes of printable UTF-8", "name"
            )
        names[entry] = name or b""
    return names, unnamed


@njit("b1(u1[::1],u1[::1],u1[::1],i4[::1],i4[::1],u1[::1],u1[::1])", nogil=True, cache=True)
def _mark_odd(data: U1, kind: U1, flags: U1, name_off: I4, name_len: I4, plain: U1, odd: U1) -> bool:
    """Mark the reports whose name token is not plainly a name; whether there is any."""
    found = False
    for i in range(len(kind)):
        if kind[i] == CONTROL:
            continue
        is_odd = name_len[i] > NAME_BYTES_MAX or flags[i] & NAME_ENCODED != 0
        for place in range(name_off[i], name_off[i] + name_len[i]):
            is_odd |= plain[data[place]] == 0
        if is_odd:
            odd[i] = 1
            found = True
    return found


_PLAIN: Final = np.zeros(256, np.uint8)  # bytes that need no second look
_PLAIN[list(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-:")] = 1


def _sources(frames: Frames) -> U1:
    """0 = reported to the log's own broker, 1… = a bridge, by a number made of its name."""
    sources = np.zeros(len(frames), np.uint8)
    for entry in np.flatnonzero(frames.flags & BRIDGED).tolist():
        sources[entry] = source_number(frames.subject(entry).split(".")[3])
    return sources


def _refusal(verdict: int, report_id: int, limits: Limits) -> Rejected:
    match verdict:
        case _ if verdict == DUPLICATE:
            return Rejected("InvalidPayload", f"report_id {report_id} was accepted before", "duplicate", report_id)
        case _ if verdict == TOO_SOON:
            interval = limits.report_interval_s
            floor = "300" if interval is None else f"{interval:g}"
            return Rejected("Throttled", f"reports must be at least {floor} s apart", "throttled", report_id)
        case _ if verdict == TABLE_FULL:
            message = f"more than {limits.things_max} things are reporting (limits.things_max)"
            return Rejected("Throttled", message, "table-full", report_id)
    raise AssertionError(verdict)
