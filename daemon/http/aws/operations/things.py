"""Things of the registry (spec.md §10.7)."""

from typing import Any

from daemon.control import attributes, things
from daemon.control.owned import refuse_if_of_file, refuse_other_version
from daemon.control.plane import Call
from daemon.control.refusal import InvalidRequestException, ResourceAlreadyExistsException
from daemon.control.rules import Con
from daemon.control.things import Thing
from daemon.http.aws.paging import REGISTRY_PAGE, page, page_size, start_of

Answer = dict[str, Any]


async def create_thing(call: Call) -> Answer:
    """The same request again is the same thing; another of the same name is refused."""
    name, plane, now_ns = call.params["thingName"], call.plane, call.plane.now_ns()
    type_, billing_group = call.params.get("thingTypeName"), call.params.get("billingGroupName")
    given = attributes.changed({}, call.params.get("attributePayload"))

    def create(con: Con) -> Thing:
        known = things.find(con, name)
        if known is not None:
            if (known.type, known.billing_group, known.attributes) != (type_, billing_group, given):
                message = f"there is a thing {name} already, with another configuration"
                raise ResourceAlreadyExistsException(message, name, plane.arn(things.resource(name)))
            things.claim(con, name)
            return known
        things.check(con, type_, billing_group)
        things.refuse_too_many(name, type_, given)
        made = things.new(name, type_, billing_group, given)
        things.insert(con, made, now_ns)
        return made

    made = await call.change(create, things.resource(name))
    return {"thingName": name, "thingArn": plane.arn(things.resource(name)), "thingId": made.id}


async def describe_thing(call: Call) -> Answer:
    name = call.params["thingName"]
    thing = await call.read(lambda con: things.get(con, name))
    return {
        **_listed(call, thing),
        "defaultClientId": name,
        "thingId": thing.id,
        "billingGroupName": thing.billing_group,
    }


async def update_thing(call: Call) -> Answer:
    """Attributes are replaced, or with `merge` joined; a file's thing may have them too: files don't say any."""
    name, type_, remove = call.params["thingName"], call.params.get("thingTypeName"), call.params.get("removeThingType")
    if type_ is not None and remove:
        raise InvalidRequestException("give thingTypeName or removeThingType, not both")

    def update(con: Con) -> None:
        known = things.get(con, name)
        refuse_other_version(f"thing {name}", known.version, call.params.get("expectedVersion"))
        given = attributes.changed(known.attributes, call.params.get("attributePayload"))
        after = type_ or (None if remove else known.type)
        things.check(con, type_, None)
        things.refuse_too_many(name, after, given)
        things.update(con, name, after, given)

    await call.change(update, things.resource(name), rules=False)
    return {}


async def delete_thing(call: Call) -> Answer:
    """One that is not there is gone already."""
    name = call.params["thingName"]

    def delete(con: Con) -> None:
        known = things.find(con, name)
        if known is None:
            return
        refuse_if_of_file(f"thing {name}", known.file)
        refuse_other_version(f"thing {name}", known.version, call.params.get("expectedVersion"))
        things.delete(con, name)

    await call.change(delete, things.resource(name))
    return {}


async def list_things(call: Call) -> Answer:
    after, size = start_of(call.params, int) or 0, page_size(call.params, REGISTRY_PAGE)
    type_, attribute = call.params.get("thingTypeName"), call.params.get("attributeName")
    value, prefix = call.params.get("attributeValue"), call.params.get("usePrefixAttributeValue", False)
    if value is not None and attribute is None:
        raise InvalidRequestException("attributeValue needs attributeName")
    wanted = None if attribute is None else (attribute, value)
    found = await call.read(lambda con: things.listing(con, after, size + 1, type_, wanted, prefix=prefix))
    shown, more = page(found, size, lambda thing: thing.seq)
    return {"things": [_listed(call, thing) for thing in shown], **more}


def _listed(call: Call, thing: Thing) -> Answer:
    return {
        "thingName": thing.name,
        "thingTypeName": thing.type,
        "thingArn": call.plane.arn(things.resource(thing.name)),
        "attributes": thing.attributes,
        "version": thing.version,
    }
