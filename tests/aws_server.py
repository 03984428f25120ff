"""The AWS API over HTTP in the test's own loop, on a real store: for clients that know nothing of us."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from control_runner import ACCOUNT, TestedPlane, plane

from config.model import Settings
from daemon.history.recorder import History
from daemon.http.access import Access
from daemon.http.aws import endpoint
from daemon.http.server import Server, application


class Meter:
    """Counts what was answered: (operation, code) and HTTP statuses."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.statuses: Counter[int] = Counter()

    def called(self, operation: str, code: str) -> None:
        self.calls[operation, code] += 1

    def answered(self, status: int) -> None:
        self.statuses[status] += 1

    def refused(self, reason: str) -> None:
        self.calls["refused", reason] += 1


class Serving:
    """A listening API. `client` is boto3's, to be used in threads (`call`)."""

    def __init__(self, control: TestedPlane, meter: Meter, address: str) -> None:
        self.control, self.meter, self.url = control, meter, f"http://{address}"
        self.client = boto3.client(
            "iot", endpoint_url=self.url, region_name=ACCOUNT.region, aws_access_key_id="nobody",
            aws_secret_access_key="nothing",
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
        )  # fmt: skip

    async def call(self, operation: str, **params: Any) -> dict[str, Any]:
        """A call as a program would make it, without what says how it travelled."""
        method: Callable[..., dict[str, Any]] = getattr(self.client, operation)
        answer = await asyncio.to_thread(method, **params)
        answer.pop("ResponseMetadata")
        return answer


@asynccontextmanager
async def _history(folder: Path, wanted: bool) -> AsyncIterator[History | None]:
    history = await History.open(folder / "history.db") if wanted else None
    try:
        yield history
    finally:
        if history is not None:
            await history.close()


@asynccontextmanager
async def api(folder: Path, *, history: bool = False) -> AsyncIterator[Serving]:
    """`history`: with one of metric values, empty."""
    meter = Meter()
    async with plane(folder) as control, _history(folder, history) as control.history:
        access = Access(Settings(), control.clock)
        app = application(meter, access)
        endpoint.add(app, endpoint.Endpoint(control, meter))
        server = Server(app, "127.0.0.1:0", meter)
        address = await server.start()
        serving = Serving(control, meter, address)
        try:
            yield serving
        finally:
            serving.client.close()
            await server.stop()
