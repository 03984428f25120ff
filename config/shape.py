"""Plain values to the structures of `config.model`: all that does not fit at once, each with its path.

Where everything fits, one compiled conversion does it. Only where it does not, the values are walked to find every
fault; null for a member that may be left out counts as left out.
"""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from config.problem import Finding, KeyPath

T = TypeVar("T")

_KINDS: Final[dict[type, str]] = {
    str: "text",
    Path: "a path",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
    NoneType: "nothing",
}
_SHOWN_MAX: Final = 40


def shaped(data: Any, wanted: type[T], path_of: Callable[[str], Path]) -> tuple[T | None, list[Finding]]:
    """`data` as `wanted`, or the faults. `path_of` makes the text of a `Path` member one."""

    def hook(kind: type, value: Any) -> Any:
        if kind is Path and isinstance(value, str):
            return path_of(value)
        raise NotImplementedError

    try:
        return msgspec.convert(data, wanted, dec_hook=hook), []
    except (msgspec.ValidationError, NotImplementedError):
        faults: list[Finding] = []
        data = _walk(data, wanted, (), faults)
    if faults:
        return None, faults
    return msgspec.convert(data, wanted, dec_hook=hook), []


def near(name: str, known: Iterator[str] | list[str]) -> str | None:
    """The known name that was probably meant: spelled in another case or with other separators, or with a slip."""
    plain = {_plain(each): each for each in known}
    close = [_plain(name)] if _plain(name) in plain else get_close_matches(_plain(name), plain, n=1)
    return plain[close[0]] if close else None


def did_you_mean(name: str, known: Iterator[str] | list[str]) -> str:
    """`, did you mean "X"?`, or nothing."""
    meant = near(name, known)
    return f', did you mean "{meant}"?' if meant is not None else ""


def _walk(data: Any, wanted: Any, path: KeyPath, faults: list[Finding]) -> Any:
    """`data` without the nulls that stand for nothing; what does not fit is added to `faults`."""
    wanted = _without_none(wanted)
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return _structure(data, wanted, path, faults)
    if get_origin(wanted) is tuple:
        return _list(data, get_args(wanted)[0], path, faults)
    if get_origin(wanted) is dict:
        return _mapping(data, get_args(wanted)[1], path, faults)
    message = _misfit(data, wanted)
    if message:
        faults.append(Finding(path, message))
    return data


def _structure(data: Any, wanted: type[msgspec.Struct], path: KeyPath, faults: list[Finding]) -> Any:
    if not isinstance(data, dict):
        faults.append(Finding(path, _expected("a mapping", data)))
        return data
    fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
    types = get_type_hints(wanted)
    kept = {}
    for key, value in data.items():
        if key not in fields:
            faults.append(Finding((*path, key), _unknown(key, list(fields)), at_key=True))
        elif value is not None or fields[key].required:
            kept[key] = _walk(value, types[fields[key].name], (*path, key), faults)
    missing = [key for key, field in fields.items() if field.required and key not in data]
    faults.extend(Finding(path, f'"{key}" is missing') for key in missing)
    return kept


def _list(data: Any, item: Any, path: KeyPath, faults: list[Finding]) -> Any:
    if not isinstance(data, list):
        faults.append(Finding(path, _expected("a list", data)))
        return data
    return [_walk(each, item, (*path, at), faults) for at, each in enumerate(data)]


def _mapping(data: Any, item: Any, path: KeyPath, faults: list[Finding]) -> Any:
    if not isinstance(data, dict):
        faults.append(Finding(path, _expected("a mapping", data)))
        return data
    # A group without members is often written with nothing after the colon: a structure that needs nothing.
    empty = isinstance(item, type) and issubclass(item, msgspec.Struct)
    return {
        key: _walk({} if each is None and empty else each, item, (*path, key), faults) for key, each in data.items()
    }


def _misfit(data: Any, wanted: Any) -> str | None:
    """Why a single value does not fit; None where it does."""
    if wanted is Any:
        return None
    if get_origin(wanted) is Literal:
        choices = list(get_args(wanted))
        return None if data in choices else _no_choice(data, choices)
    accepted = {float: (int, float), Path: (str,)}.get(wanted, (wanted,))
    if isinstance(data, accepted) and isinstance(data, bool) == (wanted is bool):
        return _too_large(data, wanted)
    hint = "; put it in quotes" if wanted in {str, Path} and isinstance(data, bool | int | float) else ""
    return _expected(_KINDS[wanted], data) + hint


def _too_large(data: Any, wanted: Any) -> str | None:
    """An integer beyond every float; how large an integer may be is for the checks to say."""
    too_large = wanted is float and isinstance(data, int) and abs(data) >= 2**1023
    return "the number is too large" if too_large else None


def _no_choice(data: Any, choices: list[str]) -> str:
    if not isinstance(data, str):
        return f"{_expected('text', data)}; it is one of {', '.join(choices)}"
    return f"unknown {_quoted(data)}{did_you_mean(data, choices) or '; it is one of ' + ', '.join(choices)}"


def _unknown(key: str, known: list[str]) -> str:
    return f"unknown key {_quoted(key)}{did_you_mean(key, known) or '; known are ' + ', '.join(known)}"


def _expected(what: str, data: Any) -> str:
    return f"expected {what}, got {_KINDS[type(data)]}"


def _quoted(text: str) -> str:
    return f'"{text}"' if len(text) <= _SHOWN_MAX else f'"{text[:_SHOWN_MAX]}…"'


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(":", "").removeprefix("aws")


def _without_none(wanted: Any) -> Any:
    if get_origin(wanted) in {Union, UnionType}:
        others = [each for each in get_args(wanted) if each is not NoneType]
        assert len(others) == 1, wanted
        return others[0]
    return wanted
