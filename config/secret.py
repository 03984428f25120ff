"""A value that never prints itself, and the files that secrets are kept in."""

import hmac
import stat
from pathlib import Path
from typing import Final, NoReturn

from config.problem import ConfigError, Place, problem

HIDDEN: Final = "<secret>"
BYTES_MAX: Final = 64 * 1024  # no secret is longer; a mistaken path may lead to anything


class Secret:
    """Text that only `reveal` shows: not repr, str, format, pickle or JSON."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        # In constant time: an access key's secret may be compared with what a stranger sent.
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")


def read_secret(path: Path) -> Secret:
    """The secret that a file holds, stripped of surrounding whitespace (design.md §5).

    Raises:
        ConfigError: the file is missing, unreadable, too large, no text, or empty. The text is not shown.
    """
    text = _read(path).strip()
    if not text:
        raise _refused(path, "the secret file is empty")
    return Secret(text)


def loose(path: Path) -> str | None:
    """A warning where others than the owner may read or write a secret file; None where not, or where there is none."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    if mode & 0o077 == 0:
        return None
    return f"secret file {path} is open to others than its owner (mode {mode:04o}); chmod 600 closes it"


def _read(path: Path) -> str:
    try:
        # A pipe or a terminal would be waited for: only what is a file is opened.
        if not path.is_file():
            raise _refused(path, "there is no such secret file" if not path.exists() else "the secret file is no file")
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
        if len(content) > BYTES_MAX:
            raise _refused(path, f"the secret file is larger than {BYTES_MAX // 1024} KiB")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise _refused(path, f"the secret file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        # Not chained: the error holds what it could not decode.
        raise _refused(path, "the secret file is no UTF-8 text") from None


def _refused(path: Path, message: str) -> ConfigError:
    return ConfigError([problem(Place(path), message)])
