"""Dimensions: named lists of topic filters (spec.md §6.1, §10.3)."""

from typing import Any

from config.model import Dimension
from config.objects import check_one_dimension
from daemon.control import vocabulary
from daemon.control.checked import made_of, refuse
from daemon.control.definitions import dimension_body, dimension_from
from daemon.control.plane import Call
from daemon.control.rules import Con
from daemon.control.vocabulary import DIMENSIONS, Word
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]


async def create_dimension(call: Call) -> Answer:
    """The same token and content again is the same dimension; all else of its name is refused (spec.md §6.3)."""
    dimension = made_of(call.params, Dimension)
    refuse(check_one_dimension(dimension))
    name, now_ns, arn_of = dimension.name, call.plane.now_ns(), call.plane.arn
    given, token = call.params.get("tags", ()), call.params["clientRequestToken"]

    def create(con: Con) -> None:
        vocabulary.create(con, DIMENSIONS, name, dimension_body(dimension), given, token, arn_of, now_ns)

    await call.change(create, DIMENSIONS.resource(name))
    return {"name": name, "arn": arn_of(DIMENSIONS.resource(name))}


async def update_dimension(call: Call) -> Answer:
    """The new list replaces the old one; there is but one type."""
    dimension = made_of(call.params, Dimension)
    refuse(check_one_dimension(dimension))
    name, body, now_ns = dimension.name, dimension_body(dimension), call.plane.now_ns()

    def update(con: Con) -> Word:
        return vocabulary.update(con, DIMENSIONS, name, lambda _: body, now_ns)

    return _described(call, await call.change(update, DIMENSIONS.resource(name)))


async def describe_dimension(call: Call) -> Answer:
    name = call.params["name"]
    return _described(call, await call.read(lambda con: vocabulary.get(con, DIMENSIONS, name)))


async def delete_dimension(call: Call) -> Answer:
    """One that is not there is gone already; one in use is to be taken out of the profiles first (spec.md §6.1)."""
    name = call.params["name"]
    await call.change(lambda con: vocabulary.delete(con, DIMENSIONS, name), DIMENSIONS.resource(name))
    return {}


async def list_dimensions(call: Call) -> Answer:
    after, size = start_of(call.params, str) or "", page_size(call.params)
    shown, more = page(await call.read(lambda con: vocabulary.names(con, DIMENSIONS, after, size + 1)), size, str)
    return {"dimensionNames": shown, **more}


def _described(call: Call, word: Word) -> Answer:
    dimension = dimension_from(word.name, word.body)
    return {
        "name": word.name,
        "arn": call.plane.arn(DIMENSIONS.resource(word.name)),
        "type": dimension.type,
        "stringValues": dimension.string_values,
        "creationDate": word.created_ns,
        "lastModifiedDate": word.modified_ns,
    }
