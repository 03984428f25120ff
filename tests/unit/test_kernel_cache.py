"""Compiled kernels are found again by the same sources only."""

import os
from pathlib import Path

import pytest

import actors
from daemon import kernel_cache
from daemon.kernel_cache import PLACE


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLACE, "")
    monkeypatch.delenv(PLACE)


def place(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> Path:
    monkeypatch.delenv(PLACE, raising=False)
    kernel_cache.prepare(lambda: data_dir)
    return Path(os.environ[PLACE])


def test_it_lies_beside_the_sources_where_they_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place(monkeypatch, tmp_path).parent == Path(actors.__file__).parent / "__pycache__"


def test_it_lies_in_the_data_directory_of_a_read_only_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Path(actors.__file__).parent
    monkeypatch.setattr(kernel_cache.os, "access", lambda path, _mode: Path(path) != sources)
    assert place(monkeypatch, tmp_path / "data").parent == tmp_path / "data"


def test_nobody_can_guess_it_where_nothing_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache.os, "access", lambda *_: False)
    first, second = place(monkeypatch, tmp_path), place(monkeypatch, tmp_path)
    assert first.parent != second.parent
    assert first.parent.stat().st_mode & 0o077 == 0


def test_another_source_of_a_kernel_is_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = place(monkeypatch, tmp_path)
    package = tmp_path / "actors"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "kernel.py").write_text("@njit\ndef f(): ...\n")
    monkeypatch.setattr(actors, "__file__", str(package / "__init__.py"))
    one = place(monkeypatch, tmp_path)
    (package / "kernel.py").write_text("@njit\ndef f(): return 1\n")
    other = place(monkeypatch, tmp_path)
    assert len({before.name, one.name, other.name}) == 3


def test_an_operators_own_choice_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLACE, "/somewhere")
    kernel_cache.prepare(lambda: tmp_path)
    assert os.environ[PLACE] == "/somewhere"
