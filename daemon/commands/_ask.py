"""Asks the running daemon over HTTP, for commands about what it holds; signed, where it wants to see an access key."""

import argparse
import asyncio
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
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
from daemon.access import ROLES, Role
from daemon.http.sigv4 import SERVICE

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # listened on, and asked here


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
) -> int:
    """`list` prints the rows of `/-/NAME`; any other action is posted to `/-/NAME/ACTION` with `where`.

    0 done, 1 the configuration is bad, has no key with this role, or the row is not there, 2 it can't be read,
    3 the daemon can't be reached.
    """
    settings = load(options.config, kinds()).settings
    is_list = options.action == "list"
    path = f"/-/{name}" if is_list else f"/-/{name}/{options.action}"
    try:
        answer = answered(settings, Question(path, need, "GET" if is_list else "POST", where), options.key)
    except (NoKey, Refused) as problem:
        print(problem, file=sys.stderr)
        return 1
    except Unreachable as problem:
        print(problem, file=sys.stderr)
        return 3
    for row in answer.get(name, ()):
        print(shown(row))
    return 0


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
    if key_id is not None:
        found = [key for key in http.access_keys if key.id == key_id]
    else:
        found = [key for key in http.access_keys if ROLES.index(key.role) >= ROLES.index(need)]
    if found:
        return found[0]
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
    return listen if address is None else str(Address(EVERYWHERE.get(address.host, address.host), address.port))


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
