"""Configuration that changes under a running daemon: in force as a whole, or not at all."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from system_tools import BYTES, PORTS, Daemon, Hooks, edit, profile, report, send, serving, until, write

pytestmark = pytest.mark.system

ALLOWING = PORTS | {"criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [22, 443, 4444]}}}


async def generation(daemon: Daemon) -> float:
    return await daemon.metric("detectd_config_generation")


async def reload_by_post(daemon: Daemon) -> None:
    assert (await daemon.ask("POST", "/-/reload"))[0] == 200


async def reload_by_hangup(daemon: Daemon) -> None:
    daemon.signal(signal.SIGHUP)


async def reload_by_itself(_daemon: Daemon) -> None:
    """The file has changed, and that is enough."""


@pytest.mark.parametrize("reload", [reload_by_post, reload_by_hangup, reload_by_itself])
async def test_an_edited_behavior_is_in_force_after_a_reload(tmp_path: Path, reload: object) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        await send(daemon.mqtt, "t1", report(1, ports=[4444]))
        raised = await hooks.seen("t1", "ports", "in-alarm")
        before = await generation(daemon)
        edit(daemon.config, profiles=[profile(ALLOWING)])
        await reload(daemon)  # type: ignore[operator]
        await daemon.until_metric("detectd_config_generation", before + 1)
        await send(daemon.mqtt, "t1", report(2, ports=[4444]))
        cleared = await hooks.seen("t1", "ports", "alarm-cleared")
        assert cleared.violation_id == raised.violation_id


async def test_a_bad_file_is_reported_with_its_place_and_changes_nothing(tmp_path: Path) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        good = daemon.config.read_text()
        bad = good.replace('"in-port-set"', '"in-prot-set"')
        line = next(number for number, text in enumerate(bad.splitlines(), 1) if "in-prot-set" in text)
        daemon.config.write_text(bad)
        status, answer = await daemon.ask("POST", "/-/reload")
        assert status == 400
        assert any(f"{daemon.config}:{line}:" in problem for problem in answer["problems"]), answer
        assert await daemon.metric("detectd_config_last_reload_successful") == 0
        assert "in-prot-set" in daemon.log_path.read_text()
        await send(daemon.mqtt, "t1", report(1, ports=[4444]))
        await hooks.seen("t1", "ports", "in-alarm")
        daemon.config.write_text(good)
        assert (await daemon.ask("POST", "/-/reload"))[0] == 200
        assert await daemon.metric("detectd_config_last_reload_successful") == 1


async def test_a_reload_without_a_change_tells_nobody_anything(tmp_path: Path) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks, profiles=[profile(PORTS, BYTES)])) as daemon:
        await send(daemon.mqtt, "t1", report(1, ports=[4444]))
        await hooks.seen("t1", "ports", "in-alarm")
        for _ in range(3):
            await reload_by_post(daemon)
        await send(daemon.mqtt, "t2", report(1, ports=[4444]))  # comes after whatever the reloads brought about
        await hooks.seen("t2", "ports", "in-alarm")
        assert hooks.keys() == [("t1", "ports", "in-alarm"), ("t2", "ports", "in-alarm")]
        assert len(hooks.arrivals) == 2


async def test_a_removed_behavior_ends_its_alarm(tmp_path: Path) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks, profiles=[profile(PORTS, BYTES)])) as daemon:
        await send(daemon.mqtt, "t1", report(1, ports=[4444]))
        await hooks.seen("t1", "ports", "in-alarm")
        edit(daemon.config, profiles=[profile(BYTES)])
        await reload_by_post(daemon)
        await hooks.seen("t1", "ports", "alarm-invalidated")


async def test_what_needs_a_restart_is_refused_by_name(tmp_path: Path) -> None:
    async with serving(write(tmp_path)) as daemon:
        edit(daemon.config, data_dir="elsewhere")
        status, answer = await daemon.ask("POST", "/-/reload")
        assert status == 400
        assert any("data_dir" in problem for problem in answer["problems"]), answer
        assert (await daemon.get("/-/ready"))[0] == 200


async def test_a_swapped_symlink_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: `..data` points to a folder, and is replaced by one rename."""
    for name, behavior in (("old", PORTS), ("new", ALLOWING)):
        (tmp_path / "mount" / name).mkdir(parents=True)
        (tmp_path / "mount" / name / "p.json").write_text(json.dumps(profile(behavior)))
    (tmp_path / "mount" / "..data").symlink_to("old")
    (tmp_path / "mount" / "p.json").symlink_to("..data/p.json")
    config = write(tmp_path, profiles=["mount/*.json"])
    async with serving(config) as daemon:
        before = await generation(daemon)
        (tmp_path / "mount" / "..tmp").symlink_to("new")
        os.replace(tmp_path / "mount" / "..tmp", tmp_path / "mount" / "..data")  # noqa: PTH105  # as kubelet does
        await daemon.until_metric("detectd_config_generation", before + 1)


async def test_a_flood_of_changes_ends_in_the_last_one(tmp_path: Path) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        for behavior in (ALLOWING, PORTS, BYTES, ALLOWING, PORTS):
            edit(daemon.config, profiles=[profile(behavior)])
            daemon.signal(signal.SIGHUP)
            await asyncio.sleep(0)
        await reload_by_post(daemon)
        await send(daemon.mqtt, "t1", report(1, ports=[4444]))
        await hooks.seen("t1", "ports", "in-alarm")
        assert [key[2] for key in hooks.keys()] == ["in-alarm"]
        await until(lambda: hooks.arrivals, "a webhook")
