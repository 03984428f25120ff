"""What settings of any kind may have wrong with them: files, URLs, addresses, spans, names that come twice."""

import re
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from config.address import parse_address
from config.model import Tls
from config.problem import ConfigError, Finding
from config.secret import loose, read_secret

SECONDS_MAX: Final = 1e9
"""About 31 years: in nanoseconds it still fits into an int64 beside today's date."""
NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NAME_RULE: Final = 'must be 1 to 64 characters of a-z, A-Z, 0-9, "_" and "-"'

Found = Iterator[Finding]


def wrong(message: str, *path: str | int) -> Finding:
    """A setting that can't be."""
    return Finding(path, message)


def odd(message: str, *path: str | int) -> Finding:
    """One that is hardly meant: a warning."""
    return Finding(path, message, is_warning=True)


def seconds_at(seconds: float, *path: str, above: float | None = None, at_most: float = SECONDS_MAX) -> Found:
    """A span: 0 or more, or more than `above`; and within reason."""
    enough = seconds > above if above is not None else seconds >= 0
    if not isfinite(seconds) or not enough or seconds > at_most:
        least = f"more than {above:g}" if above is not None else "at least 0"
        yield wrong(f"{path[-1]} should be {least} and at most {at_most:g} seconds", *path)


def tls_at(tls: Tls | None, *path: str) -> Found:
    """TLS's files are there, and the key is the owner's alone."""
    if tls is None:
        return
    for name, file in (("cert", tls.cert), ("key", tls.key), ("ca", tls.ca)):
        if file is not None:
            yield from file_at(file, *path, name)
    warning = loose(tls.key)
    if warning:
        yield odd(warning, *path, "key")


def file_at(file: Path, *path: str) -> Found:
    """It is there."""
    if not file.is_file():
        yield wrong(f"there is no file {file}", *path)


def secret_at(file: Path, *path: str | int, look_at: Callable[[str], Found] = lambda _: iter(())) -> Found:
    """A secret file is there, holds something that `look_at` has nothing against, and is the owner's alone."""
    try:
        found = list(look_at(read_secret(file).reveal()))
    except ConfigError as error:
        found = [wrong(error.problems[0].message)]
    for each in found:
        yield Finding(path, f"{file}: {each.message}", each.is_warning)
    warning = loose(file)
    if warning:
        yield odd(warning, *path)


def url_of(text: str) -> SplitResult | None:
    """A URL with a host and a usable port, or None."""
    try:
        url = urlsplit(text)
        usable = bool(url.hostname) and url.port != 0 and text.isprintable() and " " not in text
    except ValueError:
        return None
    return url if usable else None


def is_local(url: SplitResult) -> bool:
    """On loopback."""
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    address = parse_address(f"{host}:0")
    return address is not None and address.is_loopback


def twice(names: Iterable[str], member: str, *path: str) -> Found:
    """Names are given once each; `member` is what has them, in the elements of a list."""
    seen = set()
    for at, name in enumerate(names):
        if name in seen:
            yield wrong(f'"{name}" is defined a second time', *path, at, member)
        seen.add(name)


def no_address(*path: str) -> Finding:
    """What is said of a setting that should be an address."""
    return wrong(f"{path[-1]} is an address like 127.0.0.1:8080 or [::1]:8080", *path)
