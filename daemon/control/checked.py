"""What a request defines, as values of `config.model`, or the refusal that names every problem in it."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from config.problem import Finding, shown
from config.shape import shaped
from daemon.control.refusal import InvalidRequestException

Defined = TypeVar("Defined", bound=msgspec.Struct)

PROBLEMS_MAX: Final = 100
MESSAGE_MAX: Final = 2048
"""Characters of one problem: the service model's limit of a ValidationError."""


def made_of(params: Mapping[str, Any], kind: type[Defined]) -> Defined:
    """The object that a request's members describe; members that it has not (a token, a flag) are left out.

    So are its tags, which have a table, and checks, of their own (daemon/control/tags.py).

    Raises:
        InvalidRequestException: the service model allows it, detectd's does not; every problem, a line each.
    """
    members = {field.encode_name for field in msgspec.structs.fields(kind)} - {"tags"}
    made, faults = shaped({key: value for key, value in params.items() if key in members}, kind, Path)
    refuse(faults)
    assert made is not None
    return made


def refuse(findings: Iterable[Finding]) -> None:
    """Raises `InvalidRequestException` where there is an error among these; warnings pass."""
    problems = errors(findings)
    if problems:
        raise InvalidRequestException("\n".join(problems))


def errors(findings: Iterable[Finding]) -> list[str]:
    """The errors, in words. No more than `PROBLEMS_MAX` are looked for: a request can be wrong in 100 000 places."""
    found = list(islice(_said(findings), PROBLEMS_MAX + 1))
    return found if len(found) <= PROBLEMS_MAX else [*found[:PROBLEMS_MAX], "there is more that is wrong"]


def _said(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in findings:
        if finding.is_warning:
            continue
        names_itself = finding.message.startswith("Behavior ") or not finding.path
        text = finding.message if names_itself else f"{shown(finding.path)}: {finding.message}"
        yield text[:MESSAGE_MAX]
