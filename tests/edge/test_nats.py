"""The life of the embedded nats-server: started, found again, started again, ended."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from nats_rig import ANYWHERE, DEADLINE_S, SMALL, Device, Events, body, device, number_of, running, topic, until

from config.model import Embedded, Tls
from daemon.lock import DirectoryInUse, hold
from daemon.log.streams import ensure
from daemon.nats.child import PortTaken, ServerChild, ServerFailed
from daemon.nats.process import Process, identify
from daemon.nats.server import NatsServer
from daemon.nats.state import read_running, write_running

ROOT = Path(__file__).parents[2]

# What a daemon does until it is killed: the test kills it.
DAEMON = """
import asyncio, json, sys
from pathlib import Path
from nats_rig import ANYWHERE, SMALL
from daemon.nats.server import NatsServer
from daemon.nats.child import ServerChild

async def opened(folder):
    endpoint = await NatsServer(ANYWHERE, SMALL, folder, lambda kind, fields: None).start()
    return endpoint.pid, endpoint.mqtt

async def shut(folder):
    child = ServerChild(ANYWHERE, SMALL, folder / "nats")
    await child.set_up()
    await child.launch()
    return child.endpoint.pid, child.endpoint.mqtt

async def main():
    door, folder = sys.argv[1:]
    print(json.dumps(await {"opened": opened, "shut": shut}[door](Path(folder))), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.contextmanager
def killed_daemon(folder: Path, door: str) -> Iterator[tuple[int, str]]:
    """(pid, MQTT address) of the nats-server that a daemon left when it was killed."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    command = [sys.executable, "-c", DAEMON, door, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as daemon:
        assert daemon.stdout is not None
        try:
            pid, mqtt = json.loads(daemon.stdout.readline())
        finally:
            daemon.kill()
    try:
        yield pid, mqtt
    finally:
        with contextlib.suppress(ProcessLookupError):
            if identify(pid) is not None:
                os.kill(pid, signal.SIGKILL)


async def test_a_started_server_lets_devices_in(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, device(rig.endpoint) as sender:
        await sender.publish(topic("p1"), body(1))
        assert [number_of(entry) for entry in await rig.log()] == [1]
        assert rig.events.kinds()[:3] == ["started", "reconciled", "opened"]


async def test_stopping_leaves_no_process_and_no_state(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        pid = rig.endpoint.pid
    assert identify(pid) is None
    assert read_running(tmp_path / "nats") is None


async def test_secrets_are_for_the_owner_and_are_not_shown(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        modes = {name: stat.S_IMODE((tmp_path / "nats" / name).stat().st_mode) for name in ("server.conf", "keys.json")}
        told = f"{rig.endpoint!r} {rig.server._child._conf!r} {rig.server._child._keys!r} {rig.events.told}"
        logs = b"".join(path.read_bytes() for path in (tmp_path / "nats").glob("server.[el]*"))
        secrets = (rig.endpoint.password, rig.server._child._keys.device_password)
    assert modes == {"server.conf": 0o600, "keys.json": 0o600}
    assert not any(secret in told or secret.encode() in logs for secret in secrets)


@pytest.mark.parametrize("user", [None, "device", "detectd"])
async def test_only_the_daemon_speaks_nats(tmp_path: Path, user: str | None) -> None:
    async with running(tmp_path) as rig:
        secret = rig.server._child._keys.device_password
        said = {"verbose": True} if user is None else {"verbose": True, "user": user, "pass": secret}
        reader, writer = await asyncio.open_connection(*rig.endpoint.url.removeprefix("nats://").split(":"))
        writer.write(f"CONNECT {json.dumps(said)}\r\nPUB detectd.log.forged 1\r\nx\r\n".encode())
        assert b"-ERR 'Authorization Violation'" in await asyncio.wait_for(reader.read(), DEADLINE_S)
        writer.close()
        await writer.wait_closed()


async def test_ports_passwords_and_log_outlive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, device(rig.endpoint) as sender:
        await sender.publish(topic("p1"), body(1))
        first, identity = rig.endpoint, rig.server.identity.identity
    async with running(tmp_path) as rig:
        assert replace(rig.endpoint, pid=first.pid) == first
        assert rig.server.identity.identity == identity
        assert [number_of(entry) for entry in await rig.log()] == [1]


async def test_a_killed_server_comes_back_where_it_was(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        first = rig.endpoint
        os.kill(first.pid, signal.SIGKILL)
        await rig.events.seen("opened", times=2)
        assert rig.events.last("died")["code"] == -signal.SIGKILL
        assert rig.endpoint.pid != first.pid
        assert replace(rig.endpoint, pid=first.pid) == first
        async with device(rig.endpoint) as sender:
            await sender.publish(topic("p1"), body(1))
        assert [number_of(entry) for entry in await rig.log()] == [1]


async def test_a_server_that_keeps_dying_is_started_again_each_time(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        for times in range(2, 6):
            os.kill(rig.endpoint.pid, signal.SIGKILL)
            await rig.events.seen("opened", times=times)
        assert (rig.events.count("died"), rig.events.count("failed")) == (4, 0)


async def test_a_server_that_cannot_come_back_is_tried_until_it_can(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        js, aside = tmp_path / "nats" / "js", tmp_path / "aside"
        os.kill(rig.endpoint.pid, signal.SIGKILL)
        js.rename(aside)
        js.write_text("a file where a folder must be")
        assert "ServerFailed" in str((await rig.events.seen("failed", times=2))["error"])
        js.unlink()
        aside.rename(js)
        await rig.events.seen("opened", times=2)


async def test_no_device_comes_in_before_the_door_is_opened(tmp_path: Path) -> None:
    child = ServerChild(ANYWHERE, SMALL, tmp_path / "nats")
    await child.set_up()
    started = await child.launch()
    try:
        await ensure(started.nc, SMALL)
        early = Device(child.endpoint, "early")
        assert await early.try_to_connect() == "Not authorized"
        await early.close()
        await child.open_door()
        for user in (None, "?SDK=Python&Version=1.4.9"):
            async with device(child.endpoint, "late", user=user) as late:
                await late.publish(topic("p1"), body(1))
    finally:
        await started.nc.close()
        await child.end()


async def test_a_server_left_open_by_a_killed_daemon_is_adopted_with_its_devices(tmp_path: Path) -> None:
    with killed_daemon(tmp_path, "opened") as (pid, mqtt):
        async with device(mqtt) as sender:
            await sender.publish(topic("p1"), body(1))
            async with running(tmp_path) as rig:
                assert (rig.events.kinds()[0], rig.endpoint.pid, rig.endpoint.mqtt) == ("adopted", pid, mqtt)
                await sender.publish(topic("p1"), body(2))
                assert [number_of(entry) for entry in await rig.log()] == [1, 2]
                assert rig.events.count("died") == 0
        assert identify(pid) is None


async def test_a_server_left_shut_by_a_killed_daemon_is_reconciled_then_opened(tmp_path: Path) -> None:
    with killed_daemon(tmp_path, "shut") as (pid, _):
        async with running(tmp_path) as rig:
            assert rig.events.kinds()[:3] == ["adopted", "reconciled", "opened"]
            assert (rig.endpoint.pid, rig.events.last("adopted")["open"]) == (pid, False)
            async with device(rig.endpoint):
                pass


async def test_an_adopted_server_is_started_again_when_it_dies(tmp_path: Path) -> None:
    with killed_daemon(tmp_path, "opened") as (pid, _):
        async with running(tmp_path) as rig:
            os.kill(pid, signal.SIGKILL)
            await rig.events.seen("opened", times=2)
            assert rig.endpoint.pid != pid


async def test_a_server_left_behind_with_other_settings_is_replaced(tmp_path: Path) -> None:
    with killed_daemon(tmp_path, "opened") as (pid, _):
        async with running(tmp_path, log=msgspec.structs.replace(SMALL, max_bytes=2**28 + 1)) as rig:
            assert rig.events.told[0] == ("ended", {"pid": pid, "reason": "its settings differ"})
            assert rig.events.kinds()[1:4] == ["started", "reconciled", "opened"]
            assert identify(pid) is None


async def test_another_process_that_has_the_pid_now_is_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        was = read_running(tmp_path / "nats")
        assert was is not None
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            write_running(
                tmp_path / "nats", msgspec.structs.replace(was, identity=replace(was.identity, pid=other.pid))
            )
            async with running(tmp_path) as rig:
                assert rig.events.kinds()[0] == "started"
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"pid": "x"}', b'{"identity":{"pid":-1,"start":1,"boot":"b"}}', b"\xff"]
)
async def test_a_damaged_state_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "server.json").write_bytes(content)
    async with running(tmp_path) as rig:
        assert rig.events.kinds()[0] == "started"


async def test_a_taken_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        events = Events()
        server = NatsServer(
            Embedded(mqtt=f"127.0.0.1:{port}", nats=f"127.0.0.1:{_free_port()}", sensor=False), SMALL, tmp_path, events
        )
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}.*address already in use"):
            await server.start()
    assert read_running(tmp_path / "nats") is None


async def test_a_chosen_port_that_is_taken_now_is_chosen_anew(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        port = int(rig.endpoint.mqtt.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        async with running(tmp_path) as rig:
            assert rig.endpoint.mqtt != f"127.0.0.1:{port}"
            async with device(rig.endpoint):
                pass


async def test_a_configuration_that_nats_server_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    tls = Tls(cert=tmp_path / "no.pem", key=tmp_path / "no.key")
    server = NatsServer(msgspec.structs.replace(ANYWHERE, tls=tls), SMALL, tmp_path, Events())
    with pytest.raises(ServerFailed, match=r"nats-server ended at its start.*no\.pem"):
        await server.start()


async def test_fsync_at_every_write_can_be_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, msgspec.structs.replace(ANYWHERE, sync_interval_s=0.0)) as rig:
        assert "sync_interval: always" in (tmp_path / "nats" / "server.conf").read_text()
        async with device(rig.endpoint) as sender:
            await sender.publish(topic("p1"), body(1))
        assert [number_of(entry) for entry in await rig.log()] == [1]


async def test_marks_are_laid_while_devices_publish(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, device(rig.endpoint) as sender:
        for number in range(3):
            await sender.publish(topic("p1"), body(number))
        child = rig.server
        await until(lambda: child._placed is not None and child._placed.mark.guard_seq == 3, "a mark at 3")


async def test_a_server_that_says_it_dropped_messages_is_reconciled_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, device(rig.endpoint) as sender:
        await sender.publish(topic("p1"), body(1))
        (entry,) = await rig.log()
        async with rig.connection() as nc:
            await nc.jetstream().delete_msg(SMALL.stream, entry.seq)
        with (tmp_path / "nats" / "server.log").open("a") as log:
            log.write("[1] 2026/01/01 [WRN] Dropping messages due to excessive stream ingest rate on '$G' > 'LOG'\n")
        await rig.events.seen("dropped")
        await until(lambda: rig.events.count("reconciled") >= 2, "a second reconcile")
        assert [number_of(entry) for entry in await rig.log()] == [1]


async def test_a_server_that_cannot_store_any_more_is_started_again(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        with (tmp_path / "nats" / "server.log").open("a") as log:
            log.write("[1] 2026/01/01 [ERR] JetStream out of resources, will be DISABLED\n")
        await rig.events.seen("stalled")
        await rig.events.seen("opened", times=2)


async def test_the_servers_log_is_followed_into_a_new_file(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        path = tmp_path / "nats" / "server.log"
        path.rename(path.with_name("server.log.1"))
        path.write_text("[1] 2026/01/01 [ERR] Publish Violation - x\n[1] half a line: Publish Viol")
        assert await rig.events.seen("publish_refused") == {"count": 1}


def test_a_second_daemon_on_one_folder_is_refused_by_name(tmp_path: Path) -> None:
    with (
        hold(tmp_path),
        pytest.raises(DirectoryInUse, match=rf"{tmp_path} is in use .*process {os.getpid()}"),
        hold(tmp_path),
    ):
        pass
    with hold(tmp_path):
        pass


async def test_a_folder_is_free_again_when_its_holder_was_killed_though_its_child_lives(tmp_path: Path) -> None:
    code = "import sys, time, subprocess; from pathlib import Path; from daemon.lock import hold\n"
    code += "with hold(Path(sys.argv[1])): print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        with pytest.raises(DirectoryInUse), hold(tmp_path):
            pass
        holder.kill()
        holder.stdout.close()
    with hold(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
    ]
    process = Process.spawn(command, tmp_path / "out")
    await until(lambda: (tmp_path / "out").read_bytes() == b"up\n", "it is up")
    await process.end(0.05)
    assert not process.is_alive()
    assert await asyncio.wait_for(process.ended(), DEADLINE_S) == -signal.SIGKILL
    process.close()
    assert Process.find(process.identity) is None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
