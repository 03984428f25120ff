"""Asks the running daemon over HTTP, for commands that act on what it holds."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from actors.metrics import kinds
from config.load import ConfigError, load
from daemon.commands import bad


def ask(
    options: argparse.Namespace, name: str, where: Mapping[str, str], shown: Callable[[dict[str, Any]], str]
) -> int:
    """`list` prints the rows of `/-/NAME`; any other action is posted to `/-/NAME/ACTION` with `where`.

    0 done, 1 the configuration is bad or the row is not there, 2 it can't be read, 3 the daemon can't be reached.
    """
    try:
        listen = load(options.config, kinds()).settings.http.listen
    except ConfigError as problem:
        print(problem, file=sys.stderr)
        return bad(problem)
    try:
        return asyncio.run(_ask(f"http://{listen}/-/{name}", name, options.action, where, shown))
    except (aiohttp.ClientError, TimeoutError) as problem:
        print(f"can't reach the daemon at {listen}: {problem}", file=sys.stderr)
        return 3


async def _ask(
    url: str, name: str, action: str, where: Mapping[str, str], shown: Callable[[dict[str, Any]], str]
) -> int:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        if action == "list":
            async with session.get(url, params=where) as response:
                answer = await response.json()
        else:
            async with session.post(f"{url}/{action}", params=where) as response:
                answer = await response.json()
        if response.status != 200:
            print(answer["message"], file=sys.stderr)
            return 1
        for row in answer.get(name, ()):
            print(shown(row))
        return 0
