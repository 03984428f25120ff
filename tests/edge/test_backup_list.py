"""The list of what is in a backup: what is not as it says is no backup, and the message names the file."""

from pathlib import Path

import pytest

from daemon.backup_list import FILE, NoBackup, seal, verify


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A folder with two files and its list."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "detectd.sqlite").write_bytes(b"store")
    (tmp_path / "checkpoints" / "1").write_bytes(b"state")
    seal(tmp_path)
    return tmp_path


def test_what_is_as_it_was_written_passes(sealed: Path) -> None:
    verify(sealed)


def test_a_copy_that_broke_off_is_none(sealed: Path) -> None:
    (sealed / FILE).unlink()
    with pytest.raises(NoBackup, match=r"broke off: backup\.json is missing"):
        verify(sealed)


def test_a_place_that_is_no_directory_is_none(sealed: Path) -> None:
    for path in (sealed / "nowhere", sealed / "detectd.sqlite"):
        with pytest.raises(NoBackup, match="no backup"):
            verify(path)


def test_a_file_that_is_gone_is_named(sealed: Path) -> None:
    (sealed / "checkpoints" / "1").unlink()
    with pytest.raises(NoBackup, match="checkpoints/1 missing"):
        verify(sealed)


@pytest.mark.parametrize("content", [b"stora", b"stor", b"store!"])
def test_a_file_that_rotted_is_named(sealed: Path, content: bytes) -> None:
    (sealed / "detectd.sqlite").write_bytes(content)
    with pytest.raises(NoBackup, match=r"detectd\.sqlite: damaged"):
        verify(sealed)


def test_a_file_that_came_later_is_named(sealed: Path) -> None:
    (sealed / "devices.json").write_bytes(b"{}")
    with pytest.raises(NoBackup, match=r"not of the backup: devices\.json"):
        verify(sealed)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"a": {"bytes": 1}}'])
def test_a_list_that_is_none_is_named(sealed: Path, content: bytes) -> None:
    (sealed / FILE).write_bytes(content)
    with pytest.raises(NoBackup, match=r"backup\.json: damaged"):
        verify(sealed)
