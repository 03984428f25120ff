"""Which things are in which groups (spec.md §10.7)."""

from typing import Any

from daemon.control import memberships, thing_groups, things
from daemon.control.plane import Call
from daemon.control.refusal import InvalidRequestException
from daemon.control.rules import Con
from daemon.http.aws.operations.thing_groups import named
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]


async def add_thing_to_thing_group(call: Call) -> Answer:
    thing, group = named_by(call, "thing", "thing"), named_by(call, "thingGroup", "thinggroup")
    await call.change(lambda con: memberships.add(con, thing, group), things.resource(thing))
    return {}


async def remove_thing_from_thing_group(call: Call) -> Answer:
    thing, group = named_by(call, "thing", "thing"), named_by(call, "thingGroup", "thinggroup")
    await call.change(lambda con: memberships.remove(con, thing, group), things.resource(thing))
    return {}


async def update_thing_groups_for_thing(call: Call) -> Answer:
    """All or nothing; removals first, so that a thing can move within a hierarchy."""
    thing = call.params.get("thingName")
    if thing is None:
        raise InvalidRequestException("thingName is required")

    def update(con: Con) -> None:
        things.get(con, thing)
        for group in call.params.get("thingGroupsToRemove", ()):
            memberships.remove(con, thing, group)
        for group in call.params.get("thingGroupsToAdd", ()):
            memberships.add(con, thing, group)

    await call.change(update, things.resource(thing))
    return {}


async def list_things_in_thing_group(call: Call) -> Answer:
    name, recursive = call.params["thingGroupName"], call.params.get("recursive", False)
    after, size = start_of(call.params, str) or "", page_size(call.params)

    def read(con: Con) -> list[str]:
        thing_groups.get(con, name)
        return memberships.things_in(con, name, after, size + 1, recursive=recursive)

    shown, more = page(await call.read(read), size, str)
    return {"things": shown, **more}


async def list_thing_groups_for_thing(call: Call) -> Answer:
    name = call.params["thingName"]
    after, size = start_of(call.params, str) or "", page_size(call.params)

    def read(con: Con) -> list[str]:
        things.get(con, name)
        return [group for group in memberships.groups_of(con, name) if group > after]

    shown, more = page(await call.read(read), size, str)
    return {"thingGroups": [named(call, group) for group in shown], **more}


def named_by(call: Call, member: str, kind: str) -> str:
    """The thing or group that a request gives by name or by ARN.

    Raises:
        InvalidRequestException: by neither, by two different ones, or by an ARN of something else.
    """
    name, arn = call.params.get(f"{member}Name"), call.params.get(f"{member}Arn")
    if arn is not None:
        of_kind, _, from_arn = call.plane.resource(arn).partition("/")
        if of_kind != kind or (name or from_arn) != from_arn:
            raise InvalidRequestException(f"{member}Arn does not name that {kind}")
        return from_arn
    if name is None:
        raise InvalidRequestException(f"{member}Name or {member}Arn is required")
    return str(name)
