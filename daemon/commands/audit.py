"""`detectd audit`: who changed what, newest first; from the daemon, or from its database when it doesn't run."""

import argparse
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from actors.metrics import kinds
from config.load import load
from config.model import NS, Settings
from daemon.app import STORE
from daemon.commands._ask import NoKey, Question, Refused, Unreachable, answered
from daemon.commands._moment import seconds_of
from daemon.control import audit as trail
from daemon.control.audit import Entry

PAGE: Final = 1000
SINCE_MAX_S: Final = 9e9  # in ns it still fits into an int64


def audit(options: argparse.Namespace) -> int:
    """0 done, 1 the configuration is bad or has no key that may, 2 `--since` is no moment, 3 there is no trail."""
    settings = load(options.config, kinds()).settings
    try:
        since_ns = _since_ns(options.since)
    except ValueError as problem:
        print(f"--since: {problem}", file=sys.stderr)
        return 2
    try:
        for entry in _entries(settings, since_ns, options.limit, options.key):
            print(_json(entry) if options.json else _line(entry))
    except (NoKey, Refused) as problem:
        print(problem, file=sys.stderr)
        return 1
    except (Unreachable, sqlite3.Error) as problem:
        print(problem, file=sys.stderr)
        return 3
    return 0


def _since_ns(text: str | None) -> int:
    if text is None:
        return 0
    seconds = seconds_of(text)
    if not 0 <= seconds < SINCE_MAX_S:
        raise ValueError(f"{text!r} is no moment between 1970 and 2255")
    return round(seconds * NS)


def _entries(settings: Settings, since_ns: int, limit: int, key_id: str | None) -> Iterator[Entry]:
    try:
        first = _asked(settings, since_ns, min(limit, PAGE), None, key_id)
    except Unreachable:
        path = settings.data_dir / STORE
        if not path.exists():
            raise
        print(f"the daemon doesn't answer: read from {path}", file=sys.stderr)
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as con:
            yield from trail.entries(con, since_ns, limit)
        return
    while first:
        yield from first
        limit -= len(first)
        first = _asked(settings, since_ns, min(limit, PAGE), first[-1].id, key_id) if limit else []


def _asked(settings: Settings, since_ns: int, limit: int, before: int | None, key_id: str | None) -> list[Entry]:
    where = {"since_ns": str(since_ns), "limit": str(limit), **({"before": str(before)} if before else {})}
    answer = answered(settings, Question("/-/audit", "admin", where=where), key_id)
    return msgspec.convert(answer["audit"], list[Entry])


def _line(entry: Entry) -> str:
    time = datetime.fromtimestamp(entry.time_ns / NS, UTC).isoformat(timespec="milliseconds")
    who = f"{entry.who} {entry.address}".strip()
    return f"{time}\t{who}\t{entry.action}\t{entry.resource}\t{entry.detail}"


def _json(entry: Entry) -> str:
    shown: dict[str, Any] = {
        "id": entry.id,
        "time": entry.time_ns / NS,
        "who": entry.who,
        "address": entry.address,
        "action": entry.action,
        "resource": entry.resource,
        "detail": msgspec.json.decode(entry.detail),
    }
    return msgspec.json.encode(shown).decode()
