"""The outbox in SQL: who is to be told of an event, what became of it, and what an operator may do about it.

Plain functions of a connection, run by the store's writer or a reader. Which state may follow which is
`actors.delivery.TRANSITIONS`; the WHERE clauses here are made from it.
"""
# ruff: noqa: S608 - what is put into the SQL text are constants of ours; values are parameters

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from actors.delivery import Event, State, after, sources
from actors.effects import Transition
from actors.notice import Notice, event_id, webhook_id

Con = sqlite3.Connection

_COLUMNS: Final = (
    "o.id, o.webhook_id, o.receiver, o.violation_id, o.event_type, o.thing, e.time_ns, o.created_ns, e.message, "
    "o.attempts, o.due_ns"
)
_FROM: Final = "FROM outbox o JOIN events e ON e.event_id = o.event_id"
_UNSENT: Final = "in-alarm was not delivered"


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of one attempt."""

    id: int
    state: State
    attempts: int
    due_ns: int
    why: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the outbox as an operator sees it. Times are ns."""

    id: int
    webhook_id: str
    receiver: str
    thing: str
    violation_id: str
    event_type: str
    state: State
    attempts: int
    due_ns: int
    created_ns: int
    done_ns: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one receiver."""

    queued: int
    orphaned: int
    dead: int
    oldest_ns: int | None  # when the oldest queued row was stored


def enqueue(con: Con, transition: Transition, receivers: Sequence[str], body: bytes, now_ns: int) -> list[Notice]:
    """One row per receiver for an event that was just stored; the notices among them that may be sent.

    An alarm's end is only for those who were to be told of its beginning. Where that can't happen any more
    the row is kept as SKIPPED, so that an operator sees why.
    """
    if transition.event_type == "in-alarm":
        states = dict.fromkeys(receivers, State.QUEUED)
    else:
        states = _followers(con, transition.violation_id, receivers)
    notices = [_insert(con, transition, receiver, state, body, now_ns) for receiver, state in states.items()]
    return [notice for notice in notices if notice is not None]


def told_of(con: Con, violation_id: str) -> dict[str, str]:
    """{receiver: state} of an alarm's in-alarm rows."""
    return dict(
        con.execute(
            "SELECT receiver, state FROM outbox WHERE violation_id = ? AND event_type = 'in-alarm'", (violation_id,)
        ).fetchall()
    )


def awaited(con: Con, prefix: str) -> list[str]:
    """Receivers whose names begin so, and who have notices to come: waiting ones, or the ends of open alarms."""
    sql = (
        "SELECT receiver FROM outbox WHERE state IN ('queued', 'orphaned') AND substr(receiver, 1, length(?1)) = ?1 "
        "UNION SELECT o.receiver FROM violations v JOIN outbox o ON o.violation_id = v.violation_id "
        "WHERE v.end_ns IS NULL AND substr(o.receiver, 1, length(?1)) = ?1"
    )
    return [name for (name,) in con.execute(sql, (prefix,))]


def _followers(con: Con, violation_id: str, receivers: Sequence[str]) -> dict[str, State]:
    """{receiver: the state in which an alarm's end begins}, from what became of its in-alarm."""
    told = told_of(con, violation_id)
    return {name: _follow(State(told[name])) for name in receivers if name in told}


def _follow(leader: State) -> State:
    if leader is State.ORPHANED:
        return State.ORPHANED
    return State.QUEUED if leader in (State.QUEUED, State.DELIVERED) else State.SKIPPED


def _insert(con: Con, transition: Transition, receiver: str, state: State, body: bytes, now_ns: int) -> Notice | None:
    name = webhook_id(transition.violation_id, transition.event_type, receiver)
    cursor = con.execute(
        "INSERT INTO outbox (webhook_id, event_id, violation_id, event_type, receiver, thing, state, due_ns, "
        "created_ns, done_ns, why) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            event_id(transition.violation_id, transition.event_type),
            transition.violation_id,
            transition.event_type,
            receiver,
            transition.thing,
            state,
            now_ns,
            now_ns,
            now_ns if state is State.SKIPPED else None,
            _UNSENT if state is State.SKIPPED else "",
        ),
    )
    if state is not State.QUEUED:
        return None
    return Notice(
        id=int(cursor.lastrowid or 0),
        webhook_id=name,
        receiver=receiver,
        violation_id=transition.violation_id,
        event_type=transition.event_type,
        thing=transition.thing,
        time_ns=transition.time_ns,
        created_ns=now_ns,
        message=body,
        due_ns=now_ns,
    )


def queued(con: Con, receiver: str, after_id: int, limit: int) -> list[Notice]:
    """The receiver's queued rows beyond `after_id`, in order."""
    rows = con.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE o.receiver = ? AND o.state = 'queued' AND o.id > ? ORDER BY o.id LIMIT ?",
        (receiver, after_id, limit),
    )
    return [_notice(row) for row in rows]


def queued_of_thing(con: Con, receiver: str, thing: str, after_id: int, upto_id: int, limit: int) -> list[Notice]:
    """The queued rows of one thing with `after_id` < id ≤ `upto_id`, in order."""
    rows = con.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE o.receiver = ? AND o.thing = ? AND o.state = 'queued' AND o.id > ? "
        "AND o.id <= ? ORDER BY o.id LIMIT ?",
        (receiver, thing, after_id, upto_id, limit),
    )
    return [_notice(row) for row in rows]


def _notice(row: tuple[Any, ...]) -> Notice:
    row_id, name, receiver, violation_id, event_type, thing, time_ns, created_ns, text, attempts, due_ns = row
    return Notice(
        id=row_id,
        webhook_id=name,
        receiver=receiver,
        violation_id=violation_id,
        event_type=event_type,
        thing=thing,
        time_ns=time_ns,
        created_ns=created_ns,
        message=text.encode(),
        attempts=attempts,
        due_ns=due_ns,
    )


def mark(con: Con, marks: Sequence[Mark], now_ns: int) -> None:
    """Write down what became of attempts. A row that an operator dropped meanwhile stays dropped."""
    con.executemany(
        "UPDATE outbox SET state = ?, attempts = ?, due_ns = ?, why = ?, done_ns = ? WHERE id = ? AND state = 'queued'",
        [(m.state, m.attempts, m.due_ns, m.why, None if m.state is State.QUEUED else now_ns, m.id) for m in marks],
    )
    for m in marks:
        if m.state is State.DEAD:
            _skip_followers(con, m.id, now_ns)


def _skip_followers(con: Con, leader_id: int, now_ns: int) -> None:
    """The end of an alarm is not sent to a receiver that will never hear of its beginning."""
    con.execute(
        f"UPDATE outbox SET state = ?, why = ?, done_ns = ? WHERE state IN ({_listed(Event.SKIP)}) "
        "AND event_type <> 'in-alarm' AND (violation_id, receiver) = "
        "(SELECT violation_id, receiver FROM outbox WHERE id = ? AND event_type = 'in-alarm')",
        (after(State.QUEUED, Event.SKIP), _UNSENT, now_ns, leader_id),
    )


def orphan(con: Con, configured: Iterable[str], now_ns: int) -> int:
    """Take the queued rows of receivers that are not configured out of the queue; how many."""
    names = list(configured)
    return con.execute(
        f"UPDATE outbox SET state = ?, why = 'receiver is not configured', done_ns = ? WHERE state IN "
        f"({_listed(Event.ORPHAN)}) AND receiver NOT IN ({','.join('?' * len(names))})",
        (after(State.QUEUED, Event.ORPHAN), now_ns, *names),
    ).rowcount


def adopt(con: Con, receiver: str, born_since_ns: int, now_ns: int) -> tuple[int, int]:
    """A receiver is (again) configured: its orphans are queued, those stored before `born_since_ns` are dead, being
    no news any more. Returns (queued, dead).
    """
    dead = _expire(con, receiver, State.ORPHANED, born_since_ns, now_ns)
    queued = con.execute(
        f"UPDATE outbox SET state = ?, why = '', done_ns = NULL, due_ns = ? WHERE state IN ({_listed(Event.ADOPT)}) "
        "AND receiver = ?",
        (after(State.ORPHANED, Event.ADOPT), now_ns, receiver),
    ).rowcount
    return queued, dead


def _expire(con: Con, receiver: str, state: State, born_since_ns: int, now_ns: int) -> int:
    expired = con.execute(
        "SELECT id FROM outbox WHERE state = ? AND receiver = ? AND created_ns < ?", (state, receiver, born_since_ns)
    ).fetchall()
    for (row_id,) in expired:
        con.execute(
            "UPDATE outbox SET state = ?, why = 'waited too long for its receiver', done_ns = ? WHERE id = ?",
            (after(state, Event.EXPIRE), now_ns, row_id),
        )
        _skip_followers(con, row_id, now_ns)
    return len(expired)


def drop(con: Con, ids: Sequence[int], now_ns: int) -> list[int]:
    """An operator wants these not to be sent; the ids of those that were still to be sent or dead."""
    dropped = []
    for row_id in ids:
        changed = con.execute(
            f"UPDATE outbox SET state = ?, why = 'dropped by an operator', done_ns = ? WHERE id = ? "
            f"AND state IN ({_listed(Event.DROP)})",
            (after(State.QUEUED, Event.DROP), now_ns, row_id),
        ).rowcount
        if changed:
            dropped.append(row_id)
            _skip_followers(con, row_id, now_ns)
    return dropped


def resend(con: Con, ids: Sequence[int], now_ns: int) -> list[Notice]:
    """An operator wants these sent (again), under the same webhook ids, with what was skipped because of them.

    They get new row ids: they go to the end of the queue. The end of an alarm whose in-alarm is neither
    delivered nor queued is left alone.
    """
    wanted = [row_id for given in ids for row_id in _with_followers(con, given)]
    fresh = [_resend(con, row_id, now_ns) for row_id in dict.fromkeys(wanted)]
    return [notice for notice in fresh if notice is not None]


def _with_followers(con: Con, row_id: int) -> list[int]:
    followers = con.execute(
        "SELECT f.id FROM outbox l JOIN outbox f ON f.violation_id = l.violation_id AND f.receiver = l.receiver "
        "WHERE l.id = ? AND l.event_type = 'in-alarm' AND f.event_type <> 'in-alarm' AND f.state = ? ORDER BY f.id",
        (row_id, State.SKIPPED),
    )
    return [row_id, *(follower for (follower,) in followers)]


def _resend(con: Con, row_id: int, now_ns: int) -> Notice | None:
    row = con.execute(
        "SELECT webhook_id, event_id, violation_id, event_type, receiver, thing FROM outbox WHERE id = ? "
        f"AND state IN ({_listed(Event.RESEND)})",
        (row_id,),
    ).fetchone()
    if row is None:
        return None
    _, _, violation_id, event_type, receiver, _ = row
    if event_type != "in-alarm" and _followers(con, violation_id, [receiver]).get(receiver) is not State.QUEUED:
        return None
    # Deleted and inserted: an UPDATE of the id would not advance the sequence that ids are drawn from.
    con.execute("DELETE FROM outbox WHERE id = ?", (row_id,))
    new_id = con.execute(
        "INSERT INTO outbox (webhook_id, event_id, violation_id, event_type, receiver, thing, state, due_ns, "
        "created_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, State.QUEUED, now_ns, now_ns),
    ).lastrowid
    return _notice(con.execute(f"SELECT {_COLUMNS} {_FROM} WHERE o.id = ?", (new_id,)).fetchone())


def listing(con: Con, states: Sequence[State], receiver: str | None, before_id: int, limit: int) -> list[Row]:
    """Rows, newest first, with id < `before_id`."""
    rows = con.execute(
        "SELECT id, webhook_id, receiver, thing, violation_id, event_type, state, attempts, due_ns, created_ns, "
        f"done_ns, why FROM outbox WHERE state IN ({','.join('?' * len(states))}) AND id < ? "
        "AND (? IS NULL OR receiver = ?) ORDER BY id DESC LIMIT ?",
        (*states, before_id, receiver, receiver, limit),
    )
    return [_row(row) for row in rows]


def _row(row: tuple[Any, ...]) -> Row:
    row_id, name, receiver, thing, violation_id, event_type, state, attempts, due_ns, created_ns, done_ns, why = row
    return Row(
        id=row_id,
        webhook_id=name,
        receiver=receiver,
        thing=thing,
        violation_id=violation_id,
        event_type=event_type,
        state=State(state),
        attempts=attempts,
        due_ns=due_ns,
        created_ns=created_ns,
        done_ns=done_ns,
        why=why,
    )


def backlogs(con: Con) -> dict[str, Backlog]:
    """What waits, by receiver."""
    rows = con.execute(
        "SELECT receiver, sum(state = 'queued'), sum(state = 'orphaned'), sum(state = 'dead'), "
        "min(CASE WHEN state = 'queued' THEN created_ns END) FROM outbox "
        "WHERE state IN ('queued', 'orphaned', 'dead') GROUP BY receiver"
    )
    return {name: Backlog(queued, orphaned, dead, oldest) for name, queued, orphaned, dead, oldest in rows}


def disable(con: Con, receiver: str, digest: str, why: str, now_ns: int) -> None:
    con.execute("INSERT OR REPLACE INTO disabled VALUES (?, ?, ?, ?)", (receiver, digest, why, now_ns))


def enable(con: Con, receiver: str, born_since_ns: int, now_ns: int) -> bool:
    """Whether it was disabled. What waited since before `born_since_ns` is dead; the rest is due now."""
    if not con.execute("DELETE FROM disabled WHERE receiver = ?", (receiver,)).rowcount:
        return False
    _expire(con, receiver, State.QUEUED, born_since_ns, now_ns)
    con.execute("UPDATE outbox SET due_ns = ? WHERE receiver = ? AND state = 'queued'", (now_ns, receiver))
    return True


def disabled(con: Con) -> dict[str, tuple[str, str]]:
    """{receiver: (digest of the options it had, why)}."""
    return {name: (digest, why) for name, digest, why in con.execute("SELECT receiver, digest, why FROM disabled")}


def _listed(event: Event) -> str:
    """The states in which `event` can happen and that a row can be in, for an SQL IN list. Constants, not input."""
    return ",".join(f"'{state.value}'" for state in sources(event) if state is not State.SENDING)
