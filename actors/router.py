"""Which reports count, and for whom: decode, turn away, route (design.md §4.2-4.4).

The router is itself an actor: its state (the gate, the last time seen) is a function of the log.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from actors.columns import Schema, decode_frames
from actors.gate import ADMITTED, DUPLICATE, TABLE_FULL, TOO_SOON, Gate
from actors.messages import ABSENT, BRIDGED, CONTROL, I4, I8, NAME_ENCODED, U1, Batch, Columns, Frames, Rejected, Share
from actors.numbers import thing_name
from actors.plan import GroupPlan, Registry
from config.model import NS, Limits, Rules

HOUR_NS: Final = 3600 * NS
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
        self.configure(rules, schema, plans)

    def configure(self, rules: Rules, schema: Schema, plans: Sequence[GroupPlan]) -> None:
        """Take new rules; what is remembered of things stays."""
        self.schema, self._limits = schema, rules.limits
        self.registry = Registry(rules.fleet)
        self._keys = [plan.key for plan in plans]
        self.gate.configure(rules.limits)
        # Things with the same memberships share a code: 0 = not registered, else a registered kind of thing.
        codes: dict[frozenset[str] | None, int] = {None: 0}
        self._code_of: dict[bytes, int] = {}
        members = [[self.registry.covers(plan.targets, "", registered=False) for plan in plans]]
        for thing, groups in self.registry.groups.items():
            if groups not in codes:
                codes[groups] = len(codes)
                members.append([self.registry.covers(plan.targets, thing, registered=True) for plan in plans])
            self._code_of[thing.encode()] = codes[groups]
        self._members = np.array(members, bool).reshape(len(codes), len(plans))  # [code, actor]

    def route(self, frames: Frames, *, admitted: bool = False) -> Routed:
        """Decode and admit the reports of a run of log entries, and cut it into shares.

        `admitted`: they passed the gate before, and are judged again.
        """
        columns = decode_frames(frames, self.schema, self._limits)
        ts = np.maximum.accumulate(np.maximum(frames.ts, self.last_ts))
        names, unnamed = _names(frames)
        rejected = {**columns.rejected, **unnamed}
        ok = columns.ok.astype(bool)
        ok[list(unnamed)] = False
        accepted = np.flatnonzero(ok).astype(np.int32)
        if not admitted:
            accepted = self._admit(frames, columns, ts, names, accepted, rejected)
        self.last_ts = int(ts[-1])
        batch = Batch(frames, ts, columns, names, _sources(frames))
        reports = np.flatnonzero(frames.kind != CONTROL).astype(np.int32)
        return Routed(batch, self._shares(batch, names, accepted), reports, rejected)

    def _admit(
        self, frames: Frames, columns: Columns, ts: I8, names: list[bytes], entries: I4, rejected: dict[int, Rejected]
    ) -> I4:
        """The gate, entry by entry in order; it forgets idle names on full hours of the log's time."""
        kept: list[I4] = []
        hours = ts // HOUR_NS
        before = self.last_ts // HOUR_NS
        for hour in np.unique(hours).tolist():
            if hour != before:
                self.gate.forget_idle(hour * HOUR_NS)
            before = hour
            piece = entries[hours[entries] == hour]
            if len(piece):
                times = np.where(frames.origin[piece] != frames.ts[piece], frames.origin[piece], ts[piece])
                named = [names[entry] for entry in piece.tolist()]
                verdicts, first = self.gate.admit(named, columns.report_id[piece], times, frames.flags[piece])
                for k in np.flatnonzero(verdicts != ADMITTED).tolist():
                    entry = int(piece[k])
                    rejected[entry] = _refusal(int(verdicts[k]), int(columns.report_id[entry]), self._limits)
                piece_kept = piece[verdicts == ADMITTED]
                if self._limits.skip_first_counters:
                    columns.scalars[piece[first == 1], :NETWORK_COLUMNS] = ABSENT
                kept.append(piece_kept)
        return np.concatenate(kept) if kept else entries[:0]

    def _shares(self, batch: Batch, names: list[bytes], accepted: I4) -> dict[str, Share]:
        find = self._code_of.get
        codes = np.array([find(names[entry], 0) for entry in accepted.tolist()], np.int32)
        registered = (codes > 0).astype(np.uint8)
        shares = {}
        for actor, key in enumerate(self._keys):
            mine = self._members[codes, actor]
            everyone = bool(mine.all())
            entries, flags = (accepted, registered) if everyone else (accepted[mine], registered[mine])
            shares[key] = Share(batch, 0, len(batch.frames), entries, flags)
        return shares

    def dump(self) -> dict[str, Any]:
        return {"last_ts": self.last_ts, "gate": self.gate.dump()}

    def load(self, state: dict[str, Any]) -> None:
        self.last_ts = state["last_ts"]
        self.gate.load(state["gate"])


def _names(frames: Frames) -> tuple[list[bytes], dict[int, Rejected]]:
    """The thing of every entry, and the reports whose name is not one."""
    names = frames.tokens()
    unnamed = {}
    for entry in _odd(frames, names):
        name = thing_name(names[entry], bool(frames.flags[entry] & BRIDGED))
        if name is None:
            unnamed[entry] = Rejected(
                "InvalidPayload", "the thing's name is not 1-128 bytes of printable UTF-8", "name"
            )
        names[entry] = name or b""
    return names, unnamed


def _odd(frames: Frames, names: list[bytes]) -> list[int]:
    """Reports whose name token is not plainly a name."""
    reports = frames.kind != CONTROL
    odd = reports & ((frames.name_len > 128) | (frames.name_len == 0) | (frames.flags & NAME_ENCODED != 0))
    if not _are_plain(b"".join(names)):  # one look at all, as a rule
        odd |= reports & ~np.array([bool(_are_plain(name)) for name in names])
    return np.flatnonzero(odd).tolist()


_are_plain: Final = re.compile(rb"[A-Za-z0-9_:-]*").fullmatch


def _sources(frames: Frames) -> U1:
    """0 = reported to the log's own broker, 1… = a bridge, by a number made of its name."""
    sources = np.zeros(len(frames), np.uint8)
    for entry in np.flatnonzero(frames.flags & BRIDGED).tolist():
        sources[entry] = source_number(frames.subject(entry).split(".")[3])
    return sources


def source_number(bridge: str) -> int:
    """A bridge's number, 1-255, the same in every run. Two may share one: then a pause of either is one of both."""
    return 1 + sum(bridge.encode()) % 255 if bridge else 0


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
