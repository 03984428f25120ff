"""The lists of violations (spec.md §7.2): filters, newest first, pages that stay put while others write.

A page looks at no more than `SCAN_MAX` rows, so that a filter that hardly anything passes costs no more than another:
then it is short, and its `place` says where the next one goes on.
"""
# ruff: noqa: S608 - what is put into the SQL text are constants of ours and enumerations that were checked

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import msgspec

from actors import notice as told
from actors.effects import EventType
from daemon.violations import VIOLATION, Violation, read_violation

Con = sqlite3.Connection
CriteriaType = Literal["STATIC", "STATISTICAL", "MACHINE_LEARNING"]
State = Literal["FALSE_POSITIVE", "BENIGN_POSITIVE", "TRUE_POSITIVE", "UNKNOWN"]

SCAN_MAX: Final = 1000


class EventPlace(NamedTuple):
    """The last row that a page looked at."""

    time_ns: int
    id: int


class ActivePlace(NamedTuple):
    """Likewise, of open violations."""

    start_ns: int
    violation_id: str


class ViolationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event (spec.md §7.1). `id` is unique, and increasing in the order of storing.

    What the event was told with stays JSON, as AWS spells it: a page of 250 is passed on and not read.
    """

    id: int
    event_id: str
    violation_id: str
    event_type: EventType
    profile: str
    thing: str
    behavior: msgspec.Raw
    value: msgspec.Raw | None
    additional_info: msgspec.Raw | None
    time_ns: int
    position: int
    reason: str
    verification_state: str
    verification_description: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which violations: all filters hold; None asks for nothing. `suppressed` None is everything (spec.md §7.2)."""

    thing: str | None = None
    profile: str | None = None
    criteria_type: CriteriaType | None = None
    suppressed: bool | None = None
    verification_state: State | None = None


def events(
    con: Con, since_ns: int, until_ns: int, wanted: Wanted, before: EventPlace | None, limit: int
) -> tuple[list[ViolationEvent], EventPlace | None]:
    """Events with since ≤ time ≤ until, newest first, and where the next page begins; None: this was the last."""
    scan, values = _event_scan(since_ns, until_ns, wanted, before)
    clauses, more = _clauses(wanted)
    sql = f"SELECT time_ns, id FROM ({scan}) WHERE {clauses} LIMIT ?"
    found = [EventPlace(*row) for row in con.execute(sql, (*values, *more, limit + 1))]
    if len(found) > limit:
        return _events(con, found[:limit]), found[limit - 1]
    last = con.execute(f"SELECT time_ns, id FROM ({scan}) LIMIT 1 OFFSET {SCAN_MAX - 1}", values).fetchone()
    return _events(con, found), EventPlace(*last) if last else None


def _event_scan(since_ns: int, until_ns: int, wanted: Wanted, before: EventPlace | None) -> tuple[str, Sequence[Any]]:
    """The rows to look at, newest first, by the index that leaves the fewest."""
    values: tuple[Any, ...] = ()
    match wanted:
        case Wanted(thing=str(thing)):
            index, where, values = "events_of_thing", "thing = ?", (thing,)
        case Wanted(verification_state=str(state)) if state != told.UNKNOWN:
            # A partial index is taken only where its own condition stands in the query as it is.
            index, where = "events_verified", f"verification_state <> 'UNKNOWN' AND verification_state = '{state}'"
        case Wanted(criteria_type=str(kind)) if kind != "STATIC":
            index, where = "events_not_static", f"criteria_type <> 'STATIC' AND criteria_type = '{kind}'"
        case Wanted(profile=str(profile)):
            index, where, values = "events_of_profile", "profile = ?", (profile,)
        case Wanted(suppressed=True):
            index, where = "events_suppressed", "suppressed = 1"
        case _:
            index, where = "events_by_time", "1"
    sql = (
        f"SELECT {', '.join(('time_ns', 'id', *_asked(wanted)))} FROM events "  # no others: they may be in the index
        f"INDEXED BY {index} WHERE {where} AND time_ns >= ? AND (time_ns, id) < (?, ?) "
        f"ORDER BY time_ns DESC, id DESC LIMIT {SCAN_MAX}"
    )
    end = (until_ns + 1, 0)
    return sql, (*values, since_ns, *(end if before is None else min(before, end)))


def _events(con: Con, places: Sequence[EventPlace]) -> list[ViolationEvent]:
    marks = ",".join("?" * len(places))
    rows = con.execute(
        "SELECT e.id, e.event_id, e.violation_id, e.event_type, e.profile, e.thing, e.time_ns, e.position, e.reason, "
        "e.message, e.verification_state, v.verification_description "
        "FROM events e JOIN violations v ON v.violation_id = e.violation_id "
        f"WHERE e.id IN ({marks})",
        [place.id for place in places],
    )
    found = {row[0]: row for row in rows}  # in no order: to sort 250 rows with their messages costs SQLite a fifth
    return [_read_event(found[place.id]) for place in places if place.id in found]


NOTHING: Final = msgspec.Raw(b"")  # a member that is absent: msgspec knows no optional Raw


class _Told(msgspec.Struct, frozen=True, rename="camel"):
    """Of the stored message (`actors.notice.Message`), what is not in columns."""

    behavior: msgspec.Raw
    metric_value: msgspec.Raw = NOTHING
    violation_event_additional_info: msgspec.Raw = NOTHING


_told = msgspec.json.Decoder(_Told)


def _read_event(row: tuple[Any, ...]) -> ViolationEvent:
    row_id, name, violation_id, event_type, profile, thing, time_ns, position, reason, text, state, description = row
    message = _told.decode(text)
    return ViolationEvent(
        id=row_id,
        event_id=name,
        violation_id=violation_id,
        event_type=event_type,
        profile=profile,
        thing=thing,
        behavior=message.behavior,
        value=_present(message.metric_value),
        additional_info=_present(message.violation_event_additional_info),
        time_ns=time_ns,
        position=position,
        reason=reason,
        verification_state=state,
        verification_description=description,
    )


def _present(member: msgspec.Raw) -> msgspec.Raw | None:
    return None if member == NOTHING else member


def active(
    con: Con, wanted: Wanted, before: ActivePlace | None, limit: int
) -> tuple[list[Violation], ActivePlace | None]:
    """Open violations, the newest first, and where the next page begins; None: this was the last."""
    scan, values = _active_scan(wanted, before)
    clauses, more = _clauses(wanted)
    rows = con.execute(
        f"SELECT {VIOLATION} FROM ({scan}) WHERE {clauses} LIMIT ?", (*values, *more, limit + 1)
    ).fetchall()
    found = [read_violation(row) for row in rows]
    if len(found) > limit:
        return found[:limit], ActivePlace(found[limit - 1].start_ns, found[limit - 1].violation_id)
    last = con.execute(f"SELECT start_ns, violation_id FROM ({scan}) LIMIT 1 OFFSET {SCAN_MAX - 1}", values).fetchone()
    return found, ActivePlace(*last) if last else None


def _active_scan(wanted: Wanted, before: ActivePlace | None) -> tuple[str, Sequence[Any]]:
    values: tuple[Any, ...] = ()
    index, where = "violations_open", "1"
    if wanted.thing is not None:
        index, where, values = "violations_open_of_thing", "thing = ?", (wanted.thing,)
    sql = (
        f"SELECT {VIOLATION}, criteria_type, suppressed FROM violations INDEXED BY {index} WHERE {where} "
        "AND end_ns IS NULL AND (start_ns, violation_id) < (?, ?) "
        f"ORDER BY start_ns DESC, violation_id DESC LIMIT {SCAN_MAX}"
    )
    return sql, (*values, *(before or (2**63 - 1, "")))


def _clauses(wanted: Wanted) -> tuple[str, Sequence[Any]]:
    asked = _asked(wanted)
    return " AND ".join(f"{name} = ?" for name in asked) or "1", tuple(asked.values())


def _asked(wanted: Wanted) -> dict[str, Any]:
    """Column -> the value that it must have."""
    filters = {
        "thing": wanted.thing,
        "profile": wanted.profile,
        "criteria_type": wanted.criteria_type,
        "suppressed": wanted.suppressed,
        "verification_state": wanted.verification_state,
    }
    return {name: value for name, value in filters.items() if value is not None}
