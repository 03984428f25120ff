"""Asks the running daemon over HTTP, for commands that act on what it holds."""

import argparse
import asyncio
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from actors.metrics import kinds
from config.load import load
from config.model import Http, Tls


def ask(
    options: argparse.Namespace, name: str, where: Mapping[str, str], shown: Callable[[dict[str, Any]], str]
) -> int:
    """`list` prints the rows of `/-/NAME`; any other action is posted to `/-/NAME/ACTION` with `where`.

    0 done, 1 the configuration is bad or the row is not there, 2 it can't be read, 3 the daemon can't be reached.
    """
    http = load(options.config, kinds()).settings.http
    try:
        return asyncio.run(_ask(http, name, options.action, where, shown))
    except (aiohttp.ClientError, TimeoutError, OSError) as problem:
        print(f"can't reach the daemon at {http.listen}: {problem}", file=sys.stderr)
        return 3


async def _ask(
    http: Http, name: str, action: str, where: Mapping[str, str], shown: Callable[[dict[str, Any]], str]
) -> int:
    url = f"{'https' if http.tls else 'http'}://{http.listen}/-/{name}"
    connector = aiohttp.TCPConnector(ssl=_trusted(http.tls)) if http.tls else None
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(10)) as session:
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


def _trusted(tls: Tls) -> ssl.SSLContext:
    """The daemon's own certificate is the one that it must show; ours is the same, where it asks for one."""
    made = ssl.create_default_context(cafile=tls.cert)
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.check_hostname = False
    made.load_cert_chain(tls.cert, tls.key)
    return made
