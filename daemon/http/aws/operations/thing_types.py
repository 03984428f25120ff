"""Thing types: a thing of a type may have more attributes (spec.md §10.7)."""

from typing import Any
from uuid import uuid4

import msgspec

from daemon.control import tags
from daemon.control.plane import Call
from daemon.control.refusal import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from daemon.control.rules import Con
from daemon.http.aws.paging import REGISTRY_PAGE, page, page_size, start_of

Answer = dict[str, Any]
Row = tuple[str, str, str, int, int | None]
"""name, id, properties as JSON, created ns, deprecated ns."""


async def create_thing_type(call: Call) -> Answer:
    """The same request again is the same type."""
    name, plane, now_ns = call.params["thingTypeName"], call.plane, call.plane.now_ns()
    body, given = _body(call), call.params.get("tags", ())

    def create(con: Con) -> str:
        known = _find(con, name)
        if known is None:
            made = str(uuid4())
            con.execute(
                "INSERT INTO thing_types (name, id, body, created_ns) VALUES (?, ?, ?, ?)", (name, made, body, now_ns)
            )
            tags.put(con, _resource(name), given, InvalidRequestException)  # the model has no limit here
            return made
        if known[2] != body or not tags.same(con, _resource(name), given):
            message = f"there is a thing type {name} already, with other properties or tags"
            raise ResourceAlreadyExistsException(message, name, plane.arn(_resource(name)))
        return known[1]

    made = await call.change(create, _resource(name), rules=False)
    return {"thingTypeName": name, "thingTypeArn": plane.arn(_resource(name)), "thingTypeId": made}


async def update_thing_type(call: Call) -> Answer:
    name, body = call.params["thingTypeName"], _body(call)

    def update(con: Con) -> None:
        _get(con, name)
        con.execute("UPDATE thing_types SET body = ? WHERE name = ?", (body, name))

    await call.change(update, _resource(name), rules=False)
    return {}


async def describe_thing_type(call: Call) -> Answer:
    name = call.params["thingTypeName"]
    row = await call.read(lambda con: _get(con, name))
    return {**_described(call, row), "thingTypeId": row[1]}


async def deprecate_thing_type(call: Call) -> Answer:
    """No thing may be given a deprecated type; those that have it keep it."""
    name, undo = call.params["thingTypeName"], call.params.get("undoDeprecate", False)
    at_ns = None if undo else call.plane.now_ns()

    def deprecate(con: Con) -> None:
        _get(con, name)
        con.execute("UPDATE thing_types SET deprecated_ns = ? WHERE name = ?", (at_ns, name))

    await call.change(deprecate, _resource(name), rules=False)
    return {}


async def delete_thing_type(call: Call) -> Answer:
    name = call.params["thingTypeName"]

    def delete(con: Con) -> None:
        _get(con, name)
        if con.execute("SELECT 1 FROM things WHERE type = ? LIMIT 1", (name,)).fetchone() is not None:
            raise InvalidRequestException(f"there are things of type {name}")
        con.execute("DELETE FROM thing_types WHERE name = ?", (name,))
        tags.drop(con, _resource(name))

    await call.change(delete, _resource(name), rules=False)
    return {}


async def list_thing_types(call: Call) -> Answer:
    """In the order of creation; with a name, those that begin so."""
    prefix, after = call.params.get("thingTypeName", ""), start_of(call.params, int) or 0
    size = page_size(call.params, REGISTRY_PAGE)
    sql = (
        f"SELECT {_COLUMNS}, seq FROM thing_types "  # noqa: S608  # a constant
        "WHERE seq > ? AND substr(name, 1, length(?2)) = ?2 ORDER BY seq LIMIT ?"
    )
    rows = await call.read(lambda con: con.execute(sql, (after, prefix, size + 1)).fetchall())
    shown, more = page(rows, size, lambda row: row[-1])
    return {"thingTypes": [_described(call, row[:-1]) for row in shown], **more}


_COLUMNS = "name, id, body, created_ns, deprecated_ns"


def _resource(name: str) -> str:
    return f"thingtype/{name}"


def _body(call: Call) -> str:
    return msgspec.json.encode(call.params.get("thingTypeProperties", {}), order="sorted").decode()


def _find(con: Con, name: str) -> Row | None:
    row: Row | None = con.execute(f"SELECT {_COLUMNS} FROM thing_types WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return row


def _get(con: Con, name: str) -> Row:
    found = _find(con, name)
    if found is None:
        raise ResourceNotFoundException(f"there is no thing type {name}")
    return found


def _described(call: Call, row: Row) -> Answer:
    name, _, body, created_ns, deprecated_ns = row
    return {
        "thingTypeName": name,
        "thingTypeArn": call.plane.arn(_resource(name)),
        "thingTypeProperties": msgspec.json.decode(body),
        "thingTypeMetadata": {
            "deprecated": deprecated_ns is not None,
            "deprecationDate": deprecated_ns,
            "creationDate": created_ns,
        },
    }
