"""The control plane over a real store in a folder, asked as the HTTP server asks it: handlers, without the HTTP.

    async with plane(tmp_path) as control:
        await ask(control, "CreateSecurityProfile", securityProfileName="P")
        with refused("ResourceNotFoundException"):
            await ask(control, "DescribeSecurityProfile", securityProfileName="Q")

Questions and answers are held against botocore's service model. Instants are ns; the clock is `control.clock`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.model import ServiceModel, Shape
from botocore.session import get_session
from botocore.validate import ParamValidator
from builders import frames, rules, world

from actors.metrics import kinds
from config.load import load
from config.model import NS, Account, SecurityProfile, Settings
from daemon.control.audit import Actor
from daemon.control.files import take_files
from daemon.control.plane import Call, ControlPlane
from daemon.control.refusal import Refusal
from daemon.history.recorder import History
from daemon.http.aws.operations import handler_of
from daemon.store.store import Store

START_NS = 1_767_323_100 * NS
ACCOUNT = Account("123456789012", "eu-west-1")
ARN = "arn:aws:iot:eu-west-1:123456789012:"
_PLAIN = {"string": str, "boolean": bool, "integer": int, "long": int, "timestamp": int, "double": int | float}

OUT = "aws:all-bytes-out"
CUSTOM = {"n": "number", "ns": "number-list", "ss": "string-list", "ips": "ip-address-list"}
KEPT = (OUT, "aws:listening-tcp-ports", "aws:destination-ip-addresses", *CUSTOM)


class Clock:
    """Time stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns

    def forward(self, seconds: float) -> None:
        self.now_ns += round(seconds * NS)


class TestedPlane(ControlPlane):
    """With a clock that tests move, a configuration that they replace, and `changes` counted as the announcer would."""

    __test__ = False

    def __init__(self, store: Store, folder: Path, clock: Clock) -> None:
        self.folder, self.clock = folder, clock
        self.in_force = Settings(account=ACCOUNT)
        self.changes = 0
        super().__init__(store, kinds(), lambda: self.in_force, clock, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def files(self, **settings: Any) -> str:
        """Write a configuration file with these of settings and take it over; its path."""
        path = self.folder / "detectd.json"
        account = {"id": ACCOUNT.id, "region": ACCOUNT.region}
        path.write_text(json.dumps({"account": account, **settings}))
        read = load(path, self.kinds).settings
        await self.store.write(lambda con: take_files(con, read, self.kinds, Actor(str(path)), self.clock()))
        self.in_force = read
        return str(path)

    async def rows(self, sql: str, *values: Any) -> list[Any]:
        """What the tables say."""
        return await self.store.read(lambda con: con.execute(sql, values).fetchall())

    async def write(self, sql: str, *values: Any) -> int:
        """Put something into the tables, past every check."""
        return await self.store.write(lambda con: con.execute(sql, values).rowcount)


@asynccontextmanager
async def plane(folder: Path) -> AsyncIterator[TestedPlane]:
    clock = Clock()
    store = await Store.open(folder / "detectd.db", clock=clock)
    try:
        yield TestedPlane(store, folder, clock)
    finally:
        await store.close()


@asynccontextmanager
async def reported(folder: Path, *log: Any) -> AsyncIterator[TestedPlane]:
    """A plane whose history has these reports."""
    one = world(
        rules(SecurityProfile("kept", additional_metrics_to_retain=KEPT, targets=("all/things",)), custom=CUSTOM)
    )
    async with plane(folder) as control:
        control.history = await History.open(folder / "history.db")
        await control.history.adopt("log", 10**9)
        control.history.begin(0, one)
        task = asyncio.create_task(control.history.run(None, None))  # type: ignore[arg-type]  # it never falls behind
        for position, said in enumerate(log, 1):
            control.history.take(one.router.route(frames([replace(said, position=position)])))
        assert await control.history.settled()
        yield control
        task.cancel()
        await asyncio.wait([task])
        await control.history.close()


async def ask(control: ControlPlane, operation: str, /, **params: Any) -> dict[str, Any]:
    """Call an operation's handler as a client's request would: tokens are filled in, the model is kept to.

    Raises:
        Refusal: the operation's own; one that the model doesn't know for it fails the test.
    """
    model = service().operation_model(operation)
    for name in model.idempotent_members:
        params.setdefault(name, str(uuid4()))
    report = ParamValidator().validate(params, model.input_shape)
    assert not report.has_errors(), report.generate_report()
    handler = handler_of(operation)
    assert handler is not None, f"{operation} has no handler"
    with _modelled(operation, {shape.name for shape in model.error_shapes}):
        answer = await handler(Call(control, operation, params, Actor("tester", "127.0.0.1")))
    if model.output_shape is None:
        assert answer == {}
        return {}
    return dict(fitting(answer, model.output_shape))


async def pages(control: ControlPlane, operation: str, member: str, /, **params: Any) -> list[list[Any]]:
    """Every page of a list."""
    answer = await ask(control, operation, **params)
    found = [answer[member]]
    while "nextToken" in answer:
        answer = await ask(control, operation, nextToken=answer["nextToken"], **params)
        found.append(answer[member])
    return found


@contextmanager
def _modelled(operation: str, codes: set[str]) -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        if refusal.code not in codes:
            raise AssertionError(f"{operation}: {refusal.code} is not modelled: {refusal.message}") from refusal
        raise


@contextmanager
def refused(code: str, match: str | None = None) -> Iterator[pytest.ExceptionInfo[Refusal]]:
    """The operation refuses with this error of the model, and words that match."""
    with pytest.raises(Refusal, match=match) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value.code}: {caught.value.message}"


def fitting(answer: Any, shape: Shape, path: str = "answer") -> Any:
    """The answer as a client sees it (absent members absent, lists as lists), or a failed assertion."""
    match shape.type_name:
        case "structure":
            assert isinstance(answer, Mapping), f"{path}: {answer!r}"
            assert answer.keys() <= shape.members.keys(), f"{path}: {answer.keys() - shape.members.keys()} unknown"
            present = {key: value for key, value in answer.items() if value is not None}
            return {key: fitting(value, shape.members[key], f"{path}.{key}") for key, value in present.items()}
        case "list":
            assert isinstance(answer, list | tuple), f"{path}: {answer!r}"
            return [fitting(each, shape.member, f"{path}[{at}]") for at, each in enumerate(answer)]
        case "map":
            assert isinstance(answer, Mapping), f"{path}: {answer!r}"
            return {key: fitting(value, shape.value, f"{path}.{key}") for key, value in answer.items()}
        case kind:
            assert isinstance(answer, _PLAIN[kind]), f"{path}: {answer!r} is no {kind}"
            assert answer in (shape.metadata.get("enum") or [answer]), f"{path}: {answer!r}"
            return answer


@cache
def service() -> ServiceModel:
    return get_session().get_service_model("iot")
