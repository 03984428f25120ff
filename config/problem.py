"""What is wrong with a configuration, and where: a value for each problem, an exception for all of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KeyPath = tuple[str | int, ...]
"""The way from the top of a document, or of the settings, to a value: keys and indices."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is written. `line` and `column` count from 1; `path` is the way to it inside that file."""

    file: Path
    line: int = 1
    column: int = 1
    path: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend; never shows a secret."""

    file: Path
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        what = f"{self.path}: {self.message}" if self.path else self.message
        return f"{self.file}:{self.line}:{self.column}: {what}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found at `path`, before anyone knows in which file that is. `at_key`: about the key itself."""

    path: KeyPath
    message: str
    is_warning: bool = False
    at_key: bool = False

    def below(self, *path: str | int) -> "Finding":
        """The same, seen from further up."""
        return Finding((*path, *self.path), self.message, self.is_warning, self.at_key)


class ConfigError(Exception):
    """A configuration can't be used: every problem that was found, in the order of files and lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class UnreadableError(ConfigError):
    """The file itself can't be read: it is missing, a directory, or not ours to read."""


def problem(place: Place, message: str) -> Problem:
    return Problem(place.file, place.line, place.column, place.path, message)


def shown(path: KeyPath) -> str:
    """`("behaviors", 0, "name")` as `behaviors[0].name`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
