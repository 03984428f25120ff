"""CloudFormation's properties as the API's members: PascalCase to camelCase, and texts to what the API has there.

CloudFormation takes `"300"` for 300 and 300 for `"300"` (a `Count` is a text for it). What fits nowhere stays as it is,
for the checks to refuse.
"""

import re
from collections.abc import Mapping
from types import NoneType
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec

_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_TRUTH: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def api_members(properties: Mapping[str, Any], wanted: type[msgspec.Struct]) -> dict[str, Any]:
    """`properties` with the names and the types of `wanted`'s members."""
    fields = {each.encode_name: each.name for each in msgspec.structs.fields(wanted)}
    types = get_type_hints(wanted)
    made: dict[str, Any] = {}
    for key, value in properties.items():
        member = key if key in fields else key[:1].lower() + key[1:]
        made[member] = _as(value, types[fields[member]]) if member in fields else value
    return made


def property_of(member: str) -> str:
    """The property that a member of the API is in a template."""
    return "TargetArns" if member == "targets" else member[:1].upper() + member[1:]


def _as(value: Any, wanted: Any) -> Any:
    options = [each for each in get_args(wanted) if each is not NoneType] if NoneType in get_args(wanted) else [wanted]
    kind = options[0]
    match value:
        case dict() if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return api_members(value, kind)
        case dict() if get_origin(kind) is dict:
            return {key: _as(each, get_args(kind)[1]) for key, each in value.items()}
        case list() if get_origin(kind) is tuple:
            return [_as(each, get_args(kind)[0]) for each in value]
        case str():
            return _from_text(value, kind)
        case bool() | int() | float() if kind is str:
            return str(value).lower() if isinstance(value, bool) else str(value)
    return value


def _from_text(text: str, kind: Any) -> Any:
    if kind is int and _WHOLE.fullmatch(text):
        return int(text)
    if kind is float and _NUMBER.fullmatch(text):
        return int(text) if _WHOLE.fullmatch(text) else float(text)
    if kind is bool:
        return _TRUTH.get(text.lower(), text)
    return text
