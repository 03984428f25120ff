"""The file of credentials: changed by the command, followed by the daemon, and never the reason to let everybody in."""

import asyncio
import json
import os
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.clock import VirtualClock
from daemon.devices import credentials, passwords
from daemon.devices.credentials import FILE, LOOK_S, DamagedDevices, Device, DevicesFile, change, read
from daemon.devices.passwords import Cost, is_right

REVOKED = Device(revoked=True, changed=1)


def password(text: str) -> Device:
    return Device(password=passwords.hashed(text.encode(), Cost(4)).text, changed=1)


def put(folder: Path, name: str, device: Device) -> None:
    change(folder, lambda known: {**known, name: device})


def damage(folder: Path, content: str | bytes = "{") -> None:
    (folder / FILE).write_bytes(content.encode() if isinstance(content, str) else content)


# ---- the file ----


def test_what_is_put_in_is_there_again(tmp_path):
    device = Device(password=password("a").password, fingerprints=("ab" * 32,), changed=7)
    put(tmp_path, "t1", device)
    put(tmp_path, "t0", REVOKED)
    found = read(tmp_path / FILE)
    assert found.devices == {"t0": REVOKED, "t1": device}
    assert is_right(b"a", found.hashes["t1"])
    assert found.by_fingerprint == {"ab" * 32: "t1"}


def test_without_a_file_there_are_no_credentials(tmp_path):
    assert not read(tmp_path / FILE)


def test_revoked_devices_alone_are_credentials_too(tmp_path):
    put(tmp_path, "t1", REVOKED)
    assert read(tmp_path / FILE)


def test_the_file_is_for_its_owner_alone_and_the_folder_is_made(tmp_path):
    put(tmp_path / "a" / "data", "t1", REVOKED)
    for path in (tmp_path / "a" / "data").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_changes_at_the_same_time_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: put(tmp_path, f"t{n}", REVOKED), range(40)))
    assert len(read(tmp_path / FILE).devices) == 40


def content(devices: Mapping[str, object], version: int = 1) -> str:
    return json.dumps({"version": version, "devices": devices})


BROKEN = {
    "no JSON": "{",
    "no text": b"\xff\xfe",
    "nothing": "",
    "another version": content({}, version=2),
    "an unknown member": content({"t1": {"pasword": "x"}}),
    "no hash": content({"t1": {"password": "letmein"}}),
    "a hash that would take a terabyte": content({"t1": {"password": password("a").password.replace("ln=4", "ln=30")}}),
    "a name with a wildcard": content({"+": {"revoked": True}}),
    "a certificate of two": content({"t1": {"fingerprints": ["ab"]}, "t2": {"fingerprints": ["ab"]}}),
    "a list": "[]",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_damaged_file_is_refused_at_the_start_and_shows_nothing(tmp_path, text):
    damage(tmp_path, text)
    with pytest.raises(DamagedDevices) as refused:
        DevicesFile(tmp_path)
    assert str(tmp_path / FILE) in str(refused.value)
    assert "letmein" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_damaged_file_is_not_written_over(tmp_path):
    damage(tmp_path)
    with pytest.raises(DamagedDevices):
        put(tmp_path, "t1", REVOKED)
    assert (tmp_path / FILE).read_text() == "{"


def test_what_would_damage_the_file_is_not_written(tmp_path):
    put(tmp_path, "t1", Device(fingerprints=("ab",)))
    with pytest.raises(DamagedDevices):
        put(tmp_path, "t2", Device(fingerprints=("ab",)))
    assert list(read(tmp_path / FILE).devices) == ["t1"]


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    put(tmp_path, "t1", REVOKED)
    monkeypatch.setattr(credentials, "BYTES_MAX", 50)
    with pytest.raises(DamagedDevices, match="larger than"):
        read(tmp_path / FILE)


def test_a_file_that_would_be_too_large_is_not_written(tmp_path, monkeypatch):
    put(tmp_path, "t1", REVOKED)
    before = (tmp_path / FILE).read_bytes()
    monkeypatch.setattr(credentials, "BYTES_MAX", len(before) + 10)
    with pytest.raises(DamagedDevices, match="would be larger"):
        put(tmp_path, "t2", REVOKED)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_writes_the_daemons_user_can_read(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    put(tmp_path, "t1", REVOKED)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()} == {(12345, 12345)}


# ---- following it ----


async def test_a_change_is_in_force_at_the_next_look(tmp_path):
    file, clock = DevicesFile(tmp_path), VirtualClock()
    following = asyncio.create_task(file.run(clock))
    put(tmp_path, "t1", REVOKED)
    async with asyncio.timeout(30):
        while not file.revision:
            await clock.advance(LOOK_S)
    assert file.current.devices == {"t1": REVOKED}
    following.cancel()


async def test_looking_again_without_a_change_changes_nothing(tmp_path):
    put(tmp_path, "t1", REVOKED)
    file = DevicesFile(tmp_path)
    await file.refresh()
    (tmp_path / FILE).touch()
    await file.refresh()
    assert file.revision == 0


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
async def test_a_file_that_is_damaged_while_running_leaves_the_old_credentials(tmp_path, text):
    put(tmp_path, "t1", password("a"))
    file = DevicesFile(tmp_path)
    before = file.current
    damage(tmp_path, text)
    with capture_logs() as lines:
        await file.refresh()
        await file.refresh()
    assert (file.current, file.revision, file.is_damaged) == (before, 0, True)
    assert [(line["event"], line["log_level"]) for line in lines] == [("devices.file-damaged", "error")]
    assert "letmein" not in str(lines)


@pytest.mark.parametrize("text", [None, content({})], ids=["gone", "empty"])
async def test_a_file_that_loses_its_devices_opens_no_door(tmp_path, text):
    put(tmp_path, "t1", password("a"))
    file = DevicesFile(tmp_path)
    (tmp_path / FILE).unlink()
    if text is not None:
        damage(tmp_path, text)
    await file.refresh()
    assert list(file.current.devices) == ["t1"]
    assert file.is_damaged


async def test_a_file_that_is_mended_is_taken_over_and_said(tmp_path):
    put(tmp_path, "t1", password("a"))
    file = DevicesFile(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    damage(tmp_path)
    await file.refresh()
    damage(tmp_path, whole)
    with capture_logs() as lines:
        await file.refresh()
    assert not file.is_damaged
    assert [line["event"] for line in lines] == ["devices.file-mended"]
    put(tmp_path, "t1", REVOKED)
    await file.refresh()
    assert file.revision == 1


async def test_a_file_that_cant_be_read_leaves_the_old_credentials(tmp_path):
    put(tmp_path, "t1", password("a"))
    file = DevicesFile(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()  # as root, a mode would not keep us out
    await file.refresh()
    assert list(file.current.devices) == ["t1"]
    with pytest.raises(DamagedDevices):
        DevicesFile(tmp_path)


async def test_what_changed_is_said_by_name_but_not_all_of_a_fleet(tmp_path):
    put(tmp_path, "t1", password("a"))
    put(tmp_path, "t2", password("b"))
    file = DevicesFile(tmp_path)
    change(tmp_path, lambda known: {**known, **{f"x{n:02}": REVOKED for n in range(22)}, "t2": password("c")})
    with capture_logs() as lines:
        await file.refresh()
    (line,) = lines
    assert (line["event"], line["good"], line["devices"]) == ("devices.changed", ["t2"], 24)
    assert line["revoked"] == [*(f"x{n:02}" for n in range(20)), "and 2 more"]
    assert "scrypt" not in str(line)


def test_neither_the_file_nor_a_device_shows_a_hash(tmp_path):
    put(tmp_path, "t1", password("a"))
    file = DevicesFile(tmp_path)
    assert "scrypt" not in repr(file) + repr(file.current)


# ---- a file that is lost between two runs ----


@pytest.mark.parametrize("by", ["the command", "a backup"])
def test_a_file_that_is_gone_at_the_start_is_an_error_where_there_was_one(tmp_path: Path, by: str) -> None:
    put(tmp_path, "t1", REVOKED)
    if by == "a backup":  # it brings the file alone: the daemon has seen it since
        (tmp_path / credentials.LOCK).unlink()
        DevicesFile(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(DamagedDevices, match=r"it is gone; the devices' credentials are in it"):
        DevicesFile(tmp_path)
    put(tmp_path, "t2", REVOKED)
    assert set(DevicesFile(tmp_path).current.devices) == {"t2"}


def test_a_change_that_was_refused_leaves_a_broker_that_asks_nobody(tmp_path: Path) -> None:
    with pytest.raises(DamagedDevices):
        put(tmp_path, "a/b", REVOKED)
    assert not DevicesFile(tmp_path).current
