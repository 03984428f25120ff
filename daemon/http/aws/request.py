"""A request's parameters: out of path, query, headers and body, each as the service model has it."""

from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec

from daemon.http.aws.members import Fault, shortened
from daemon.http.aws.model import Operation, Part

IGNORED: Final = frozenset({"x-id"})
"""Query parameters that SDKs add to say what they are doing."""
PARAMETERS_MAX: Final = 500


class Headers(Protocol):
    def get(self, name: str, /) -> str | None: ...


def parameters(
    operation: Operation, labels: Mapping[str, str], query: str, headers: Headers, body: bytes
) -> dict[str, Any]:
    """What was asked, by the model's own names; absent members are absent.

    `labels` are the path's, `query` is what follows the `?`, both as they came.

    Raises:
        Fault: it is not what the model asks for.
    """
    given = _query(query)
    found: dict[str, Any] = {}
    for part in operation.parts:
        value = _part(part, labels, given, headers)
        if value is not None:
            found[part.member] = value
    for name in given.keys() - IGNORED:
        raise Fault(shortened(name), "is not a query parameter of this operation")
    if body:
        found |= operation.body(_object(body), "")
    for member in sorted(operation.required - found.keys()):
        raise Fault(member, "is required")
    return found


def _part(part: Part, labels: Mapping[str, str], query: dict[str, list[str]], headers: Headers) -> Any:
    """The value of a part; a query parameter is taken out of `query`."""
    match part.location:
        case "uri":
            return part.read(_decoded(labels[part.name], part.member), part.member)
        case "querystring":
            texts = query.pop(part.name, None)
            if texts is None:
                return None
            if part.is_list:
                return part.read(texts, part.member)
            if len(texts) > 1:
                raise Fault(part.member, "is given more than once")
            return part.read(texts[0], part.member)
        case _:
            text = headers.get(part.name)
            return None if text is None else part.read(text, part.member)


def _decoded(text: str, path: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Fault(path, "is not UTF-8") from None


def _query(query: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except (ValueError, UnicodeDecodeError):
        raise Fault("", "the query string can't be read") from None
    for name, text in pairs:
        found.setdefault(name, []).append(text)
    return found


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as problem:
        raise Fault("", f"the body is not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise Fault("", "the body is not a JSON object")
    return value
