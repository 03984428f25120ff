"""Checkpoints: the state of the world at one position of the log, as files of its own beside SQLite (design.md §6).

A file is written under a temporary name, flushed, and renamed; its digest and position are then recorded in SQLite by
the caller. One that is missing, cut short or altered is refused, and the one before is used: only time is lost.
"""

import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

ARRAY: Final = 1  # msgpack extension: dtype, shape, bytes
KEPT: Final = 2  # checkpoints on disk: the newest and one to fall back to


class CheckpointError(Exception):
    """A checkpoint that can't be used; says which file and why."""


def frozen(state: Any) -> Any:
    """A copy of an actor's dump: its arrays, maps and lists go on changing, the checkpoint's must not.

    What lists hold is taken as it is: plain values and tuples of them, by the hundred thousand.
    """
    match state:
        case np.ndarray():
            return state.copy()
        case Mapping():
            return {key: frozen(value) for key, value in state.items()}
        case list() | tuple():
            return list(state)
        case _:
            return state


def write(folder: Path, name: str, state: Any) -> str:
    """Write one frozen state to `folder/name`; the digest of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    body = msgspec.msgpack.encode(state, enc_hook=_encode)
    partial = folder / f".{name}.partial"
    with partial.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / name)
    return blake2b(body, digest_size=16).hexdigest()


def read(path: Path, digest: str) -> Any:
    """The state in a file.

    Raises:
        CheckpointError: it is missing, or not what was written.
    """
    try:
        body = path.read_bytes()
    except OSError as problem:
        raise CheckpointError(f"checkpoint {path}: {problem.strerror}") from problem
    if blake2b(body, digest_size=16).hexdigest() != digest:
        raise CheckpointError(f"checkpoint {path}: its content is not what was written")
    return msgspec.msgpack.decode(body, ext_hook=_decode)


def tidy(folder: Path, keep: set[str]) -> None:
    """Remove files of checkpoints that nothing refers to any more."""
    for path in folder.glob("*"):
        if path.name not in keep:
            path.unlink(missing_ok=True)


def _encode(value: Any) -> msgspec.msgpack.Ext:
    if isinstance(value, np.ndarray):
        head = msgspec.msgpack.encode((value.dtype.str, value.shape))
        return msgspec.msgpack.Ext(ARRAY, len(head).to_bytes(2, "big") + head + np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.integer):
        return int(value)  # type: ignore[return-value]  # msgspec takes any encodable value back
    raise TypeError(f"a checkpoint can't hold {type(value).__name__}")


def _decode(code: int, data: memoryview) -> Any:
    if code != ARRAY:
        raise CheckpointError(f"unknown extension {code} in a checkpoint")
    size = int.from_bytes(data[:2], "big")
    dtype, shape = msgspec.msgpack.decode(data[2 : 2 + size])
    return np.frombuffer(data, np.dtype(dtype), offset=2 + size).reshape(shape).copy()
