"""Values with their places, and what an unquoted scalar of YAML 1.2 means: what both readers of YAML make."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

DEPTH_MAX: Final = 64

_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(slots=True)
class Node:
    """A value and where it begins. Lines and columns count from 1."""

    data: Any
    line: int
    column: int
    items: list["Node"] = field(default_factory=list)
    members: dict[str, tuple["Node", "Node"]] = field(default_factory=dict)  # key -> (the key's place, the value)
    size: int = 1  # values in it, aliases followed


def scalar(text: str) -> Any:
    """What an unquoted scalar means: YAML 1.2, core schema."""
    if len(text) > 400:  # no number of ours: an integer of thousands of digits would raise
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        return int(text, 0)
    return text
