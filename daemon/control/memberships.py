"""Which things are in which groups (spec.md §10.7)."""

import sqlite3
from typing import Final

from daemon.control import thing_groups, things
from daemon.control.owned import refuse_if_of_file
from daemon.control.refusal import InvalidRequestException

Con = sqlite3.Connection

GROUPS_MAX: Final = 10


def add(con: Con, thing: str, group: str) -> None:
    """Twice is once. A thing that the API has put into a group is the API's, too: it stays when no file names it.

    Raises:
        ResourceNotFoundException: there is no such thing or group.
        InvalidRequestException: it is in as many groups as it may, or in another of the same hierarchy.
    """
    things.get(con, thing)
    thing_groups.get(con, group)
    inside = groups_of(con, thing)
    if group not in inside:
        if len(inside) >= GROUPS_MAX:
            raise InvalidRequestException(f"thing {thing} is in {GROUPS_MAX} groups, as many as it may")
        root = thing_groups.root(con, group)
        kin = next((other for other in inside if thing_groups.root(con, other) == root), None)
        if kin is not None:
            raise InvalidRequestException(f"thing {thing} is in {kin}, which is of the same hierarchy as {group}")
    con.execute(
        "INSERT INTO members VALUES (?, ?, 1, NULL) ON CONFLICT (thing_group, thing) DO UPDATE SET by_api = 1",
        (group, thing),
    )
    con.execute("UPDATE things SET by_api = 1 WHERE name = ?", (thing,))


def remove(con: Con, thing: str, group: str) -> None:
    """What is not in it is out of it already. Raises as `add`, or where a file puts the thing there."""
    things.get(con, thing)
    thing_groups.get(con, group)
    row = con.execute("SELECT file FROM members WHERE thing_group = ? AND thing = ?", (group, thing)).fetchone()
    if row is not None:
        refuse_if_of_file(f"that {thing} is in {group}", row[0])
        con.execute("DELETE FROM members WHERE thing_group = ? AND thing = ?", (group, thing))


def groups_of(con: Con, thing: str) -> list[str]:
    """Names in order."""
    sql = "SELECT thing_group FROM members WHERE thing = ? ORDER BY thing_group"
    return [group for (group,) in con.execute(sql, (thing,))]


def things_in(con: Con, group: str, after: str, limit: int, *, recursive: bool) -> list[str]:
    """Names in order, each once; `recursive`: those in all groups below as well."""
    below = "SELECT ?1"
    if recursive:
        below += " UNION SELECT g.name FROM thing_groups g JOIN below ON g.parent = below.name"
    sql = (
        f"WITH RECURSIVE below (name) AS ({below}) "  # noqa: S608  # constants
        "SELECT DISTINCT m.thing FROM members m JOIN below ON m.thing_group = below.name "
        "WHERE m.thing > ?2 ORDER BY m.thing LIMIT ?3"
    )
    return [thing for (thing,) in con.execute(sql, (group, after, limit))]
