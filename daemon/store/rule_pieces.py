"""Rules in the store: cut into pieces that versions share, so that one more thing among a million costs a few kB.

The cut follows the content: a piece ends after a name whose checksum says so, wherever it stands. Then two versions
that differ in one place have all other pieces in common.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

Con = sqlite3.Connection

SEPARATOR: Final = b'","'  # between two names of a list, in JSON
PIECE_NAMES: Final = 512  # on average
DIGEST_BYTES: Final = 16
CUT: Final = b"\x01"  # before the names of pieces; rules that an earlier detectd stored whole begin with {

Piece = tuple[bytes, bytes]
"""Its name, a digest, and its content."""


def put(con: Con, digest: str, pieces: Sequence[Piece], now_ns: int) -> None:
    """Remember the rules of a digest, as `cut` gave them."""
    known = _known(con, [name for name, _ in pieces])
    fresh = {name: body for name, body in pieces if name not in known}
    con.executemany("INSERT INTO pieces VALUES (?, ?)", [(name, zlib.compress(b, 1)) for name, b in fresh.items()])
    row = (digest, CUT + b"".join(name for name, _ in pieces), now_ns)
    con.execute("INSERT OR REPLACE INTO definitions VALUES (?, ?, ?)", row)


def get(con: Con, digest: str) -> bytes | None:
    """The rules of a digest; None where there are none."""
    row = con.execute("SELECT rules FROM definitions WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else _whole(con, bytes(row[0]))


def drop(con: Con, before_ns: int, keep: Iterable[str]) -> int:
    """Forget rules stored before `before_ns`, except `keep`, and the pieces that nobody needs any more; how many."""
    kept = tuple(keep)
    marks = ",".join("?" * len(kept))
    sql = f"DELETE FROM definitions WHERE time_ns < ? AND digest NOT IN ({marks})"  # noqa: S608  # only marks
    dropped = con.execute(sql, (before_ns, *kept)).rowcount
    if dropped:
        needed = {name for (body,) in con.execute("SELECT rules FROM definitions") for name in _names(bytes(body))}
        unused = [row for row in con.execute("SELECT digest FROM pieces") if row[0] not in needed]
        con.executemany("DELETE FROM pieces WHERE digest = ?", unused)
    return dropped


def cut(rules: bytes) -> list[Piece]:
    """Pieces that joined are the whole. Takes its time for a large fleet: not for the writer's thread."""
    return [(blake2b(piece, digest_size=DIGEST_BYTES).digest(), piece) for piece in _cut(rules)]


def _cut(rules: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    piece: list[bytes] = []
    for name in rules.split(SEPARATOR):
        piece.append(name)
        if zlib.crc32(name) % PIECE_NAMES == 0:
            pieces.append(SEPARATOR.join([*piece, b""]))
            piece = []
    if not piece:  # the last name ended a piece, and nothing follows it
        return [*pieces[:-1], pieces[-1].removesuffix(SEPARATOR)]
    return [*pieces, SEPARATOR.join(piece)]


def _names(body: bytes) -> list[bytes]:
    if not body.startswith(CUT):
        return []
    return [body[at : at + DIGEST_BYTES] for at in range(len(CUT), len(body), DIGEST_BYTES)]


def _whole(con: Con, body: bytes) -> bytes:
    if not body.startswith(CUT):
        return body
    one = "SELECT body FROM pieces WHERE digest = ?"
    return b"".join(zlib.decompress(con.execute(one, (name,)).fetchone()[0]) for name in _names(body))


def _known(con: Con, names: Sequence[bytes]) -> set[bytes]:
    return {name for name in names if con.execute("SELECT 1 FROM pieces WHERE digest = ?", (name,)).fetchone()}
