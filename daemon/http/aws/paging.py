"""`nextToken`: where the next page begins, opaque to clients, refused when it is not one of ours."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, Final, TypeVar

import msgspec

from daemon.control.refusal import InvalidRequestException

T = TypeVar("T")
PAGE_MAX: Final = 250  # spec.md §10.1; also the page where none is asked for
STRANGE: Final = "nextToken is not one that this list gave out"
REGISTRY_PAGE: Final = 50  # of things and types, where none is asked for


def opened(operation: str, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a request; its token is one that this operation gave out. Raises `InvalidRequestException`."""
    if token := params.get("nextToken"):
        mark = _mark(operation)
        if not token.startswith(mark):
            raise InvalidRequestException(STRANGE)
        params["nextToken"] = token[len(mark) :]
    return params


def sealed(operation: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer whose token only this operation takes."""
    token = answer.get("nextToken")
    return {**answer, "nextToken": _mark(operation) + token} if token else answer


@cache
def _mark(operation: str) -> str:
    return base64.urlsafe_b64encode(blake2b(operation.encode(), digest_size=6).digest()).decode()


def page_size(params: Mapping[str, Any], default: int = PAGE_MAX) -> int:
    """How many to answer with."""
    return int(params.get("maxResults") or default)


def start_of(params: Mapping[str, Any], kind: type[T]) -> T | None:
    """What the page's token says, as `token_of` was given it; None on the first page.

    Raises:
        InvalidRequestException: the token is not one of this list's.
    """
    token = params.get("nextToken")
    if not token:
        return None
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(token), type=kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise InvalidRequestException(STRANGE) from None
    parts = place if isinstance(place, tuple) else (place,)
    if any(isinstance(part, int) and not -(2**63) <= part < 2**63 for part in parts):
        raise InvalidRequestException(STRANGE)  # no column holds it
    return place


def token_of(place: object) -> str:
    """A token that `start_of` gives `place` back from."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def page(rows: Sequence[T], size: int, place_of: Callable[[T], object]) -> tuple[Sequence[T], dict[str, str]]:
    """Of `size` + 1 rows asked for: the page, and the `nextToken` member where there is more.

    `place_of` gives what the token says: the place of the page's last row, so that writes in between move nothing.
    """
    if len(rows) <= size:
        return rows, {}
    return rows[:size], {"nextToken": token_of(place_of(rows[size - 1]))}
