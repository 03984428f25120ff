"""Attributes of things and groups (spec.md §10.7): how a payload changes them, and how many there may be."""

from collections.abc import Mapping
from typing import Any

import msgspec

from daemon.control.refusal import InvalidRequestException


def read(text: str) -> dict[str, str]:
    return msgspec.json.decode(text, type=dict[str, str])


def written(attributes: Mapping[str, str]) -> str:
    return msgspec.json.encode(attributes, order="sorted").decode()


def changed(known: Mapping[str, str], payload: Mapping[str, Any] | None) -> dict[str, str]:
    """What a payload makes of them: `merge` joins, else it replaces; an empty value removes."""
    if payload is None or "attributes" not in payload:
        return dict(known)
    given: dict[str, str] = payload["attributes"]
    both = {**known, **given} if payload.get("merge") else given
    return {name: value for name, value in both.items() if value}


def refuse_too_many(what: str, attributes: Mapping[str, str], most: int) -> None:
    """Raises `InvalidRequestException`."""
    if len(attributes) > most:
        raise InvalidRequestException(f"{what} has at most {most} attributes, not {len(attributes)}")
