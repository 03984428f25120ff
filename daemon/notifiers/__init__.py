"""The kinds of receivers, one file each: a module that exports `NOTIFIER` is a kind, and no list is edited."""

import sys
from typing import Any

import aiohttp

from config.kinds import discover
from config.model import Receivers
from daemon.notifiers._base import Notifier, NotifierKind, Tools

__all__ = ["ReceiverError", "build_all", "client_session", "kinds"]


class ReceiverError(Exception):
    """Receivers that can't be built: one line each, naming the receiver."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def kinds() -> dict[str, NotifierKind]:
    """{module: its kind}."""
    return discover(sys.modules[__name__], "NOTIFIER")


def build_all(receivers: Receivers, tools: Tools) -> dict[str, Notifier]:
    """Every configured receiver, by name. Raises `ReceiverError` with all problems; nothing has happened then."""
    by_options = {kind.options: kind for kind in kinds().values()}
    built: dict[str, Notifier] = {}
    problems: list[str] = []
    for options in _options(receivers):
        try:
            built[options.name] = by_options[type(options)].build(options, tools)
        except (ValueError, OSError) as error:
            problems.append(f"receiver '{options.name}': {error}")
    if problems:
        raise ReceiverError(problems)
    return built


def _options(receivers: Receivers) -> list[Any]:
    """The options of all receivers: every field of `Receivers` is a tuple of one kind's."""
    return [options for field in receivers.__struct_fields__ for options in getattr(receivers, field)]


def client_session() -> aiohttp.ClientSession:
    """The HTTP client that all receivers share: no cookies, no proxy from the environment, connections kept."""
    # No common limit on connections: dispatch bounds them per receiver, and a hanging one must not use up
    # what the others need.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
