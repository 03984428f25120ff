"""Brokers that are not ours: one file per kind, found by searching this package for its `BROKER` or `FEED`."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any
from urllib.parse import urlsplit

from config.model import Bridge
from daemon.brokers._base import Entry as Entry
from daemon.brokers._base import Feed, Kind, Source, Surroundings


@cache
def kinds() -> dict[str, Kind]:
    """{URL scheme: kind}."""
    found: dict[str, Kind] = _exported("BROKER")
    return {scheme: kind for kind in found.values() for scheme in kind.schemes}


@cache
def feeds() -> dict[str, Callable[[Bridge], Feed]]:
    """{module name, as in `Bridge.events`, and "tap": what makes a bridge's feed of that kind}."""
    return _exported("FEED")


def _exported(constant: str) -> dict[str, Any]:
    """{module name: its constant} for every module that has it: a feed or a log file is reached by no URL."""
    names = [info.name for info in iter_modules(__path__) if not info.name.startswith("_")]
    modules = {name: import_module(f"{__name__}.{name}") for name in names}
    return {name: getattr(module, constant) for name, module in modules.items() if hasattr(module, constant)}


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
