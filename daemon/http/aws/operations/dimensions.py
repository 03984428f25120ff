"""Dimensions: named lists of topic filters (spec.md §6.1, §10.3)."""

from typing import Any

import msgspec

from config.model import Dimension
from config.objects import DIMENSIONS_MAX, check_one_dimension
from config.problem import shown
from daemon.control import profiles, tags
from daemon.control.definitions import dimension_body, dimension_from
from daemon.control.owned import refuse_if_of_file
from daemon.control.plane import Call
from daemon.control.refusal import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from daemon.control.rules import Con
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]
Row = tuple[Dimension, str | None, int, int, str | None]
"""dimension, token, created ns, modified ns, file."""


async def create_dimension(call: Call) -> Answer:
    """The same token and content again is the same dimension; all else of its name is refused (spec.md §6.3)."""
    name, plane, now_ns = call.params["name"], call.plane, call.plane.now_ns()
    token, given = call.params["clientRequestToken"], call.params.get("tags", ())
    wanted = _checked(Dimension(name=name, string_values=tuple(call.params["stringValues"])))

    def create(con: Con) -> None:
        known = _find(con, name)
        if known is not None:
            if known[:2] == (wanted, token):
                return
            message = f"there is a dimension {name} already"
            raise ResourceAlreadyExistsException(message, name, plane.arn(_resource(name)))
        if con.execute("SELECT count(*) FROM dimensions").fetchone()[0] >= DIMENSIONS_MAX:
            raise LimitExceededException(f"there are {DIMENSIONS_MAX} dimensions, as many as there may be")
        row = (name, dimension_body(wanted), token, now_ns, now_ns)
        con.execute("INSERT INTO dimensions VALUES (?, ?, ?, ?, ?, NULL)", row)
        tags.put(con, _resource(name), given)

    await call.change(create, _resource(name))
    return {"name": name, "arn": plane.arn(_resource(name))}


async def update_dimension(call: Call) -> Answer:
    """The new list replaces the old one."""
    name, now_ns = call.params["name"], call.plane.now_ns()
    wanted = _checked(Dimension(name=name, string_values=tuple(call.params["stringValues"])))

    def update(con: Con) -> Row:
        refuse_if_of_file(f"dimension {name}", _get(con, name)[4])
        row = (dimension_body(wanted), now_ns, name)
        con.execute("UPDATE dimensions SET body = ?, modified_ns = ? WHERE name = ?", row)
        return _get(con, name)

    return _described(call, await call.change(update, _resource(name)))


async def describe_dimension(call: Call) -> Answer:
    name = call.params["name"]
    return _described(call, await call.read(lambda con: _get(con, name)))


async def delete_dimension(call: Call) -> Answer:
    """One that is not there is gone already; one in use is to be taken out of the profiles first (spec.md §6.1)."""
    name = call.params["name"]

    def delete(con: Con) -> None:
        known = _find(con, name)
        if known is None:
            return
        refuse_if_of_file(f"dimension {name}", known[4])
        users = profiles.using_dimension(con, name)
        if users:
            raise InvalidRequestException(f"dimension {name} is in use by security profiles: {', '.join(users)}")
        con.execute("DELETE FROM dimensions WHERE name = ?", (name,))
        tags.drop(con, _resource(name))

    await call.change(delete, _resource(name))
    return {}


async def list_dimensions(call: Call) -> Answer:
    after, size = start_of(call.params, str) or "", page_size(call.params)
    sql = "SELECT name FROM dimensions WHERE name > ? ORDER BY name LIMIT ?"
    names = [name for (name,) in await call.read(lambda con: con.execute(sql, (after, size + 1)).fetchall())]
    shown_, more = page(names, size, str)
    return {"dimensionNames": shown_, **more}


def _resource(name: str) -> str:
    return f"dimension/{name}"


def _find(con: Con, name: str) -> Row | None:
    sql = "SELECT body, token, created_ns, modified_ns, file FROM dimensions WHERE name = ?"
    row = con.execute(sql, (name,)).fetchone()
    return None if row is None else (dimension_from(name, row[0]), *row[1:])


def _get(con: Con, name: str) -> Row:
    found = _find(con, name)
    if found is None:
        raise ResourceNotFoundException(f"there is no dimension {name}")
    return found


def _checked(dimension: Dimension) -> Dimension:
    problems = [f"{shown(each.path)}: {each.message}" for each in check_one_dimension(dimension)]
    if problems:
        raise InvalidRequestException("; ".join(problems))
    return dimension


def _described(call: Call, row: Row) -> Answer:
    dimension, _, created_ns, modified_ns, _ = row
    return {
        "name": dimension.name,
        "arn": call.plane.arn(_resource(dimension.name)),
        "type": dimension.type,
        "stringValues": msgspec.to_builtins(dimension.string_values),
        "creationDate": created_ns,
        "lastModifiedDate": modified_ns,
    }
