"""Brokers that are not ours: one file per kind, found by searching this package for its `BROKER`."""

import sys
from functools import cache
from urllib.parse import urlsplit

from config.kinds import discover
from config.model import Bridge
from daemon.brokers._base import Entry as Entry
from daemon.brokers._base import Kind, Source, Surroundings


@cache
def kinds() -> dict[str, Kind]:
    """{URL scheme: kind}."""
    found: dict[str, Kind] = discover(sys.modules[__name__], "BROKER")
    return {scheme: kind for kind in found.values() for scheme in kind.schemes}


def build(options: Bridge, surroundings: Surroundings) -> Source:
    """The source for a bridge of the configuration.

    Raises:
        ValueError: no kind serves the URL's scheme, or an option can't work.
    """
    scheme = urlsplit(options.url).scheme
    kind = kinds().get(scheme)
    if kind is None:
        raise ValueError(
            f"bridge {options.name!r}: no broker is reached by {scheme!r}: use one of {', '.join(kinds())}"
        )
    return kind.build(options, surroundings)
