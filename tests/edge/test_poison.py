"""An entry that breaks an actor: set aside, the actor rebuilt, the others untouched, tried again when it is mended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app_runner import ask, eventually, mqtt, running
from system_tools import BYTES, PORTS, Hooks, profile, report, send, write

from actors.criteria.membership import Membership
from daemon.app import App

POISONOUS = 6666
JUDGE = Membership.judge


def raising(self: Membership, run: Any) -> None:
    """A kernel with a bug: one port is too much for it."""
    ports = run.columns.sets[0]
    for entry in run.entries.tolist():
        first = int(ports.start[entry])
        if POISONOUS in ports.lo[first : first + int(ports.count[entry])].tolist():
            raise ZeroDivisionError("the kernel's bug")
    JUDGE(self, run)


@pytest.fixture
def config(tmp_path: Path) -> Callable[[Hooks], Path]:
    profiles = [profile(PORTS, name="all"), profile(BYTES, name="other", targets=["all/unregistered-things"])]
    return lambda hooks: write(tmp_path, hooks, profiles=profiles)


async def test_a_poison_entry_is_set_aside_and_everything_else_goes_on(
    config: Callable[[Hooks], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Membership, "judge", raising)
    async with Hooks() as hooks, running(config(hooks)) as app:
        await send(mqtt(app), "t1", report(1, ports=[4444]))
        await hooks.seen("t1", "ports", "in-alarm")
        await send(mqtt(app), "t2", report(1, ports=[POISONOUS], bytes_out=5000))
        await hooks.seen("t2", "bytes", "in-alarm")  # the other actor judged the same report
        await send(mqtt(app), "t1", report(2, ports=[22]))
        await hooks.seen("t1", "ports", "alarm-cleared")  # the rebuilt one remembers
        poison = (await ask(app, "GET", "/-/poison"))[1]["poison"]
        assert [(row["actor"], row["error"]) for row in poison] == [
            ("all/things", 'ZeroDivisionError("the kernel\'s bug")')
        ]
        assert poison[0]["subject"] == "$aws.things.t2.defender.metrics.json"
        assert (await ask(app, "GET", "/-/ready"))[0] == 200
        assert ("t2", "ports", "in-alarm") not in hooks.keys()


async def test_a_poison_entry_can_be_tried_again_once_the_bug_is_mended(
    config: Callable[[Hooks], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hooks() as hooks:
        path = config(hooks)
        with monkeypatch.context() as broken:
            broken.setattr(Membership, "judge", raising)
            async with running(path) as app:
                await send(mqtt(app), "t2", report(1, ports=[POISONOUS]))
                await eventually(lambda: _poison(app))
        async with running(path) as app:
            (row,) = await _poison(app)
            assert (await ask(app, "POST", "/-/poison/retry?actor=nobody&position=1"))[0] == 404
            assert (await ask(app, "POST", "/-/poison/retry?actor=all/things&position=x"))[0] == 400
            where = f"actor={row['actor']}&position={row['position']}"
            assert (await ask(app, "POST", f"/-/poison/retry?{where}"))[0] == 200
            await hooks.seen("t2", "ports", "in-alarm")
            assert await _poison(app) == []
            assert (await ask(app, "POST", f"/-/poison/drop?{where}"))[0] == 404


async def test_an_entry_that_was_found_while_rebuilding_is_kept_whole(
    config: Callable[[Hooks], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hooks() as hooks:
        path = config(hooks)
        with monkeypatch.context() as broken:
            broken.setattr(Membership, "judge", raising)
            async with running(path) as app:
                await send(mqtt(app), "t2", report(1, ports=[POISONOUS]))
                await eventually(lambda: _poison(app))
                position = (await _poison(app))[0]["position"]
                assert await app.drop("all/things", position)
                await app._set_aside("all/things", position, b"", "found by halving")  # as the supervisor then calls it
                assert (await _poison(app))[0]["bytes"] > 0
        async with running(path) as app:
            assert (await ask(app, "POST", f"/-/poison/retry?actor=all/things&position={position}"))[0] == 200
            await hooks.seen("t2", "ports", "in-alarm")


async def test_an_entry_that_is_dropped_stays_away_over_a_restart(
    config: Callable[[Hooks], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Membership, "judge", raising)
    async with Hooks() as hooks:
        path = config(hooks)
        async with running(path) as app:
            await send(mqtt(app), "t2", report(1, ports=[POISONOUS]))
            await eventually(lambda: _poison(app))
            (row,) = await _poison(app)
            assert (await ask(app, "POST", f"/-/poison/drop?actor={row['actor']}&position={row['position']}"))[0] == 200
        async with running(path) as app:
            await send(mqtt(app), "t1", report(1, ports=[4444]))
            await hooks.seen("t1", "ports", "in-alarm")
            assert await _poison(app) == []


async def _poison(app: App) -> list[dict[str, Any]]:
    return list((await ask(app, "GET", "/-/poison"))[1]["poison"])
