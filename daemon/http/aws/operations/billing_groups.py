"""Billing groups: labels of things that decide nothing here (spec.md §10.7)."""

from typing import Any
from uuid import uuid4

from daemon.control import tags, things
from daemon.control.owned import refuse_other_version
from daemon.control.plane import Call
from daemon.control.refusal import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from daemon.control.rules import Con
from daemon.http.aws.operations.memberships import named_by
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]
Row = tuple[str, str, str | None, int, int]
"""name, id, description, version, created ns."""


async def create_billing_group(call: Call) -> Answer:
    """The same request again is the same group."""
    name, plane, now_ns = call.params["billingGroupName"], call.plane, call.plane.now_ns()
    description, given = _description(call), call.params.get("tags", ())

    def create(con: Con) -> str:
        known = _find(con, name)
        if known is None:
            made = str(uuid4())
            con.execute("INSERT INTO billing_groups VALUES (?, ?, ?, 1, ?)", (name, made, description, now_ns))
            tags.put(con, _resource(name), given, InvalidRequestException)  # the model has no limit here
            return made
        if known[2] != description or not tags.same(con, _resource(name), given):
            message = f"there is a billing group {name} already, with other properties or tags"
            raise ResourceAlreadyExistsException(message, name, plane.arn(_resource(name)))
        return known[1]

    made = await call.change(create, _resource(name), rules=False)
    return {"billingGroupName": name, "billingGroupArn": plane.arn(_resource(name)), "billingGroupId": made}


async def update_billing_group(call: Call) -> Answer:
    name, description = call.params["billingGroupName"], _description(call)

    def update(con: Con) -> int:
        known = _get(con, name)
        refuse_other_version(f"billing group {name}", known[3], call.params.get("expectedVersion"))
        sql = "UPDATE billing_groups SET description = ?, version = version + 1 WHERE name = ?"
        con.execute(sql, (description, name))
        return known[3] + 1

    return {"version": await call.change(update, _resource(name), rules=False)}


async def describe_billing_group(call: Call) -> Answer:
    name = call.params["billingGroupName"]
    _, made, description, version, created_ns = await call.read(lambda con: _get(con, name))
    return {
        "billingGroupName": name,
        "billingGroupId": made,
        "billingGroupArn": call.plane.arn(_resource(name)),
        "version": version,
        "billingGroupProperties": {"billingGroupDescription": description},
        "billingGroupMetadata": {"creationDate": created_ns},
    }


async def delete_billing_group(call: Call) -> Answer:
    """One that is not there is gone already; one with things in it is refused."""
    name = call.params["billingGroupName"]

    def delete(con: Con) -> None:
        known = _find(con, name)
        if known is None:
            return
        refuse_other_version(f"billing group {name}", known[3], call.params.get("expectedVersion"))
        if con.execute("SELECT 1 FROM things WHERE billing_group = ? LIMIT 1", (name,)).fetchone() is not None:
            raise InvalidRequestException(f"there are things in billing group {name}")
        con.execute("DELETE FROM billing_groups WHERE name = ?", (name,))
        tags.drop(con, _resource(name))

    await call.change(delete, _resource(name), rules=False)
    return {}


async def list_billing_groups(call: Call) -> Answer:
    prefix, after = call.params.get("namePrefixFilter", ""), start_of(call.params, str) or ""
    size = page_size(call.params)
    sql = "SELECT name FROM billing_groups WHERE name > ? AND substr(name, 1, length(?2)) = ?2 ORDER BY name LIMIT ?"
    names = [name for (name,) in await call.read(lambda con: con.execute(sql, (after, prefix, size + 1)).fetchall())]
    shown, more = page(names, size, str)
    groups = [{"groupName": name, "groupArn": call.plane.arn(_resource(name))} for name in shown]
    return {"billingGroups": groups, **more}


async def add_thing_to_billing_group(call: Call) -> Answer:
    """A thing is in one billing group at most: the last one it was put into."""
    thing, group = named_by(call, "thing", "thing"), named_by(call, "billingGroup", "billinggroup")

    def add(con: Con) -> None:
        things.get(con, thing)
        _get(con, group)
        con.execute("UPDATE things SET billing_group = ? WHERE name = ?", (group, thing))

    await call.change(add, things.resource(thing), rules=False)
    return {}


async def remove_thing_from_billing_group(call: Call) -> Answer:
    thing, group = named_by(call, "thing", "thing"), named_by(call, "billingGroup", "billinggroup")

    def remove(con: Con) -> None:
        things.get(con, thing)
        _get(con, group)
        con.execute("UPDATE things SET billing_group = NULL WHERE name = ? AND billing_group = ?", (thing, group))

    await call.change(remove, things.resource(thing), rules=False)
    return {}


async def list_things_in_billing_group(call: Call) -> Answer:
    name, after, size = call.params["billingGroupName"], start_of(call.params, str) or "", page_size(call.params)

    def read(con: Con) -> list[str]:
        _get(con, name)
        sql = "SELECT name FROM things WHERE billing_group = ? AND name > ? ORDER BY name LIMIT ?"
        return [thing for (thing,) in con.execute(sql, (name, after, size + 1))]

    shown, more = page(await call.read(read), size, str)
    return {"things": shown, **more}


def _resource(name: str) -> str:
    return f"billinggroup/{name}"


def _description(call: Call) -> str | None:
    description: str | None = call.params.get("billingGroupProperties", {}).get("billingGroupDescription")
    return description


def _find(con: Con, name: str) -> Row | None:
    sql = "SELECT name, id, description, version, created_ns FROM billing_groups WHERE name = ?"
    row: Row | None = con.execute(sql, (name,)).fetchone()
    return row


def _get(con: Con, name: str) -> Row:
    found = _find(con, name)
    if found is None:
        raise ResourceNotFoundException(f"there is no billing group {name}")
    return found
