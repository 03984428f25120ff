"""Thing groups (spec.md §10.7)."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from daemon.control import attributes, tags, thing_groups
from daemon.control.owned import refuse_if_of_file, refuse_other_version
from daemon.control.plane import Call
from daemon.control.refusal import InvalidRequestException, ResourceAlreadyExistsException
from daemon.control.rules import Con
from daemon.control.thing_groups import ThingGroup
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]


async def create_thing_group(call: Call) -> Answer:
    """The same request again is the same group; another of the same name is refused. The parent is for good."""
    name, plane = call.params["thingGroupName"], call.plane
    wanted, given = _wanted(call), call.params.get("tags", ())

    def create(con: Con) -> ThingGroup:
        known = thing_groups.find(con, name)
        if known is not None:
            return _same(call, con, known, wanted)
        if wanted.parent is not None:
            thing_groups.check_parent(con, wanted.parent)
        attributes.refuse_too_many(f"thing group {name}", wanted.attributes, thing_groups.ATTRIBUTES_MAX)
        thing_groups.insert(con, wanted)
        tags.put(con, thing_groups.resource(name), given, InvalidRequestException)  # the model has no limit here
        return wanted

    made = await call.change(create, thing_groups.resource(name))
    return {
        "thingGroupName": name,
        "thingGroupArn": plane.arn(thing_groups.resource(name)),
        "thingGroupId": made.id,
    }


def _wanted(call: Call) -> ThingGroup:
    properties = call.params.get("thingGroupProperties", {})
    return ThingGroup(
        name=call.params["thingGroupName"],
        id=str(uuid4()),
        parent=call.params.get("parentGroupName"),
        description=properties.get("thingGroupDescription"),
        attributes=attributes.changed({}, properties.get("attributePayload")),
        version=1,
        created_ns=call.plane.now_ns(),
        by_api=True,
        file=None,
    )


def _same(call: Call, con: Con, known: ThingGroup, wanted: ThingGroup) -> ThingGroup:
    described = (known.parent, known.description, known.attributes)
    is_same = described == (wanted.parent, wanted.description, wanted.attributes)
    if not is_same or not tags.same(con, thing_groups.resource(known.name), call.params.get("tags", ())):
        # AWS's words: there are clients that look for them.
        message = f"Thing Group {known.name} already exists in current account with different properties"
        arn = call.plane.arn(thing_groups.resource(known.name))
        raise ResourceAlreadyExistsException(message, known.name, arn)
    thing_groups.claim(con, known.name)
    return known


async def describe_thing_group(call: Call) -> Answer:
    name, arn = call.params["thingGroupName"], call.plane.arn
    group, above = await call.read(lambda con: (thing_groups.get(con, name), thing_groups.ancestors(con, name)))
    return {
        "thingGroupName": name,
        "thingGroupId": group.id,
        "thingGroupArn": arn(thing_groups.resource(name)),
        "version": group.version,
        "thingGroupProperties": _properties(group),
        "thingGroupMetadata": {
            "parentGroupName": group.parent,
            "rootToParentThingGroups": [named(call, each) for each in above] if above else None,
            "creationDate": group.created_ns,
        },
    }


def _properties(group: ThingGroup) -> Mapping[str, Any]:
    payload = {"attributes": group.attributes} if group.attributes else None
    return {"thingGroupDescription": group.description, "attributePayload": payload}


async def update_thing_group(call: Call) -> Answer:
    """A file's group may have a description and attributes too: files don't say any."""
    name, properties = call.params["thingGroupName"], call.params["thingGroupProperties"]

    def update(con: Con) -> int:
        known = thing_groups.get(con, name)
        refuse_other_version(f"thing group {name}", known.version, call.params.get("expectedVersion"))
        given = attributes.changed(known.attributes, properties.get("attributePayload"))
        attributes.refuse_too_many(f"thing group {name}", given, thing_groups.ATTRIBUTES_MAX)
        return thing_groups.update(con, name, properties.get("thingGroupDescription", known.description), given)

    return {"version": await call.change(update, thing_groups.resource(name), rules=False)}


async def delete_thing_group(call: Call) -> Answer:
    """One that is not there is gone already; one with groups in it is refused."""
    name = call.params["thingGroupName"]

    def delete(con: Con) -> None:
        known = thing_groups.find(con, name)
        if known is None:
            return
        refuse_if_of_file(f"thing group {name}", known.file)
        refuse_other_version(f"thing group {name}", known.version, call.params.get("expectedVersion"))
        thing_groups.delete(con, name)

    await call.change(delete, thing_groups.resource(name))
    return {}


async def list_thing_groups(call: Call) -> Answer:
    """All groups, or those in `parentGroup`; `recursive` false: only its children, or only the roots."""
    after, size = start_of(call.params, str) or "", page_size(call.params)
    parent, prefix = call.params.get("parentGroup"), call.params.get("namePrefixFilter", "")
    recursive = call.params.get("recursive", True)

    def read(con: Con) -> list[str]:
        if parent is not None:
            thing_groups.get(con, parent)
        return thing_groups.listing(con, after, size + 1, parent, prefix, recursive=recursive)

    shown, more = page(await call.read(read), size, str)
    return {"thingGroups": [named(call, name) for name in shown], **more}


def named(call: Call, name: str) -> Answer:
    return {"groupName": name, "groupArn": call.plane.arn(thing_groups.resource(name))}
