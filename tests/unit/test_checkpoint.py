"""Checkpoint files: what is read is what was written, or an error that names the file."""

import msgspec
import numpy as np
import pytest

from daemon.checkpoint import CheckpointError, frozen, read, tidy, write

STATE = {
    "position": 7,
    "now": None,
    "arrays": {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.zeros((0, 4), np.uint8)},
    "rows": [(1, 2, "id", 2**62), (3, 4, b"payload", True)],
    "names": b"p1\0\xc3\xa9",
}


def test_a_state_comes_back_as_it_was_with_dtypes_and_shapes(tmp_path):
    again = read(tmp_path / "x", write(tmp_path, "x", STATE))
    for name in ("a", "b"):
        assert again["arrays"][name].dtype == STATE["arrays"][name].dtype
        assert again["arrays"][name].shape == STATE["arrays"][name].shape
        assert again["arrays"][name].tolist() == STATE["arrays"][name].tolist()
    assert (again["position"], again["now"], again["names"]) == (7, None, b"p1\0\xc3\xa9")
    assert [tuple(row) for row in again["rows"]] == STATE["rows"]


def test_an_array_that_was_read_is_writable_and_contiguous(tmp_path):
    array = read(tmp_path / "x", write(tmp_path, "x", {"a": np.zeros((4, 4), np.int64)[:, :2]}))["a"]
    array[0, 0] = 1
    assert array.flags.c_contiguous


def test_a_frozen_copy_does_not_move_with_the_actor():
    live = {"arrays": {"a": np.zeros(3, np.int64)}, "free": {"2": [1, 2]}, "rows": [(1, "id")]}
    copy = frozen(live)
    live["arrays"]["a"][0] = 9
    live["free"]["2"].append(3)
    live["rows"].append((2, "id"))
    assert copy["arrays"]["a"].tolist() == [0, 0, 0]
    assert copy["free"] == {"2": [1, 2]}
    assert copy["rows"] == [(1, "id")]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes().replace(b"p1", b"p2")),
    ],
    ids=["missing", "cut short", "empty", "altered"],
)
def test_a_file_that_is_not_what_was_written_is_refused_by_name(tmp_path, spoil):
    digest = write(tmp_path, "x", STATE)
    spoil(tmp_path / "x")
    with pytest.raises(CheckpointError, match=str(tmp_path / "x")):
        read(tmp_path / "x", digest)


def test_a_file_of_another_make_is_refused_even_when_its_digest_is_right(tmp_path):
    digest = write(tmp_path, "x", msgspec.msgpack.Ext(9, b"?"))
    with pytest.raises(CheckpointError, match="extension 9"):
        read(tmp_path / "x", digest)


def test_a_write_replaces_the_file_whole_and_leaves_no_other(tmp_path):
    write(tmp_path, "x", {"n": 1})
    assert read(tmp_path / "x", write(tmp_path, "x", {"n": 2})) == {"n": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    digest = write(tmp_path, "x", {"n": 1})
    with pytest.raises(TypeError, match="can't hold object"):
        write(tmp_path, "x", {"n": object()})
    assert read(tmp_path / "x", digest) == {"n": 1}


def test_tidying_removes_what_nothing_refers_to_any_more(tmp_path):
    for name in ("old", "new", ".cut.partial"):
        write(tmp_path, name, {})
    tidy(tmp_path, {"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_tidying_a_folder_that_is_not_there_is_no_error(tmp_path):
    tidy(tmp_path / "none", set())
