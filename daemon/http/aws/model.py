"""The service model: what operations there are, and what their members look like. botocore's copy of AWS's own.

Loading takes a fifth of a second: `load` once, in a thread, before the first request needs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from daemon.http.aws.members import Reader, Writer, from_json, from_text, members_of, to_json

BODY: Final = ""  # the location of what is in the body
JUDGED: Final = frozenset({"behaviors"})
"""Members of which the check of definitions says what is wrong, all at once, in AWS's words (spec.md §3.3, §5.4)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A member of a request that is not in the body."""

    member: str
    name: str  # of the label, query parameter or header
    location: str  # uri | querystring | header
    read: Reader = field(compare=False)
    is_list: bool


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, ready to be answered."""

    name: str
    method: str
    uri: str
    status: int
    parts: tuple[Part, ...]
    body: Reader = field(compare=False)  # decoded JSON -> the members in it, but for which are required
    required: frozenset[str]
    write: Writer = field(compare=False)


@cache
def load() -> Mapping[str, Operation]:
    """All operations by name."""
    service = _service()
    return {name: operation(service.operation_model(name)) for name in service.operation_names}


@cache
def status_of(code: str) -> int | None:
    """The HTTP status of an exception of the model; None where the model has none of that name."""
    service = _service()
    if code not in service.shape_names:
        return None
    return int(service.shape_for(code).metadata["error"]["httpStatusCode"])


@cache
def _service() -> Any:
    from botocore.loaders import Loader  # noqa: PLC0415  # a tenth of a second that a start need not wait for
    from botocore.model import ServiceModel  # noqa: PLC0415

    return ServiceModel(Loader().load_service_model("iot", "service-2"), "iot")


def operation(model: Any) -> Operation:
    """An operation, of botocore's `OperationModel`."""
    members = model.input_shape.members if model.input_shape else {}
    located = {name: shape.serialization.get("location", BODY) for name, shape in members.items()}
    return Operation(
        name=model.name,
        method=model.http["method"],
        uri=model.http["requestUri"].partition("?")[0],
        status=int(model.http.get("responseCode", 200)),
        parts=tuple(_part(name, members[name]) for name, location in located.items() if location != BODY),
        body=_body(model.input_shape, [name for name, location in located.items() if location == BODY]),
        required=frozenset(model.input_shape.required_members if model.input_shape else ()),
        write=to_json(model.output_shape) if model.output_shape else _nothing,
    )


def _body(shape: Any, names: Sequence[str]) -> Reader:
    payload = shape.serialization.get("payload") if shape else None
    if payload:  # one member is the whole body
        read = from_json(shape.members[payload])
        return lambda value, path: {payload: read(value, path)}
    members = {
        shape.members[name].serialization.get("name", name): (
            name,
            from_json(shape.members[name], bounded=name not in JUDGED),
        )
        for name in names
    }
    return lambda value, path: members_of(value, members, frozenset(), path)


def _part(member: str, shape: Any) -> Part:
    where = shape.serialization
    return Part(member, where["name"], where["location"], from_text(shape), is_list=shape.type_name == "list")


def _nothing(value: Any) -> dict[str, Any]:
    assert not value, "an operation without output has nothing to say"
    return {}
