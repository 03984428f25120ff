"""Tags (spec.md §10.6)."""

from typing import Any

from config.export import EXPORT_BRIDGE
from daemon.control import tags
from daemon.control.owned import refuse_if_of_file
from daemon.control.plane import Call
from daemon.control.refusal import ResourceNotFoundException
from daemon.control.rules import Con
from daemon.http.aws.paging import PAGE_MAX, page, start_of

Answer = dict[str, Any]


async def tag_resource(call: Call) -> Answer:
    resource, given = call.plane.resource(call.params["resourceArn"]), call.params["tags"]

    def tag(con: Con) -> None:
        _must_be_ours(con, resource)
        tags.put(con, resource, given)

    await call.change(tag, resource, rules=any(each["Key"] == EXPORT_BRIDGE for each in given))
    return {}


async def untag_resource(call: Call) -> Answer:
    resource, keys = call.plane.resource(call.params["resourceArn"]), call.params["tagKeys"]

    def untag(con: Con) -> None:
        _must_be_ours(con, resource)
        tags.drop(con, resource, keys)

    await call.change(untag, resource, rules=EXPORT_BRIDGE in keys)
    return {}


async def list_tags_for_resource(call: Call) -> Answer:
    resource, after = call.plane.resource(call.params["resourceArn"]), start_of(call.params, str) or ""

    def read(con: Con) -> list[tuple[str, str]]:
        if not tags.file_of(con, resource)[0]:
            raise ResourceNotFoundException(f"there is no {resource}")
        return tags.of(con, resource)

    found = sorted((key, value) for key, value in await call.read(read) if key > after)
    shown, more = page(found, PAGE_MAX, lambda tag: tag[0])
    return {"tags": [{"Key": key, "Value": value} for key, value in shown], **more}


def _must_be_ours(con: Con, resource: str) -> None:
    exists, file = tags.file_of(con, resource)
    if not exists:
        raise ResourceNotFoundException(f"there is no {resource}")
    refuse_if_of_file(resource, file)
