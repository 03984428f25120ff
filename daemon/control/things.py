"""Things in the registry (spec.md §10.7). A thing may be a file's, the API's, or both."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from daemon.control import attributes
from daemon.control.refusal import InvalidRequestException, ResourceNotFoundException

Con = sqlite3.Connection

ATTRIBUTES_MAX: Final = 3
ATTRIBUTES_OF_TYPED_MAX: Final = 50

_COLUMNS: Final = "seq, name, id, type, billing_group, attributes, version, by_api, file"


@dataclass(frozen=True, slots=True)
class Thing:
    """`version` counts the updates. `seq` is the place in the order of creation."""

    seq: int
    name: str
    id: str
    type: str | None
    billing_group: str | None
    attributes: Mapping[str, str]
    version: int
    by_api: bool
    file: str | None


def resource(name: str) -> str:
    return f"thing/{name}"


def find(con: Con, name: str) -> Thing | None:
    row = con.execute(f"SELECT {_COLUMNS} FROM things WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return None if row is None else _thing(row)


def get(con: Con, name: str) -> Thing:
    """Raises `ResourceNotFoundException`."""
    found = find(con, name)
    if found is None:
        raise ResourceNotFoundException(f"there is no thing {name}")
    return found


def _thing(row: Sequence[Any]) -> Thing:
    seq, name, id_, type_, billing_group, text, version, by_api, file = row
    return Thing(seq, name, id_, type_, billing_group, attributes.read(text), version, bool(by_api), file)


def insert(con: Con, thing: Thing, now_ns: int) -> None:
    row = (thing.name, thing.id, thing.type, thing.billing_group, attributes.written(thing.attributes), now_ns)
    con.execute(
        "INSERT INTO things (name, id, type, billing_group, attributes, created_ns, by_api) VALUES (?,?,?,?,?,?,1)", row
    )


def new(name: str, type_: str | None, billing_group: str | None, given: Mapping[str, str]) -> Thing:
    return Thing(0, name, str(uuid4()), type_, billing_group, given, 0, by_api=True, file=None)


def update(con: Con, name: str, type_: str | None, given: Mapping[str, str]) -> None:
    """The next version."""
    con.execute(
        "UPDATE things SET type = ?, attributes = ?, version = version + 1 WHERE name = ?",
        (type_, attributes.written(given), name),
    )


def claim(con: Con, name: str) -> None:
    """A file's thing is the API's as well from now on."""
    con.execute("UPDATE things SET by_api = 1 WHERE name = ?", (name,))


def delete(con: Con, name: str) -> None:
    """With its memberships."""
    con.execute("DELETE FROM members WHERE thing = ?", (name,))
    con.execute("DELETE FROM things WHERE name = ?", (name,))


def check(con: Con, type_: str | None, billing_group: str | None) -> None:
    """Whether a thing may be given these, where they are not None.

    Raises:
        ResourceNotFoundException: there is no such type or billing group.
        InvalidRequestException: the type is deprecated.
    """
    if type_ is not None:
        row = con.execute("SELECT deprecated_ns FROM thing_types WHERE name = ?", (type_,)).fetchone()
        if row is None:
            raise ResourceNotFoundException(f"there is no thing type {type_}")
        if row[0] is not None:
            raise InvalidRequestException(f"thing type {type_} is deprecated")
    if billing_group is not None and not _is_billing_group(con, billing_group):
        raise ResourceNotFoundException(f"there is no billing group {billing_group}")


def refuse_too_many(name: str, type_: str | None, given: Mapping[str, str]) -> None:
    """Raises `InvalidRequestException` where a thing, of a type or none, has more attributes than it may."""
    most = ATTRIBUTES_MAX if type_ is None else ATTRIBUTES_OF_TYPED_MAX
    attributes.refuse_too_many(f"thing {name}", given, most)


def _is_billing_group(con: Con, name: str) -> bool:
    return con.execute("SELECT 1 FROM billing_groups WHERE name = ?", (name,)).fetchone() is not None


def listing(
    con: Con, after: int, limit: int, type_: str | None, attribute: tuple[str, str | None] | None, *, prefix: bool
) -> list[Thing]:
    """In the order of creation, those of a type, and with an attribute (of that value, or one that begins so)."""
    clauses: list[str] = ["seq > ?"]
    values: list[Any] = [after]
    if type_ is not None:
        clauses.append("type = ?")
        values.append(type_)
    if attribute is not None:
        clause, more = _attribute_clause(*attribute, prefix=prefix)
        clauses.append(clause)
        values += more
    sql = f"SELECT {_COLUMNS} FROM things WHERE {' AND '.join(clauses)} ORDER BY seq LIMIT ?"  # noqa: S608
    return [_thing(row) for row in con.execute(sql, (*values, limit))]


def _attribute_clause(name: str, value: str | None, *, prefix: bool) -> tuple[str, list[str]]:
    path = f'$."{name}"'
    if value is None:
        return "json_extract(attributes, ?) IS NOT NULL", [path]
    if prefix:
        return "substr(json_extract(attributes, ?), 1, length(?)) = ?", [path, value, value]
    return "json_extract(attributes, ?) = ?", [path, value]
