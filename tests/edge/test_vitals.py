"""What the gauges say once things have changed back."""

import asyncio
from pathlib import Path

import pytest
from app_runner import ask, eventually, mqtt, ready, running
from system_tools import PORTS, Hooks, edit, profile, report, send, write

from actors.metrics import kinds
from config.diff import rules_digest
from config.load import load
from daemon.app import App
from daemon.recovery import manifests


def value(app: App, line: str) -> float | None:
    found = [text for text in app.telemetry.render().decode().splitlines() if text.startswith(line + " ")]
    return float(found[0].rsplit(" ", 1)[1]) if found else None


async def test_the_outbox_of_a_receiver_that_is_back_is_empty_again(tmp_path: Path) -> None:
    async with Hooks() as hooks, running(write(tmp_path, hooks)) as app:
        hooks.status = 500
        await send(mqtt(app), "t1", report(1, ports=[4444]))
        await eventually(lambda: _waiting(app))
        await app.vitals.look()
        assert value(app, 'detectd_outbox_depth{receiver="test"}') == 1
        hooks.status = 204
        await hooks.seen("t1", "ports", "in-alarm")
        await eventually(lambda: _not_waiting(app))
        await app.vitals.look()
        assert value(app, 'detectd_outbox_depth{receiver="test"}') == 0
        assert value(app, 'detectd_outbox_oldest_age_seconds{receiver="test"}') == 0


async def test_what_left_the_configuration_leaves_the_metrics(tmp_path: Path) -> None:
    async with Hooks() as hooks, running(write(tmp_path, hooks)) as app:
        await send(mqtt(app), "t1", report(1, ports=[4444]))
        await hooks.seen("t1", "ports", "in-alarm")
        await eventually(lambda: _not_waiting(app))
        await app.vitals.look()
        app.vitals.refresh()
        assert value(app, 'detectd_rows{actor="all/things"}') == 1
        edit(tmp_path / "detectd.yaml", receivers={}, profiles=[profile(PORTS, targets=["all/unregistered-things"])])
        assert (await ask(app, "POST", "/-/reload"))[0] == 200
        await app.vitals.look()
        app.vitals.refresh()
        assert value(app, 'detectd_rows{actor="all/unregistered-things"}') == 1
        assert value(app, 'detectd_rows{actor="all/things"}') is None
        assert value(app, 'detectd_outbox_depth{receiver="test"}') is None


async def test_rules_that_neither_log_nor_checkpoint_can_name_any_more_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(write(tmp_path)) as app:
        first = rules_digest(app.pipeline.world.rules)
        edit(tmp_path / "detectd.yaml", profiles=[profile(PORTS, name="other")])
        assert (await ask(app, "POST", "/-/reload"))[0] == 200
        second = rules_digest(app.pipeline.world.rules)
        await app.checkpointer.write(await app.pipeline.cut())
        await app.expire()
        assert await app.store.definition(first) is not None, "the log still has the entry that names it"
        later = app.store._clock() + 30 * 86_400 * 10**9
        monkeypatch.setattr(app._clock, "now_ns", lambda: later)
        await app.expire()
        assert await app.store.definition(second) is not None, "in force"
        await eventually(lambda: _checkpoints_name_only(app, second))
        await app.expire()
        assert await app.store.definition(first) is None


async def _checkpoints_name_only(app: App, digest: str) -> bool:
    return {one.rules for one in await manifests(app.store, app.host.identity.identity)} == {digest}


async def _waiting(app: App) -> bool:
    return any(backlog.queued for backlog in (await app.dispatch.backlogs()).values())


async def _not_waiting(app: App) -> bool:
    return not await _waiting(app)


async def test_ready_means_judged_not_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path)
    async with running(config) as app:
        await send(mqtt(app), "t1", report(1))
    held = asyncio.Event()
    end_orphans = App._end_orphans

    async def late(self: App) -> None:  # the last step of catching up; the mailboxes are drained before it
        await held.wait()
        await end_orphans(self)

    monkeypatch.setattr(App, "_end_orphans", late)
    app = App(config, load(config, kinds()))
    task = asyncio.create_task(app.run())
    try:
        await eventually(lambda: _read_all(app))
        assert (await ask(app, "GET", "/-/ready"))[0] == 503
        held.set()
        await eventually(lambda: ready(app, task))
    finally:
        held.set()
        app.stop()
        await asyncio.wait_for(task, 30)


async def _read_all(app: App) -> bool:
    return app._is_built and bool(app.vitals.catching_up) and app.pipeline.position >= app.vitals.catching_up
