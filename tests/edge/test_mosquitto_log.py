"""A Mosquitto's log file as a source: a real broker, rotation in all its ways, restarts, and a log that is away."""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
from app_runner import ask, eventually, running
from bridging import LogDouble, until
from mosquitto import Mosquitto

from actors.events import CLIENT, COUNT, KIND, KINDS, Packed
from config.model import MosquittoLog
from daemon.app import App
from daemon.brokers import _follow, _log_file
from daemon.brokers._base import Entry
from daemon.brokers._log_file import FileTotals, LogFile
from daemon.brokers._outlet import Outlet
from daemon.clock import NS, SystemClock, VirtualClock
from daemon.log.parcel import MSG_ID
from daemon.log.reader import Gap

NOW_NS = 1_795_664_999 * NS
AT = 1_795_664_879


def line(number: int | str) -> str:
    return f"{AT}: Received PUBLISH from p{number} (d0, q1, r0, m1, 't', ... (5 bytes))\n"


def told(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(kind, client) of each event, as often as it counts."""
    found: list[tuple[str, str]] = []
    for entry in entries:
        content = msgspec.json.decode(entry.payload, type=Packed)
        for row in content.rows:
            found += [(KINDS[row[KIND]], content.clients[row[CLIENT]])] * row[COUNT]
    return found


def numbers(log: LogDouble) -> list[int]:
    return [int(client[1:]) for _, client in told(log.entries)]


class Rig:
    """A log file, and a source that is driven turn by turn."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mosquitto.log"
        self.folder = folder
        self.log = LogDouble()
        self.start()

    def start(self) -> None:
        """A daemon that starts."""
        self.totals = FileTotals()
        self.clock = VirtualClock(NOW_NS)
        outlet = Outlet("plant", self.log, self.clock, lambda: 0.0, self.totals)
        options = MosquittoLog(name="plant", path=self.path)
        self.source = LogFile(options, self.folder / "sources", outlet, self.clock, self.totals)

    def write(self, *lines: str, to: Path | None = None) -> None:
        with (to or self.path).open("a") as file:
            file.writelines(lines)

    async def read(self) -> list[int]:
        """All that is there now; the numbers of the clients."""
        before = len(self.log.entries)
        while not await self.source._turn():
            pass
        return [int(client[1:]) for _, client in told(self.log.entries[before:])]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def started(rig: Rig) -> Rig:
    rig.write(line(0))
    assert await rig.read() == []
    return rig


async def test_what_was_there_before_us_is_not_ours(rig: Rig) -> None:
    rig.write(line(1), line(2), "the beginning of a li")
    assert await rig.read() == []
    rig.write("ne\n", line(3))
    assert await rig.read() == [3]


async def test_a_file_that_comes_later_is_read_from_its_beginning(rig: Rig) -> None:
    assert await rig.read() == []
    assert not rig.totals.connected
    rig.write(line(1))
    assert await rig.read() == [1]
    assert rig.totals.connected


async def test_half_a_line_waits_for_its_other_half(rig: Rig) -> None:
    await started(rig)
    rig.write(line(1), line(2)[:30])
    assert await rig.read() == [1]
    rig.write(line(2)[30:])
    assert await rig.read() == [2]


async def test_lines_of_a_second_are_one_event_with_their_count(rig: Rig) -> None:
    await started(rig)
    rig.write(*[line(1)] * 1000, *[line(2)] * 10)
    assert Counter(await rig.read()) == {1: 1000, 2: 10}
    assert len(rig.log.entries) == 1
    assert len(msgspec.json.decode(rig.log.entries[0].payload, type=Packed).rows) == 2


# ---- rotation ----


async def test_renamed_and_made_anew(rig: Rig) -> None:
    await started(rig)
    rig.write(line(1))
    rig.path.rename(rig.folder / "mosquitto.log.1")
    assert await rig.read() == [1]
    rig.write(line(2), to=rig.folder / "mosquitto.log.1")  # Mosquitto writes there until it is told
    assert await rig.read() == [2]
    rig.path.touch()  # logrotate's `create`: nothing says yet that the old one is finished
    rig.write(line(3), to=rig.folder / "mosquitto.log.1")
    assert await rig.read() == [3]
    rig.write(line(4), to=rig.folder / "mosquitto.log.1")
    rig.write(line(5))
    assert await rig.read() == [4, 5]
    assert rig.totals.lost == 0


async def test_rotated_twice_between_two_looks(rig: Rig) -> None:
    await started(rig)
    rig.write(line(1))
    rig.path.rename(rig.folder / "mosquitto.log.2")
    await older(rig.folder / "mosquitto.log.2", 2)
    rig.write(line(2))
    rig.path.rename(rig.folder / "mosquitto.log.1")
    await older(rig.folder / "mosquitto.log.1", 1)
    rig.write(line(3))
    assert await rig.read() == [1, 2, 3]


async def test_truncated_in_place(rig: Rig) -> None:
    await started(rig)
    rig.write(line(1))
    assert await rig.read() == [1]
    os.truncate(rig.path, 0)
    rig.write(line(2))
    assert await rig.read() == [2]
    assert rig.totals.rewritten == 1


async def test_truncated_and_grown_beyond_where_we_were(rig: Rig) -> None:
    await started(rig)
    os.truncate(rig.path, 0)
    rig.write(*[line(n) for n in range(1, 6)])
    assert await rig.read() == [1, 2, 3, 4, 5]


async def test_deleted_and_made_anew(rig: Rig) -> None:
    await started(rig)
    rig.write(line(1))
    rig.path.unlink()
    rig.write(line(2))
    assert await rig.read() == [1, 2]


# ---- restarts ----


async def test_after_a_restart_it_goes_on_where_it_was(rig: Rig) -> None:
    await started(rig)
    rig.write(line(1))
    assert await rig.read() == [1]
    rig.write(line(2))
    rig.start()
    rig.write(line(3))
    assert await rig.read() == [2, 3]


async def test_what_was_rotated_while_we_were_away_is_read(rig: Rig) -> None:
    await started(rig)
    rig.write(line(1))
    for number, name in ((2, "mosquitto.log.2"), (3, "mosquitto.log-20261126")):
        rig.path.rename(rig.folder / name)
        await older(rig.folder / name, 9 - number)
        rig.write(line(number))
    rig.write("old news\n", to=rig.folder / "mosquitto.log.3")
    await older(rig.folder / "mosquitto.log.3", 100)
    rig.write("not a rotation\n", to=rig.folder / "mosquitto.log.gz")
    rig.start()
    assert await rig.read() == [1, 2, 3]
    assert rig.totals.lost == 0


async def test_a_file_that_is_gone_is_a_gap_and_the_new_one_is_read_whole(rig: Rig) -> None:
    await started(rig)
    rig.write(line(1))
    rig.path.unlink()
    rig.write(line(2), line(3))
    rig.start()
    assert await rig.read() == [2, 3]
    assert rig.totals.lost == 1


async def test_another_file_under_the_same_inode_is_not_taken_for_it(rig: Rig) -> None:
    await started(rig)
    rig.path.write_text("".join(line(n) for n in range(1, 4)))
    rig.start()
    assert await rig.read() == [1, 2, 3]
    assert rig.totals.lost == 1


@pytest.mark.parametrize("note", ["", "{", '{"place": {"device": 1, "inode": 2, "offset": -4, "tail": ""}}',
                                  '{"place": {"device": 1, "inode": 2, "offset": 4, "tail": "xx"}}'])  # fmt: skip
async def test_a_damaged_note_of_the_place_is_a_gap(rig: Rig, note: str) -> None:
    await started(rig)
    (rig.folder / "sources" / "plant.json").write_text(note)
    rig.write(line(1))
    rig.start()
    await rig.read()
    rig.write(line(2))
    assert (await rig.read())[-1] == 2
    assert rig.totals.lost == 1


@pytest.mark.parametrize("is_stored", [True, False])
async def test_killed_while_events_are_handed_over_they_count_once(rig: Rig, *, is_stored: bool) -> None:
    """The log drops what comes a second time under the same id; here we look at the ids."""
    await started(rig)
    rig.write(line(1), line(1), line(2))
    gathered = rig.source._gather()
    if is_stored:
        await rig.source._outlet.hand_over(gathered.events, gathered.token)
    rig.write(line(3))
    rig.start()
    await rig.read()
    stored = {entry.headers[MSG_ID]: entry for entry in rig.log.entries}
    assert Counter(told(list(stored.values()))) == {
        ("published", "p1"): 2,
        ("published", "p2"): 1,
        ("published", "p3"): 1,
    }
    assert len(rig.log.entries) == (3 if is_stored else 2)


async def test_what_is_known_of_strange_ids_survives_a_restart(rig: Rig) -> None:
    await started(rig)
    rig.write(
        f"{AT}: mosquitto version 2.0.11 starting\n", f"{AT}: New client connected from 1.2.3.4:5 as p9 (p2, c1, k0).\n"
    )
    await rig.read()
    rig.start()
    rig.write(line("7 (d0, q0, r0, m0, 'x"))
    assert await rig.read() == [7]


# ---- bounds and trouble ----


async def test_what_lies_too_far_back_is_passed_over_and_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_follow, "BEHIND_MAX", 10 * len(line(1)))
    await started(rig)
    rig.write(*[line(n % 10) for n in range(100)])
    rig.start()
    assert len(await rig.read()) in (9, 10)
    assert rig.totals.skipped_bytes >= 90 * len(line(1))


async def test_a_file_without_line_ends_is_no_danger(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log_file, "PIECE_BYTES", 1000)
    await started(rig)
    rig.write("x" * 10_500 + "\n", line(1))
    assert await rig.read() == [1]
    assert rig.totals.unreadable >= 10


@pytest.mark.parametrize("kind", ["folder", "pipe"])
async def test_what_is_no_file_is_told_once(rig: Rig, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    rig.path.mkdir() if kind == "folder" else os.mkfifo(rig.path)
    for _ in range(3):
        assert await rig.read() == []
    assert "no regular file" in rig.source.status()["why"]
    rig.path.rmdir() if kind == "folder" else rig.path.unlink()
    rig.write(line(1))
    await rig.read()
    assert rig.totals.connected


async def test_a_flood_of_clients_is_flushed_in_parts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.brokers._tally.KEYS_MAX", 1000)
    monkeypatch.setattr(_log_file, "PIECE_BYTES", 100 * len(line(1)))
    await started(rig)
    rig.write(*[line(n) for n in range(5000)])
    assert sorted(await rig.read()) == list(range(5000))
    assert len(rig.log.batches) >= 4


async def test_it_waits_for_a_log_that_is_away_and_loses_nothing(rig: Rig) -> None:
    await started(rig)
    rig.log.failing = 3
    rig.write(line(1))
    assert await rig.read() == [1]
    assert (rig.totals.repeated, rig.totals.stored) == (3, 1)


async def test_a_place_that_can_not_be_noted_stops_nothing(rig: Rig) -> None:
    (rig.folder / "sources").write_text("not a folder")
    await started(rig)
    rig.write(line(1))
    assert await rig.read() == [1]
    assert rig.totals.unnoted >= 1


async def test_cancelled_while_it_hands_over_it_finishes_that(rig: Rig) -> None:
    await started(rig)
    rig.write(line(1))
    rig.log.gate.clear()
    task = asyncio.create_task(rig.source.run())
    await until(lambda: rig.log.waiting > 0)
    task.cancel()
    await asyncio.sleep(0)
    rig.log.gate.set()
    await asyncio.gather(task, return_exceptions=True)
    assert numbers(rig.log) == [1]
    rig.start()
    assert await rig.read() == []


# ---- the real broker ----


@asynccontextmanager
async def followed(folder: Path, *settings: str) -> AsyncIterator[tuple[Mosquitto, LogDouble, FileTotals]]:
    path, log, totals = folder / "events.log", LogDouble(), FileTotals()
    broker = Mosquitto(folder / "mosquitto", f"log_dest file {path}", *settings)
    outlet = Outlet("plant", log, SystemClock(), lambda: 0.1, totals)
    source = LogFile(MosquittoLog(name="plant", path=path), folder / "sources", outlet, SystemClock(), totals)
    task = asyncio.create_task(source.run())
    try:
        await until(lambda: source.status()["why"] != "not opened yet")  # else the first lines are not ours
        await broker.start()
        yield broker, log, totals
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        broker.stop()


async def run(*command: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    await asyncio.wait_for(child.wait(), 30)


async def story(broker: Mosquitto) -> None:
    """A client that listens, one that sends, one that may not, one with a wrong password, one that is replaced."""
    async with broker.client("listener", username="good", password="secret") as listener:
        await listener.subscribe("ok/#")
        async with broker.client("sender", username="good", password="secret") as sender:
            await sender.publish("ok/a", b"12345", qos=0)
        with raw(broker.port, "intruder") as intruder:
            intruder.sendall(b"\x30\x0b\0\4no/a12345")
            intruder.settimeout(0.2)
            with suppress(TimeoutError):
                intruder.recv(1)
        await anext(aiter(listener.messages))
    await run("mosquitto_pub", "-p", str(broker.port), "-i", "stranger", "-u", "good", "-P", "x", "-t", "a", "-m", "x")
    with raw(broker.port, "twin"), raw(broker.port, "twin"):
        pass
    for client in ("last", "end"):  # when the end is acknowledged, the broker has seen all before it
        await run(
            "mosquitto_pub", "-p", str(broker.port), "-i", client, "-u", "good", "-P", "secret", "-q", "1", "-t", "ok",
            "-m", "x",
        )  # fmt: skip


def raw(port: int, client: str) -> socket.socket:
    """A connection that is not clever about losing its place."""
    fields = b"".join(len(text).to_bytes(2, "big") + text for text in (client.encode(), b"good", b"secret"))
    body = b"\0\4MQTT\4\xc2\0\0" + fields
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"\x10" + bytes([len(body)]) + body)
    assert connection.recv(4)[:1] == b"\x20"
    return connection


ALL = {
    ("connected", "listener"): 1, ("connected", "sender"): 1, ("connected", "intruder"): 1, ("connected", "twin"): 2,
    ("connected", "last"): 1, ("disconnected", "listener"): 1, ("disconnected", "sender"): 1,
    ("disconnected", "intruder"): 1, ("disconnected", "twin"): 2, ("disconnected", "last"): 1,
    ("published", "sender"): 1, ("published", "last"): 1, ("delivered", "listener"): 1, ("denied", "intruder"): 1,
}  # fmt: skip


def only(*kinds: str) -> dict[tuple[str, str], int]:
    return {key: count for key, count in ALL.items() if key[0] in kinds}


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (("all",), ALL),
        (("error", "notice", "information", "debug"), ALL),
        (("error", "notice"), only("connected", "disconnected")),
        (("notice",), {**only("connected", "disconnected"), ("disconnected", "twin"): 1}),
        (("debug",), only("published", "delivered", "denied")),
        (("error",), {("disconnected", "twin"): 1}),
        (("warning", "information", "subscribe", "unsubscribe"), {}),
    ],
    ids=lambda one: "+".join(one) if isinstance(one, tuple) else "",
)
async def test_what_each_log_type_of_the_real_one_gives(
    tmp_path: Path, types: Sequence[str], expected: dict[tuple[str, str], int]
) -> None:
    (tmp_path / "acl").write_text("user good\ntopic readwrite ok/#\ntopic readwrite ok\n")
    await run("mosquitto_passwd", "-c", "-b", str(tmp_path / "users"), "good", "secret")
    settings = [f"log_type {one}" for one in types]
    settings += ["allow_anonymous false", f"password_file {tmp_path}/users", f"acl_file {tmp_path}/acl"]
    async with followed(tmp_path, *settings) as (broker, log, totals):
        await story(broker)
        broker.stop()  # writes the last lines
        lines = (tmp_path / "events.log").read_bytes().count(b"\n")
        await until(lambda: totals.lines == lines)
    assert Counter(event for event in told(log.entries) if event[1] != "end") == expected
    # The look whether it listens, and the wrong password.
    assert totals.nameless == (2 if "notice" in types or "all" in types else 0)
    assert (totals.unreadable, totals.ambiguous, totals.cut) == (0, 0, 0)


@pytest.mark.parametrize("format_", ["log_timestamp false", "log_timestamp_format %Y-%m-%dT%H:%M:%S%z"])
async def test_other_times_of_the_real_one_are_read(tmp_path: Path, format_: str) -> None:
    async with followed(tmp_path, "log_type all", format_) as (broker, log, _):
        async with broker.client("p1") as client:
            await client.publish("a/b", b"1", qos=1)
        await until(lambda: len(told(log.entries)) >= 3)
    assert told(log.entries) == [("connected", "p1"), ("published", "p1"), ("disconnected", "p1")] or (
        Counter(told(log.entries)) == {("connected", "p1"): 1, ("published", "p1"): 1, ("disconnected", "p1"): 1}
    )


async def test_the_real_one_reopens_its_log_when_told(tmp_path: Path) -> None:
    async with followed(tmp_path, "log_type all") as (broker, log, totals):
        await until(lambda: totals.connected)
        for number in range(3):
            async with broker.client(f"p{number}") as client:
                await client.publish("a/b", b"1", qos=1)
            (tmp_path / "events.log").rename(tmp_path / f"events.log.{number + 1}")
            assert broker._child is not None
            broker._child.send_signal(1)
        async with broker.client("p3") as client:
            await client.publish("a/b", b"1", qos=1)
        await until(lambda: Counter(told(log.entries))["disconnected", "p3"] == 1)
    assert Counter(told(log.entries)) == {
        (kind, f"p{number}"): 1 for kind in ("connected", "published", "disconnected") for number in range(4)
    }
    assert totals.lost == 0


async def test_strange_clients_of_the_real_one_speak_for_themselves(tmp_path: Path) -> None:
    piece = " (d0, q0, r0, m0, 'x"
    async with followed(tmp_path, "log_type all") as (broker, log, totals):
        async with broker.client("victim"), broker.client(f"victim{piece}") as hostile:
            await hostile.publish(f"a{piece}', ... (9 bytes))", b"1", qos=1)
            async with broker.client("Received PUBLISH from victim (d0, q0, r0, m0, 'a") as forger:
                await forger.subscribe("b', ... (5 bytes))")
                await forger.unsubscribe("b', ... (5 bytes))")
        await until(lambda: Counter(told(log.entries))["disconnected", "victim"] == 1)
    assert [event for event in told(log.entries) if event[1] == "victim"] == [
        ("connected", "victim"), ("disconnected", "victim")
    ]  # fmt: skip
    assert totals.ambiguous >= 3


# ---- in the whole daemon ----


async def test_the_daemon_follows_it_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    path, config = tmp_path / "mosquitto.log", tmp_path / "detectd.yaml"
    path.touch()
    config.write_text(
        f"data_dir: {tmp_path}/data\nhttp: {{listen: '127.0.0.1:0'}}\n"
        "broker: {embedded: {mqtt: '127.0.0.1:0'}, mosquitto_logs: [{name: plant, path: mosquitto.log}]}\n"
    )
    for before, after, expected in (("", line(1), {1}), (line(2), line(3), {1, 2, 3})):
        append(path, before)  # while it is away
        async with running(config) as app:
            await eventually(partial(_is_reading, app))
            append(path, after)
            await eventually(partial(_has_heard, app, expected))
            status = (await ask(app, "GET", "/-/status"))[1]["sources"]["plant"]
            assert (status["path"], status["behind_bytes"]) == (str(path), 0)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


async def _is_reading(app: App) -> bool:
    return not app.sources.status()["plant"]["why"]


async def _has_heard(app: App, numbers: set[int]) -> bool:
    entries = []
    async for frames in app.host.read_range(1, await app.host.last_seq()):
        assert not isinstance(frames, Gap)
        places = [place for place in range(len(frames)) if frames.subject(place) == "detectd.log.events.plant"]
        entries += [Entry(frames.subject(place), frames.payload(place)) for place in places]
    heard = [int(client[1:]) for _, client in told(entries)]
    assert len(heard) == len(set(heard))
    return set(heard) == numbers


async def older(path: Path, seconds: int) -> None:
    """Makes the age of a file definite: several are made within one tick of the file system's clock here."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - seconds * NS))
