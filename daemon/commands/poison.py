"""`detectd poison list|retry|drop`: asks the running daemon."""

import argparse
import asyncio
import sys
from typing import Any

import aiohttp

from actors.metrics import kinds
from config.load import ConfigError, load
from daemon.commands import bad


def poison(options: argparse.Namespace) -> int:
    """0 done, 1 the configuration is bad or the entry is not there, 3 the daemon can't be reached."""
    try:
        listen = load(options.config, kinds()).settings.http.listen
    except ConfigError as problem:
        print(problem, file=sys.stderr)
        return bad(problem)
    try:
        return asyncio.run(_ask(f"http://{listen}/-/poison", options))
    except (aiohttp.ClientError, TimeoutError) as problem:
        print(f"can't reach the daemon at {listen}: {problem}", file=sys.stderr)
        return 3


async def _ask(url: str, options: argparse.Namespace) -> int:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        if options.action == "list":
            async with session.get(url) as response:
                for row in (await response.json())["poison"]:
                    print(_row(row))
            return 0
        where = {"actor": options.actor, "position": str(options.position)}
        async with session.post(f"{url}/{options.action}", params=where) as response:
            if response.status == 200:
                return 0
            print((await response.json())["message"], file=sys.stderr)
            return 1


def _row(row: dict[str, Any]) -> str:
    return f"{row['actor']}\t{row['position']}\t{row['time']}\t{row['subject']}\t{row['bytes']} B\t{row['error']}"
