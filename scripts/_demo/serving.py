"""`detectd serve` as a child: started, waited for until it is ready, ended; and its last words when it fails."""

import asyncio
import contextlib
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Final

import aiohttp

READY_S: Final = 120.0
"""The very first start compiles the kernels, which takes a slow machine most of a minute."""

STOP_S: Final = 20.0
LAST_WORDS: Final = 25


class Failed(Exception):
    """The daemon did not start, or ended by itself. The text holds the last lines of its log."""


class Serving:
    """One daemon. `start` once, then `ended` and `stop`."""

    def __init__(self, config: Path, http: str, log: Path) -> None:
        self._config, self._log = config, log
        self.url = f"http://{http}"
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Raises Failed: it ended, or was not ready in time."""
        with self._log.open("wb") as log:
            # A session of its own: the terminal's Ctrl-C is for the demo, which then ends the daemon.
            self._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "daemon", "serve", "--config", str(self._config)),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            async with asyncio.timeout(READY_S):
                await self._until_ready()
        except TimeoutError:
            raise Failed(f"the daemon was not ready after {READY_S:.0f} s\n{self.last_words()}") from None

    async def ended(self) -> None:
        """Returns never; raises Failed when the daemon ends by itself."""
        assert self._child is not None, "started before it is watched"
        raise Failed(f"the daemon ended with status {await self._child.wait()}\n{self.last_words()}")

    async def stop(self) -> None:
        """Ask it to end; what does not end in time is killed."""
        if self._child is None or self._child.returncode is not None:
            return
        self._child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._child.wait()
        except TimeoutError:
            self._child.kill()
            await self._child.wait()

    def hurry(self) -> None:
        """A second signal: it ends at once."""
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(signal.SIGTERM)

    def last_words(self) -> str:
        with contextlib.suppress(OSError), self._log.open(errors="replace") as log:
            return "".join(deque(log, LAST_WORDS)).rstrip()
        return ""

    async def _until_ready(self) -> None:
        ended = asyncio.create_task(self.ended(), name="daemon-ended")
        asking = asyncio.create_task(self._ask(), name="daemon-ready")
        try:
            done, _ = await asyncio.wait([ended, asking], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            ended.cancel()
            asking.cancel()
            await asyncio.gather(ended, asking, return_exceptions=True)

    async def _ask(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.url}/-/ready") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)
