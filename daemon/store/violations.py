"""Violations and their events in SQL: what a transition changes (the lists: `daemon/store/lists.py`).

Plain functions of a connection, run by the store's writer or a reader. An event is recognised by its id: the log
may be read again after a crash.
"""
# ruff: noqa: S608 - what is put into the SQL text are constants of ours; values are parameters

import sqlite3
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from actors import notice as told
from actors.effects import Transition
from actors.notice import Notice
from config.model import Behavior, MetricValue
from daemon.store import outbox

Con = sqlite3.Connection

EXPIRE_CHUNK: Final = 100


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One episode of an alarm (spec.md §7.1); `end_ns` is None while it is open."""

    violation_id: str
    profile: str
    thing: str
    registered: bool
    behavior: Behavior
    start_ns: int
    last_violation_ns: int
    last_violation_value: MetricValue | None
    end_ns: int | None
    verification_state: str
    verification_description: str | None
    verified_ns: int | None


@dataclass(frozen=True, slots=True)
class Committed:
    event_ids: list[str]
    notices: list[Notice]


def commit(
    con: Con, routed: Sequence[tuple[Transition, Sequence[str]]], positions: Mapping[str, int], now_ns: int
) -> Committed:
    done = Committed([], [])
    for transition, receivers in routed:
        verified = _verified(con, transition)
        body = told.message(transition, verified.state)
        if _insert_event(con, transition, body, verified):
            _insert_violation(con, transition)
            done.event_ids.append(told.event_id(transition.violation_id, transition.event_type))
            done.notices.extend(outbox.enqueue(con, transition, receivers, body, now_ns))
    put_positions(con, positions)
    return done


def invalidate_open(con: Con, reason: str, now_ns: int, only: AbstractSet[str] | None = None) -> Committed:
    """End every open alarm, or those of `only`, and tell those who were told of it, whoever would be told today."""
    ends = [_end(one, reason, now_ns) for one in active(con) if only is None or one.violation_id in only]
    return commit(con, [(end, tuple(outbox.told_of(con, end.violation_id))) for end in ends], {}, now_ns)


def _end(violation: Violation, reason: str, now_ns: int) -> Transition:
    return Transition(
        event_type="alarm-invalidated",
        violation_id=violation.violation_id,
        profile=violation.profile,
        behavior=violation.behavior,
        thing=violation.thing,
        registered=violation.registered,
        time_ns=now_ns,
        value=None,
        start_ns=violation.start_ns,
        last_violation_ns=violation.last_violation_ns,
        last_violation_value=violation.last_violation_value,
        position=0,
        reason=reason,
    )


class _Verified(NamedTuple):
    """What people made of a violation so far."""

    state: str
    description: str | None


_NOT_VERIFIED: Final = _Verified(told.UNKNOWN, None)


def _verified(con: Con, transition: Transition) -> _Verified:
    if transition.event_type == "in-alarm":
        return _NOT_VERIFIED
    row = con.execute(
        "SELECT verification_state, verification_description FROM violations WHERE violation_id = ?",
        (transition.violation_id,),
    ).fetchone()
    return _Verified(*row) if row else _NOT_VERIFIED


def _insert_event(con: Con, t: Transition, body: bytes, verified: _Verified) -> bool:
    """False: it is stored already."""
    return (
        con.execute(
            "INSERT OR IGNORE INTO events (event_id, violation_id, event_type, profile, thing, criteria_type, "
            "suppressed, time_ns, position, reason, message, verification_state, verification_description) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                told.event_id(t.violation_id, t.event_type),
                t.violation_id,
                t.event_type,
                t.profile,
                t.thing,
                told.criteria_type(t.behavior),
                bool(t.behavior.suppress_alerts),
                t.time_ns,
                t.position,
                t.reason,
                body.decode(),
                *verified,
            ),
        ).rowcount
        > 0
    )


def _insert_violation(con: Con, t: Transition) -> None:
    """What the episode is after this event. An end whose beginning is unknown (another store's) is a row too."""
    end_ns = None if t.event_type == "in-alarm" else t.time_ns
    con.execute(
        "INSERT INTO violations (violation_id, profile, thing, registered, behavior_name, behavior, criteria_type, "
        "suppressed, start_ns, last_violation_ns, last_value, end_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (violation_id) DO UPDATE SET behavior = excluded.behavior, suppressed = excluded.suppressed, "
        "criteria_type = excluded.criteria_type, end_ns = excluded.end_ns, "
        "last_violation_ns = excluded.last_violation_ns, last_value = excluded.last_value",
        (
            t.violation_id,
            t.profile,
            t.thing,
            t.registered,
            t.behavior.name,
            msgspec.json.encode(t.behavior).decode(),
            told.criteria_type(t.behavior),
            bool(t.behavior.suppress_alerts),
            t.start_ns,
            t.last_violation_ns,
            _json(t.last_violation_value),
            end_ns,
        ),
    )


def _json(value: MetricValue | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def put_positions(con: Con, positions: Mapping[str, int]) -> None:
    # max(): a position noted a while ago may be written after a later one.
    con.executemany(
        "INSERT INTO positions VALUES (?, ?) "
        "ON CONFLICT (actor) DO UPDATE SET position = max(position, excluded.position)",
        positions.items(),
    )


def touch(con: Con, touched: Mapping[str, tuple[int, MetricValue | None]], noted: Mapping[str, int]) -> None:
    con.executemany(
        "UPDATE violations SET last_violation_ns = ?1, last_value = ?2 WHERE violation_id = ?3 "
        "AND last_violation_ns < ?1 AND end_ns IS NULL",
        [(at_ns, _json(value), name) for name, (at_ns, value) in touched.items()],
    )
    put_positions(con, noted)


VIOLATION: Final = (
    "violation_id, profile, thing, registered, behavior, start_ns, last_violation_ns, last_value, end_ns, "
    "verification_state, verification_description, verified_ns"
)
_behavior = msgspec.json.Decoder(Behavior)
_value = msgspec.json.Decoder(MetricValue)


def active(con: Con) -> list[Violation]:
    rows = con.execute(f"SELECT {VIOLATION} FROM violations WHERE end_ns IS NULL ORDER BY start_ns, violation_id")
    return [read_violation(row) for row in rows]


def violation(con: Con, violation_id: str) -> Violation | None:
    row = con.execute(f"SELECT {VIOLATION} FROM violations WHERE violation_id = ?", (violation_id,)).fetchone()
    return None if row is None else read_violation(row)


def read_violation(row: tuple[Any, ...]) -> Violation:
    """The violation of a row of `VIOLATION`."""
    name, profile, thing, registered, behavior, start_ns, last_ns, value, end_ns, state, description, verified = row
    return Violation(
        violation_id=name,
        profile=profile,
        thing=thing,
        registered=bool(registered),
        behavior=_behavior.decode(behavior),
        start_ns=start_ns,
        last_violation_ns=last_ns,
        last_violation_value=None if value is None else _value.decode(value),
        end_ns=end_ns,
        verification_state=state,
        verification_description=description,
        verified_ns=verified,
    )


def verify(con: Con, violation_id: str, state: str, description: str | None, now_ns: int) -> bool:
    changed = con.execute(
        "UPDATE violations SET verification_state = ?, verification_description = ?, verified_ns = ? "
        "WHERE violation_id = ?",
        (state, description, now_ns, violation_id),
    )
    con.execute(
        "UPDATE events SET verification_state = ?, verification_description = ? WHERE violation_id = ?",
        (state, description, violation_id),
    )
    return changed.rowcount > 0


def expire(con: Con, before_ns: int) -> int:
    """Remove one chunk of violations that ended before `before_ns`; how many."""
    chunk = con.execute(
        "SELECT violation_id FROM violations WHERE end_ns < ? ORDER BY end_ns LIMIT ?", (before_ns, EXPIRE_CHUNK)
    ).fetchall()
    for table in ("outbox", "events", "violations"):
        con.executemany(f"DELETE FROM {table} WHERE violation_id = ?", chunk)
    return len(chunk)
