"""A server that a daemon started, and did not live to note: it holds the ports and the store, and must not stay."""

import asyncio
from pathlib import Path

from nats_rig import body, device, number_of, running, topic

from daemon.nats.binary import find_binary
from daemon.nats.process import Process


async def test_a_server_that_was_never_noted_is_ended_and_the_log_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, device(rig.endpoint) as sender:
        await sender.publish(topic("p1"), body(1))
        conf = rig.server._child.folder / "server.conf"
    stray = Process.spawn([str(find_binary().path), "-c", str(conf)], tmp_path / "stray.err")
    async with asyncio.timeout(20):
        while not (tmp_path / "stray.err").exists() or not stray.is_alive():
            await asyncio.sleep(0.01)
    async with running(tmp_path) as rig, device(rig.endpoint) as sender:
        assert not stray.is_alive()
        await sender.publish(topic("p1"), body(2))
        assert [number_of(entry) for entry in await rig.log()] == [1, 2]
    await stray.ended()
    stray.close()


async def test_only_the_very_same_arguments_make_a_stray(tmp_path: Path) -> None:
    other = Process.spawn(["sleep", "60"], tmp_path / "err")
    try:
        assert Process.strays(["-c", str(tmp_path / "server.conf")]) == []
        found = [one for one in Process.strays(["60"]) if one.identity == other.identity]
        assert len(found) == 1
        for one in found:
            one.close()
    finally:
        await other.end(1)
        other.close()
