"""How another process of the operator's reaches the log of a running daemon: by the keys in its data directory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import nats
from nats.aio.client import Client

from config.address import address_of
from config.model import Settings
from config.secret import read_secret
from daemon.log.wire import Access
from daemon.nats.conf import DAEMON_USER
from daemon.nats.state import read_keys


def access(settings: Settings) -> Access:
    """The log's address and our credentials.

    Raises:
        FileNotFoundError: no daemon has run on this data directory yet.
    """
    if settings.broker.nats is not None:
        user, password = "", ""
        if settings.broker.nats.credentials_file is not None:
            user, _, password = read_secret(settings.broker.nats.credentials_file).reveal().partition(":")
        return Access(tuple(url.strip() for url in settings.broker.nats.url.split(",")), user, password)
    folder = settings.data_dir / "nats"
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no daemon has run on this data directory yet")
    keys = read_keys(folder)
    assert settings.broker.embedded is not None
    there = address_of(settings.broker.embedded.nats)
    there = replace(there, port=there.port or keys.nats_port)
    return Access((f"nats://{there}",), DAEMON_USER, keys.daemon_password, timed=True)


@asynccontextmanager
async def control(to: Access) -> AsyncIterator[Client]:
    """A connection of nats-py, for what is asked seldom."""
    who = {"user": to.user, "password": to.password} if to.user else {}
    nc = await nats.connect(
        list(to.urls),
        allow_reconnect=False,
        connect_timeout=5,
        max_reconnect_attempts=1,  # of each server, at first too: else nats-py tries for two minutes
        error_cb=_quiet,
        **who,
    )
    try:
        yield nc
    finally:
        await nc.close()


async def _quiet(_error: Exception) -> None:
    """nats-py would log each failed attempt; the caller sees them as exceptions."""
