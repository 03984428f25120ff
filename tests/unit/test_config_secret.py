"""A secret never prints itself; its file is read with care."""

import copy
import json
import os
import pickle
import traceback

import msgspec
import pytest

from config.problem import ConfigError
from config.secret import BYTES_MAX, Secret, loose, read_secret

TEXT = "hunter2-very-secret"


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, lambda secret: f"{secret}"])
def test_it_never_shows_itself(show):
    assert show(Secret(TEXT)) == "<secret>"


@pytest.mark.parametrize("write", [pickle.dumps, copy.deepcopy, json.dumps, msgspec.json.encode, vars])
def test_it_can_not_be_written_down(write):
    with pytest.raises(TypeError) as refused:
        write(Secret(TEXT))
    assert TEXT not in str(refused.value)


def test_it_is_shown_when_asked():
    assert Secret(TEXT).reveal() == TEXT


def test_equal_texts_are_equal_secrets():
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret("é")
    assert Secret(TEXT) != TEXT
    assert len({Secret(TEXT), Secret(TEXT)}) == 1


def test_a_file_is_stripped_of_surrounding_whitespace(tmp_path):
    file = tmp_path / "key"
    file.write_text(f"\n  {TEXT} \r\n")
    assert read_secret(file).reveal() == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n", "is empty"),
        (b"\xff" + TEXT.encode(), "no UTF-8"),
        (b"x" * (BYTES_MAX + 1), "larger than 64 KiB"),
    ],
)
def test_a_bad_file_is_refused_without_showing_it(tmp_path, content, message):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refused:
        read_secret(file)
    assert TEXT not in "".join(traceback.format_exception(refused.value))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="absent:1:1: there is no such secret file"):
        read_secret(tmp_path / "absent")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is no file"):
        read_secret(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o620, True)]
)
def test_loose_permissions_warn(tmp_path, mode, warns):
    file = tmp_path / "key"
    file.write_text(TEXT)
    file.chmod(mode)
    warning = loose(file)
    assert (warning is not None) == warns
    assert warning is None or (f"mode {mode:04o}" in warning and TEXT not in warning)


def test_no_file_has_no_loose_permissions(tmp_path):
    assert loose(tmp_path / "absent") is None
