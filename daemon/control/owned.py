"""What a file defines can't be changed through the API: who owns a row, and how that is said."""

from daemon.control.refusal import InvalidRequestException, VersionConflictException


def refuse_if_of_file(what: str, file: str | None) -> None:
    """Raises `InvalidRequestException` where a file defines it. `what` is like "security profile NAME"."""
    if file is not None:
        raise InvalidRequestException(f"{what} is defined in {file}: change it there")


def refuse_other_version(what: str, version: int, expected: int | None) -> None:
    """Raises `VersionConflictException` where another version was expected."""
    if expected is not None and expected != version:
        raise VersionConflictException(f"{what} has version {version}, not {expected}")
