"""`detectd record`: a part of the log as JSON Lines on stdout. It may run beside the daemon: it only reads."""

import argparse
import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing

import msgspec

from actors.controls import CHANGE, Change
from actors.messages import Frames
from actors.metrics import kinds
from config.diff import rules_from_bytes
from config.load import load
from config.model import Rules, Settings
from daemon.app import STORE
from daemon.log.reader import Gap, LogReader
from daemon.log.wire import RequestError, WireError
from daemon.reach import access, control
from daemon.record import header, lines
from daemon.store import rule_pieces


def record(options: argparse.Namespace) -> int:
    """0 done, 1 the configuration is bad, 3 the log can't be reached."""
    settings = load(options.config, kinds()).settings
    try:
        asyncio.run(_record(settings, options.first, options.last))
    except (OSError, WireError, RequestError, TimeoutError, sqlite3.Error, LookupError) as problem:
        print(f"can't read the log: {problem}", file=sys.stderr)
        return 3
    return 0


async def _record(settings: Settings, first: int | None, last: int | None) -> None:
    reader = LogReader(access(settings), settings.log.stream)
    async with asyncio.timeout(10):
        info = await reader.info()
    first = max(info.first, first or info.first)
    last = min(info.last, last or info.last)

    async def definition(digest: str) -> Rules:
        return _definition(settings, digest)

    out = sys.stdout.buffer
    before = await _rules_before(settings, first)
    out.write(header(info.identity, await definition(before) if before else Rules()))
    async for line in lines(_present(reader, first, last), definition):
        out.write(line)
    out.flush()


async def _present(reader: LogReader, first: int, last: int) -> AsyncIterator[Frames]:
    """What the log still has; a gap in it is a gap in the recording."""
    async for item in reader.read_range(first, last):
        if not isinstance(item, Gap):
            yield item


async def _rules_before(settings: Settings, first: int) -> str:
    """The digest of the rules in force before an entry, "" for none."""
    async with control(access(settings)) as nc:
        messages = await nc.jetstream().subscribe(CHANGE, ordered_consumer=True)
        digest = ""
        while True:
            try:
                message = await messages.next_msg(timeout=1)
            except TimeoutError:
                return digest
            if message.metadata.sequence.stream >= first:
                return digest
            digest = msgspec.json.decode(message.data, type=Change).digest


def _definition(settings: Settings, digest: str) -> Rules:
    with closing(sqlite3.connect(f"file:{settings.data_dir / STORE}?mode=ro", uri=True)) as store:
        body = rule_pieces.get(store, digest)
    if body is None:
        raise LookupError(f"the log names rules {digest[:12]}… that the store does not have")
    return rules_from_bytes(body)
