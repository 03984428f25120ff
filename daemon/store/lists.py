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
from daemon.store.violations import VIOLATION, Violation, read_violation

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


class Told(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Of an event's stored message (`actors.notice.Message`) what never changes: spec.md §7.1.

    What it was told with stays JSON, as AWS spells it: a page of 250 is passed on and not read.
    """

    violation_id: str
    thing_name: str
    security_profile_name: str
    behavior: msgspec.Raw
    metric_value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    violation_event_additional_info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    violation_event_type: EventType


class ViolationEvent(NamedTuple):
    """One event, and how its violation was verified (spec.md §7.1)."""

    time_ns: int
    told: Told
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
    sql = (
        "SELECT found.time_ns, id, message, verification_state, verification_description "
        f"FROM (SELECT time_ns, id FROM ({scan}) WHERE {clauses} LIMIT ?) AS found CROSS JOIN events USING (id)"
    )
    rows = con.execute(sql, (*values, *more, limit + 1)).fetchall()
    rows.sort(reverse=True)  # they are, but SQLite promises no order without its own sorter, which costs a fifth more
    found = [ViolationEvent(time_ns, _told.decode(text), *verified) for time_ns, _, text, *verified in rows[:limit]]
    if len(rows) > limit:
        return found, EventPlace(*rows[limit - 1][:2])
    last = con.execute(f"SELECT time_ns, id FROM ({scan}) LIMIT 1 OFFSET {SCAN_MAX - 1}", values).fetchone()
    return found, EventPlace(*last) if last else None


_told = msgspec.json.Decoder(Told)


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
