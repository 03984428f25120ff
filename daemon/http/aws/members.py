"""Members of requests and answers, by their shapes in the service model: read, held against every constraint, written.

botocore's own validator checks types and required members only; the model says more: lengths, patterns, enumerations,
ranges. Instants are integer ns inside; epoch seconds in JSON, ISO-8601 or epoch seconds in a query (spec.md §0).
"""

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import msgspec
import regex

from config.model import MS, NS

Reader = Callable[[Any, str], Any]
"""(what came, its path for messages) -> the value. Raises `Fault`."""
Writer = Callable[[Any], Any]
SizeCheck = Callable[[int, str], None]
Spelled = msgspec.Struct | msgspec.Raw
"""What a handler has as the model has it: not looked into. Of a struct the names are held against the model's, once."""

INTEGERS: Final = {"integer": 2**31, "long": 2**63}
PLAIN: Final = frozenset({"string", "integer", "long", "double", "float", "boolean"})
"""What is written as it is."""
SECONDS_MAX: Final = 253_402_300_800  # the year 10000
LATEST_NS: Final = 9_223_372_036 * NS  # in 2262: of instants that 64 bits hold, the last whole second; later is this
NUMBER: Final = regex.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
PATTERN_S: Final = 0.1  # the longest that a pattern of the model may take over one value


class Fault(Exception):
    """A member is not what the model asks for; the message begins with its path."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)


# ---- from JSON ----


def from_json(shape: Any, *, bounded: bool = True) -> Reader:
    """What reads a value of this shape out of a decoded JSON body.

    `bounded`: hold lengths, ranges, patterns and enumerations against the model; without, only names and types.
    """
    return _READERS[shape.type_name](shape, bounded)


def _structure(shape: Any, bounded: bool) -> Reader:
    # Made at the first use: a shape may contain itself.
    @cache
    def members() -> dict[str, tuple[str, Reader]]:
        return {
            member.serialization.get("name", name): (name, from_json(member, bounded=bounded))
            for name, member in shape.members.items()
        }

    required = frozenset(shape.required_members)

    def read(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Fault(path, "must be an object")
        return members_of(value, members(), required, path)

    return read


def members_of(
    value: Mapping[str, Any], members: Mapping[str, tuple[str, Reader]], required: frozenset[str], path: str
) -> dict[str, Any]:
    """The members of an object; null is absent. Raises `Fault`."""
    found = {}
    for key, inner in value.items():
        if key not in members:
            raise Fault(below(path, shortened(key)), "is not a member of the request")
        if inner is not None:
            name, read = members[key]
            found[name] = read(inner, below(path, key))
    for name in sorted(required - found.keys()):
        raise Fault(below(path, name), "is required")
    return found


def _list(shape: Any, bounded: bool) -> Reader:
    return _list_of(from_json(shape.member, bounded=bounded), _size(shape, "elements", bounded))


def _list_of(read_member: Reader, check: SizeCheck) -> Reader:
    def read(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise Fault(path, "must be a list")
        check(len(value), path)
        return [read_member(inner, f"{path}[{at}]") for at, inner in enumerate(value)]

    return read


def _map(shape: Any, bounded: bool) -> Reader:
    read_key, read_value = from_json(shape.key, bounded=bounded), from_json(shape.value, bounded=bounded)
    check = _size(shape, "entries", bounded)

    def read(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Fault(path, "must be an object")
        check(len(value), path)
        present = {key: inner for key, inner in value.items() if inner is not None}
        return {
            read_key(key, f"{path}, key {shortened(key)!r}"): read_value(inner, below(path, shortened(key)))
            for key, inner in present.items()
        }

    return read


def _string(shape: Any, bounded: bool) -> Reader:
    rules = shape.metadata if bounded else {}
    check, values, pattern = _size(shape, "characters", bounded), rules.get("enum"), rules.get("pattern")
    matches = _pattern(pattern) if pattern else None

    def read(value: Any, path: str) -> str:
        if not isinstance(value, str):
            raise Fault(path, "must be a string")
        check(len(value), path)
        if values is not None and value not in values:
            raise Fault(path, f"must be one of {', '.join(values)}")
        if matches is not None and not matches(value):
            raise Fault(path, f"must match {pattern}")
        if "\0" in value or not value.isascii():
            _reject_unspeakable(value, path)
        return value

    return read


def _reject_unspeakable(value: str, path: str) -> None:
    """Lone surrogates are no text; no database and no answer could carry them."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Fault(path, "is not valid Unicode") from None


@cache
def _pattern(pattern: str) -> Callable[[str], bool]:
    compiled = regex.compile(pattern)

    def matches(value: str) -> bool:
        try:
            return compiled.fullmatch(value, timeout=PATTERN_S) is not None
        except TimeoutError:
            return False

    return matches


def _integer(shape: Any, bounded: bool) -> Reader:
    bound = INTEGERS[shape.type_name]
    rules = shape.metadata if bounded else {}
    low, high = rules.get("min", -bound), rules.get("max", bound - 1)

    def read(value: Any, path: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Fault(path, "must be a whole number")
        if not low <= value <= high:
            raise Fault(path, f"must be from {low} to {high}")
        return value

    return read


def _double(value: Any, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Fault(path, "must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Fault(path, "must be a finite number")
    return number


def _boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise Fault(path, "must be true or false")
    return value


def _timestamp(value: Any, path: str) -> int:
    if isinstance(value, str):
        return _instant(value, path)
    return _epoch_ns(_double(value, path), path)


def _blob(value: Any, path: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Fault(path, "must be base64") from None


def _size(shape: Any, what: str, bounded: bool) -> SizeCheck:
    rules = shape.metadata if bounded else {}
    low, high = rules.get("min", 0), rules.get("max", math.inf)

    def check(size: int, path: str) -> None:
        if size < low:
            raise Fault(path, f"must have at least {low} {what}")
        if size > high:
            raise Fault(path, f"must have at most {high} {what}")

    return check


_READERS: Final[Mapping[str, Callable[[Any, bool], Reader]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "integer": _integer,
    "long": _integer,
    "double": lambda *_: _double,
    "float": lambda *_: _double,
    "boolean": lambda *_: _boolean,
    "timestamp": lambda *_: _timestamp,
    "blob": lambda *_: _blob,
}


# ---- from a path, a query or a header ----


def from_text(shape: Any) -> Reader:
    """What reads a value of this shape out of text; a list, out of a list of texts."""
    match shape.type_name:
        case "list":
            return _list_of(from_text(shape.member), _size(shape, "elements", bounded=True))
        case "integer" | "long":
            read = _integer(shape, bounded=True)
            return lambda text, path: read(_whole(text, path), path)
        case "boolean":
            return _flag
        case "timestamp":
            return _instant
        case _:
            return from_json(shape)


def _whole(text: str, path: str) -> int:
    if len(text) > 20 or not text.removeprefix("-").isdecimal() or not text.isascii():
        raise Fault(path, "must be a whole number")
    return int(text)


def _flag(text: str, path: str) -> bool:
    match text.lower():
        case "true":
            return True
        case "false":
            return False
    raise Fault(path, "must be true or false")


def _instant(text: str, path: str) -> int:
    """ISO-8601, or epoch seconds."""
    # Python's own float() takes more: digits of other scripts, underscores, spaces.
    return _epoch_ns(float(text), path) if NUMBER.fullmatch(text) else _iso_ns(text, path)


def _iso_ns(text: str, path: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise Fault(path, "must be an instant like 2026-01-02T03:04:05Z") from None
    since = (instant if instant.tzinfo else instant.replace(tzinfo=UTC)) - datetime.fromtimestamp(0, UTC)
    return _epoch_ns((since.days * 86_400 + since.seconds) + since.microseconds / 1e6, path)


def _epoch_ns(seconds: float, path: str) -> int:
    if not 0 <= seconds < SECONDS_MAX:  # NaN too
        raise Fault(path, "must be an instant between 1970 and 9999")
    return min(round(seconds * 1e6) * 1000, LATEST_NS)


# ---- to JSON ----


def to_json(shape: Any) -> Writer:
    """What writes a value of this shape, without absent and None members. One that the shape lacks is a bug."""
    match shape.type_name:
        case "structure":
            return _write_structure(shape)
        case "list":
            write_member = to_json(shape.member)
            return lambda values: [write_member(value) for value in values]
        case "map":
            write_value = to_json(shape.value)
            return lambda values: {key: write_value(value) for key, value in values.items()}
        case "timestamp":
            return epoch_seconds
        case "blob":
            return lambda value: base64.b64encode(value).decode()
        case _:
            return lambda value: value


def _write_structure(shape: Any) -> Writer:
    @cache
    def members() -> dict[str, tuple[str, Writer | None]]:
        return {
            name: (member.serialization.get("name", name), None if member.type_name in PLAIN else to_json(member))
            for name, member in shape.members.items()
        }

    @cache
    def check(kind: type[msgspec.Struct]) -> None:
        spelled = {name for name, _ in members().values()}
        for field in msgspec.structs.fields(kind):
            if field.encode_name not in spelled:
                raise KeyError(field.encode_name)

    def write(value: Mapping[str, Any] | Spelled) -> dict[str, Any] | Spelled:
        if isinstance(value, msgspec.Raw):
            return value
        if isinstance(value, msgspec.Struct):
            check(type(value))
            return value
        written, known = {}, members()
        for name, inner in value.items():
            if inner is not None:
                name_there, write_inner = known[name]
                written[name_there] = inner if write_inner is None else write_inner(inner)
        return written

    return write


def epoch_seconds(ns: int) -> float:
    """Epoch seconds with milliseconds."""
    return ns // MS / 1000


# ---- paths ----


def below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def shortened(text: str) -> str:
    """What a client made up, in a message: not all of it."""
    return text if len(text) <= 64 else f"{text[:64]}…"
