"""A store and a dispatch as a process, to be killed: `delivering_daemon.py DATABASE URL THING…`.

Commits an in-alarm for each thing, says so on stdout, and delivers until its stdin ends.
"""

import asyncio
import sys
import time
from pathlib import Path

from transitions import raised

from config.model import Receivers, Webhook
from daemon.clock import SystemClock
from daemon.delivery.dispatch import Dispatch
from daemon.notifiers import client_session
from daemon.store.store import Store


async def main(database: str, url: str, *things: str) -> None:
    store = await Store.open(Path(database), clock=time.time_ns)
    async with client_session() as session:
        dispatch = Dispatch(store, SystemClock(), session)
        await dispatch.apply(dispatch.prepare(Receivers(webhooks=(Webhook(name="ops", url=url),))))
        await store.commit([raised(thing) for thing in things])
        print("committed", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await dispatch.stop()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
