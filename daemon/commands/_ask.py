"""Asks the running daemon over HTTP, for commands about what it holds; signed, where it wants to see an access key."""

import argparse
import asyncio
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

from actors.metrics import kinds
from config.address import Address, parse_address
from config.load import load
from config.model import AccessKey, Http, Settings, Tls
from config.secret import read_secret
from daemon.http.access import ROLES, Role
from daemon.http.sigv4 import SERVICE

PAGE: Final = 1000
"""Rows that the daemon gives at a time, at most."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request to the daemon, and the role that it takes."""

    path: str
    need: Role
    method: str = "GET"
    where: Mapping[str, str] = field(default_factory=dict)


class NoKey(Exception):
    """No access key of the configuration will do; the message says for what."""


class Refused(Exception):
    """The daemon's answer is no; the message says why."""


class Unreachable(Exception):
    """Nobody answers there, or nobody that speaks as the daemon does."""


def ask(
    options: argparse.Namespace,
    name: str,
    where: Mapping[str, str],
    shown: Callable[[dict[str, Any]], str],
    need: Role = "read",
    limit: int | None = None,
) -> int:
    """`list` prints the rows of `/-/NAME`; any other action is posted to `/-/NAME/ACTION` with `where`.

    `limit`: the rows are numbered by `id`, and may be more than one answer holds: so many of the newest.

    0 done, 1 the configuration is bad, has no key with this role, or the row is not there, 2 it can't be read,
    3 the daemon can't be reached.
    """
    settings = load(options.config, kinds()).settings
    try:
        if options.action != "list":
            answered(settings, Question(f"/-/{name}/{options.action}", need, "POST", where), options.key)
        elif limit is None:
            for row in answered(settings, Question(f"/-/{name}", need, where=where), options.key)[name]:
                print(shown(row))
        else:
            _print_newest(_pages(settings, Question(f"/-/{name}", need, where=where), name, options.key), shown, limit)
    except (NoKey, Refused) as problem:
        print(problem, file=sys.stderr)
        return 1
    except Unreachable as problem:
        print(problem, file=sys.stderr)
        return 3
    return 0


def _print_newest(rows: Iterator[dict[str, Any]], shown: Callable[[dict[str, Any]], str], limit: int) -> None:
    for row in islice(rows, limit):
        print(shown(row))
    if next(rows, None) is not None:
        print(f"these are the newest {limit}: there are more (--limit)", file=sys.stderr)


def _pages(settings: Settings, first: Question, name: str, key_id: str | None) -> Iterator[dict[str, Any]]:
    """All rows, newest first, asked for as they are wanted."""
    where = {**first.where, "limit": str(PAGE)}
    while page := answered(settings, replace(first, where=where), key_id)[name]:
        yield from page
        where["before"] = str(page[-1]["id"])


def answered(settings: Settings, question: Question, key_id: str | None) -> dict[str, Any]:
    """The daemon's answer. `key_id`: sign with this key; None: with the first that has the role.

    Raises:
        ConfigError: the key's secret file can't be read.
        NoKey, Refused, Unreachable: as they say.
    """
    key = key_for(settings.http, question.need, key_id)
    try:
        status, answer = asyncio.run(_ask(settings, question, key))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
        raise Unreachable(f"can't reach the daemon at {settings.http.listen}: {problem}") from problem
    if status != 200:
        raise Refused(str(answer.get("message", f"HTTP {status}")))
    return answer


def key_for(http: Http, need: Role, key_id: str | None) -> AccessKey | None:
    """The key to sign with; None: none is needed. Raises `NoKey`."""
    named = [key for key in http.access_keys if key_id is None or key.id == key_id]
    found = [key for key in named if ROLES.index(key.role) >= ROLES.index(need)]
    if found:
        return found[0]
    if key_id is not None and named:
        raise NoKey(f"the access key {key_id} has the role {named[0].role}; this needs {need}")
    if key_id is not None:
        raise NoKey(f"the configuration has no access key {key_id}")
    if http.access_keys:
        raise NoKey(f"the configuration has no access key with the role {need}")
    return None


async def _ask(settings: Settings, question: Question, key: AccessKey | None) -> tuple[int, dict[str, Any]]:
    http = settings.http
    url = f"{url_of(http)}{question.path}{_query(question.where)}"
    headers = _signature(settings, question.method, url, key) if key else {}
    connector = aiohttp.TCPConnector(ssl=trusted(http.tls)) if http.tls else None
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(10)) as session,
        # `encoded`: what is signed is what is sent, to the letter.
        session.request(question.method, URL(url, encoded=True), headers=headers) as response,
    ):
        return response.status, await response.json()


def url_of(http: Http) -> str:
    """Where the daemon of a configuration answers, from this machine."""
    return f"{'https' if http.tls else 'http'}://{_reachable(http.listen)}"


def _query(where: Mapping[str, str]) -> str:
    return f"?{urlencode(where, quote_via=quote, safe='-_.~')}" if where else ""


def _reachable(listen: str) -> str:
    address = parse_address(listen)
    if address is None or not address.is_everywhere:
        return listen
    return str(Address("::1" if ":" in address.host else "127.0.0.1", address.port))


def _signature(settings: Settings, method: str, url: str, key: AccessKey) -> dict[str, str]:
    request = AWSRequest(method, url)
    who = Credentials(key.id, read_secret(key.secret_file).reveal())
    SigV4Auth(who, SERVICE, settings.account.region).add_auth(request)
    return dict(request.headers.items())


def trusted(tls: Tls) -> ssl.SSLContext:
    """The daemon's own certificate is the one that it must show; ours is the same, where it asks for one."""
    made = ssl.create_default_context(cafile=tls.cert)
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.check_hostname = False
    made.load_cert_chain(tls.cert, tls.key)
    return made
