"""Thing groups: a forest of named groups (spec.md §10.7). A group may be a file's, the API's, or both."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from config.objects import GROUP_DEPTH_MAX
from daemon.control import attributes, tags
from daemon.control.refusal import InvalidRequestException, ResourceNotFoundException

Con = sqlite3.Connection

CHILDREN_MAX: Final = 100
ATTRIBUTES_MAX: Final = 50

_COLUMNS: Final = "name, id, parent, description, attributes, version, created_ns, by_api, file"


@dataclass(frozen=True, slots=True)
class ThingGroup:
    name: str
    id: str
    parent: str | None
    description: str | None
    attributes: Mapping[str, str]
    version: int
    created_ns: int
    by_api: bool
    file: str | None


def resource(name: str) -> str:
    return f"thinggroup/{name}"


def find(con: Con, name: str) -> ThingGroup | None:
    row = con.execute(f"SELECT {_COLUMNS} FROM thing_groups WHERE name = ?", (name,)).fetchone()  # noqa: S608
    if row is None:
        return None
    name, id_, parent, description, text, version, created_ns, by_api, file = row
    return ThingGroup(name, id_, parent, description, attributes.read(text), version, created_ns, bool(by_api), file)


def get(con: Con, name: str) -> ThingGroup:
    """Raises `ResourceNotFoundException`."""
    found = find(con, name)
    if found is None:
        raise ResourceNotFoundException(f"there is no thing group {name}")
    return found


def ancestors(con: Con, name: str) -> list[str]:
    """From the root to the group's parent."""
    found: list[str] = []
    parent = get(con, name).parent
    while parent is not None and parent not in found:
        found.append(parent)
        parent = get(con, parent).parent
    return found[::-1]


def root(con: Con, name: str) -> str:
    return (ancestors(con, name) or [name])[0]


def check_parent(con: Con, parent: str) -> None:
    """Raises `InvalidRequestException` where there is none of that name, or it can't have a further child."""
    if find(con, parent) is None:  # AWS's model has no other error for it
        raise InvalidRequestException(f"there is no thing group {parent}")
    if len(ancestors(con, parent)) + 1 >= GROUP_DEPTH_MAX:
        raise InvalidRequestException(f"groups are nested at most {GROUP_DEPTH_MAX} deep")
    if _children(con, parent) >= CHILDREN_MAX:
        raise InvalidRequestException(f"thing group {parent} has {CHILDREN_MAX} groups in it, as many as it may")


def _children(con: Con, name: str) -> int:
    return int(con.execute("SELECT count(*) FROM thing_groups WHERE parent = ?", (name,)).fetchone()[0])


def insert(con: Con, group: ThingGroup) -> None:
    row = (
        group.name, group.id, group.parent, group.description, attributes.written(group.attributes), group.created_ns
    )  # fmt: skip
    con.execute(
        "INSERT INTO thing_groups (name, id, parent, description, attributes, created_ns, by_api) "
        "VALUES (?, ?, ?, ?, ?, ?, 1)",
        row,
    )


def claim(con: Con, name: str) -> None:
    """A file's group is the API's as well from now on."""
    con.execute("UPDATE thing_groups SET by_api = 1 WHERE name = ?", (name,))


def update(con: Con, name: str, description: str | None, given: Mapping[str, str]) -> int:
    """The next version, which is given."""
    con.execute(
        "UPDATE thing_groups SET description = ?, attributes = ?, version = version + 1 WHERE name = ?",
        (description, attributes.written(given), name),
    )
    return get(con, name).version


def delete(con: Con, name: str) -> None:
    """With memberships, tags, and what is attached to it.

    Raises:
        InvalidRequestException: groups are in it, or a file attaches a profile to it.
    """
    if _children(con, name):
        raise InvalidRequestException(f"thing group {name} has groups in it: delete those first")
    sql = (
        "SELECT p.name, p.file FROM targets t JOIN profiles p ON p.name = t.profile "
        "WHERE t.target = ? AND p.file IS NOT NULL"
    )
    attached = con.execute(sql, (resource(name),)).fetchone()
    if attached is not None:
        raise InvalidRequestException(
            f"security profile {attached[0]} is attached to thing group {name} in {attached[1]}: change it there"
        )
    con.execute("DELETE FROM members WHERE thing_group = ?", (name,))
    con.execute("DELETE FROM targets WHERE target = ?", (resource(name),))
    con.execute("DELETE FROM thing_groups WHERE name = ?", (name,))
    tags.drop(con, resource(name))


def listing(con: Con, after: str, limit: int, parent: str | None, prefix: str, *, recursive: bool) -> list[str]:
    """Names in order: all, the roots only, or the groups in `parent`; `recursive`: and all below."""
    below = "SELECT name FROM thing_groups WHERE parent IS ?"
    if recursive:
        below += " UNION SELECT g.name FROM thing_groups g JOIN below ON g.parent = below.name"
    sql = (
        f"WITH RECURSIVE below (name) AS ({below}) SELECT name FROM below "  # noqa: S608  # constants
        "WHERE name > ? AND substr(name, 1, length(?)) = ? ORDER BY name LIMIT ?"
    )
    return [name for (name,) in con.execute(sql, (parent, after, prefix, prefix, limit))]
