"""Custom metrics and dimensions, the words that behaviors are written in (spec.md §6): made once, used by profiles."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec

from config.objects import CUSTOM_METRICS_MAX, DIMENSIONS_MAX
from daemon.control import profiles, tags
from daemon.control.owned import refuse_if_of_file
from daemon.control.refusal import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)

Con = sqlite3.Connection
Tags = Sequence[Mapping[str, Any]]

USERS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Kind:
    """`table`: whose rows; `head`: what its resources begin with; `words`: what people say; `most`: how many."""

    table: str
    head: str
    words: str
    most: int
    named: profiles.Named  # which of the kind a profile uses

    def resource(self, name: str) -> str:
        return f"{self.head}/{name}"


METRICS: Final = Kind("custom_metrics", "custommetric", "custom metric", CUSTOM_METRICS_MAX, profiles.metrics_named)
DIMENSIONS: Final = Kind("dimensions", "dimension", "dimension", DIMENSIONS_MAX, profiles.dimensions_named)


@dataclass(frozen=True, slots=True)
class Word:
    """A row; `body` is what `daemon.control.definitions` reads. Instants are ns."""

    name: str
    body: str
    created_ns: int
    modified_ns: int
    file: str | None


def find(con: Con, kind: Kind, name: str) -> Word | None:
    sql = f"SELECT name, body, created_ns, modified_ns, file FROM {kind.table} WHERE name = ?"  # noqa: S608
    row = con.execute(sql, (name,)).fetchone()
    return None if row is None else Word(*row)


def get(con: Con, kind: Kind, name: str) -> Word:
    """Raises `ResourceNotFoundException`."""
    word = find(con, kind, name)
    if word is None:
        raise ResourceNotFoundException(f"there is no {kind.words} {name}")
    return word


def create(
    con: Con, kind: Kind, name: str, body: str, given: Tags, token: str, arn_of: Callable[[str], str], now_ns: int
) -> None:
    """A new one, with its tags. The request that made it, come again (same token, same content), is no error.

    Raises:
        ResourceAlreadyExistsException: the name is taken, or the token was used for something else (spec.md §6.3).
        LimitExceededException: of these, or of tags.
    """
    stamp = _stamp(token, body, given)
    before = _row_in_the_way(con, kind, name, token)
    if before == (name, stamp):
        return
    if before is not None:
        raise _taken(con, kind, name, before[0], arn_of)
    (count,) = con.execute(f"SELECT count(*) FROM {kind.table}").fetchone()  # noqa: S608
    if count >= kind.most:
        raise LimitExceededException(f"there are {count} {kind.words}s, as many as there may be")
    row = (name, body, stamp, now_ns, now_ns)
    con.execute(f"INSERT INTO {kind.table} VALUES (?, ?, ?, ?, ?, NULL)", row)  # noqa: S608
    tags.put(con, kind.resource(name), given)


def update(con: Con, kind: Kind, name: str, changed: Callable[[Word], str], now_ns: int) -> Word:
    """The row with the body that `changed` makes. Raises `ResourceNotFoundException`, `InvalidRequestException`."""
    before = get(con, kind, name)
    refuse_if_of_file(f"{kind.words} {name}", before.file)
    word = Word(name, changed(before), before.created_ns, max(before.modified_ns, now_ns), None)
    row = (word.body, word.modified_ns, name)
    con.execute(f"UPDATE {kind.table} SET body = ?, modified_ns = ? WHERE name = ?", row)  # noqa: S608
    return word


def delete(con: Con, kind: Kind, name: str) -> None:
    """Remove one with its tags; one that is not there is gone already.

    Raises:
        InvalidRequestException: profiles use it (spec.md §12 #20), or a file defines it.
    """
    before = find(con, kind, name)
    if before is None:
        return
    refuse_if_of_file(f"{kind.words} {name}", before.file)
    users = profiles.using(con, kind.named, name, "", USERS_SHOWN + 1)
    if users:
        shown = ", ".join(users[:USERS_SHOWN]) + (" and others" if len(users) > USERS_SHOWN else "")
        raise InvalidRequestException(f"{kind.words} {name} is in use by security profiles: {shown}")
    con.execute(f"DELETE FROM {kind.table} WHERE name = ?", (name,))  # noqa: S608
    tags.drop(con, kind.resource(name))


def names(con: Con, kind: Kind, after: str, most: int) -> list[str]:
    """The next names in their order."""
    sql = f"SELECT name FROM {kind.table} WHERE name > ? ORDER BY name LIMIT ?"  # noqa: S608
    return [name for (name,) in con.execute(sql, (after, most))]


def _stamp(token: str, body: str, given: Tags) -> str:
    """What is kept as the token: it says what was asked too, which later changes of the row must not touch."""
    asked = msgspec.json.encode([body, sorted((tag["Key"], tag.get("Value", "")) for tag in given)])
    return f"{token} {sha256(asked).hexdigest()[:32]}"  # a token has no space


def _row_in_the_way(con: Con, kind: Kind, name: str, token: str) -> tuple[str, str | None] | None:
    """(name, stamp) of the row of this name, or else of one that was made with this token."""
    rows = con.execute(f"SELECT name, token FROM {kind.table}").fetchall()  # noqa: S608  # a quota bounds them
    same_name = [row for row in rows if row[0] == name]
    same_token = [row for row in rows if (row[1] or "").partition(" ")[0] == token]
    return next(iter([*same_name, *same_token]), None)


def _taken(con: Con, kind: Kind, name: str, by: str, arn_of: Callable[[str], str]) -> ResourceAlreadyExistsException:
    message = f"there is a {kind.words} {by} already"
    if by != name:
        message = f"the clientRequestToken was used for the {kind.words} {by}"
    elif file := get(con, kind, by).file:
        message = f"{message}, defined in {file}"
    return ResourceAlreadyExistsException(message, by, arn_of(kind.resource(by)))
