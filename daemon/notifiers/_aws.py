"""Who we are at AWS: credentials by botocore's usual chain, looked up without anyone else waiting for it.

The chain may read files, ask a metadata service or run a program, and any of these may hang. So each look-up has a
daemon thread of its own, never the loop nor the pool that name resolution uses; there is one at a time, which all
topics share, and what it found is used for a while.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from time import monotonic
from typing import Any, Final

KEPT_S: Final = 60.0
"""botocore renews what expires ten minutes ahead at the latest, so what it gave may be used this long."""
AGAIN_S: Final = 5.0
"""What was not found, or was refused, is not asked for more often than this."""
ENDPOINTS_MAX: Final = 64
"""There are fewer regions; what is forgotten is found again."""
WAIT_S: Final = 5.0
"""How long an attempt waits for a look-up."""


class NoCredentials(Exception):
    """There are none, or none yet. Its text holds no secret."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up brought: credentials, or why there are none."""

    keys: Any = field(default=None, repr=False)  # botocore's ReadOnlyCredentials
    why: str = ""


class Chain:
    """Credentials for whoever asks, in one event loop. `open_session` makes a botocore session, in a thread."""

    def __init__(self, open_session: Callable[[], Any] | None = None, clock: Callable[[], float] = monotonic) -> None:
        self.lookups = 0
        self._open = open_session or _open_session
        self._clock = clock
        self._session: Any = None
        self._found: Found | None = None
        self._until_s = 0.0
        self._looking: asyncio.Future[Found] | None = None
        self._endpoints: dict[tuple[str, str], str] = {}  # (service, region) -> its URL
        self._turn = asyncio.Lock()

    async def find(self) -> Found:
        """Credentials that may be used now. Raises `NoCredentials`."""
        found = self._found
        if found is None or self._clock() >= self._until_s:
            found = await self._look()
        if found.keys is None:
            raise NoCredentials(found.why)
        return found

    def refused(self, found: Found) -> None:
        """AWS does not take these (any more): the next look-up reads files and environment again."""
        if found is self._found and self._session is not None:
            self._session = None
            self._until_s = min(self._until_s, self._clock() + AGAIN_S)

    async def endpoint(self, service: str, region: str) -> str:
        """Where a service is in a region. Raises `NoCredentials` where botocore's configuration can't be read."""
        async with self._turn:  # making a client takes 50 ms of a processor
            if (service, region) not in self._endpoints:
                if len(self._endpoints) >= ENDPOINTS_MAX:
                    self._endpoints.clear()
                self._endpoints[service, region] = await asyncio.to_thread(self._find_endpoint, service, region)
            return self._endpoints[service, region]

    def _find_endpoint(self, service: str, region: str) -> str:
        try:
            return _endpoint(self._open(), service, region)
        except Exception as error:  # noqa: BLE001 - isolation, as below
            raise NoCredentials(f"AWS's configuration can't be read ({type(error).__name__})") from None

    async def _look(self) -> Found:
        if self._looking is None:
            self._looking = self._start()
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(self._looking)  # others wait for it too
        except TimeoutError:
            raise NoCredentials("no AWS credentials yet (botocore's chain has not answered)") from None

    def _start(self) -> "asyncio.Future[Found]":
        self.lookups += 1
        loop = asyncio.get_running_loop()
        looking: asyncio.Future[Found] = loop.create_future()
        looking.add_done_callback(self._take)
        threading.Thread(target=self._ask, args=(loop, looking), name="aws-credentials", daemon=True).start()
        return looking

    def _take(self, looking: "asyncio.Future[Found]") -> None:
        self._looking = None
        if looking.cancelled():
            return
        self._found = looking.result()
        self._until_s = self._clock() + (KEPT_S if self._found.keys is not None else AGAIN_S)
        if self._found.keys is None:
            self._session = None  # it would remember that there were none

    # Below: in the look-up's thread. Nobody else touches the session meanwhile but to let go of it.

    def _ask(self, loop: asyncio.AbstractEventLoop, looking: "asyncio.Future[Found]") -> None:
        try:
            found = self._find()
        except Exception as error:  # noqa: BLE001 - isolation: a chain may hold anyone's plugins
            # Not its text: that of a program that was run may hold anything.
            found = Found(why=f"AWS credentials can't be read ({type(error).__name__})")
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(_hand_over, looking, found)

    def _find(self) -> Found:
        session = self._session = self._session or self._open()
        credentials = session.get_credentials()
        if credentials is None:
            return Found(why="no AWS credentials (botocore's chain: environment, files, roles)")
        return Found(credentials.get_frozen_credentials())


def _endpoint(session: Any, service: str, region: str) -> str:
    """As a client of botocore finds it: AWS's own, or what AWS_ENDPOINT_URL and the like say."""
    client = session.create_client(service, region, aws_access_key_id="-", aws_secret_access_key="-")  # noqa: S106  # sends nothing
    try:
        return str(client.meta.endpoint_url)
    finally:
        client.close()


def _hand_over(looking: "asyncio.Future[Found]", found: Found) -> None:
    if not looking.done():
        looking.set_result(found)


def _open_session() -> Any:
    # Only who uses a topic waits for these. The first two are for signing, and here they hold up nobody.
    for module in ("botocore.auth", "botocore.awsrequest"):
        import_module(module)
    return import_module("botocore.session").get_session()
