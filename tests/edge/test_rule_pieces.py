"""Rules in the store: whole again however they were cut, and a small change of a large fleet stores little."""

import random
import sqlite3
from collections.abc import Iterator

import pytest

from config.diff import digest_of, rules_bytes
from config.model import Fleet, Group, Rules
from daemon.store import rule_pieces
from daemon.store.schema import migrate


@pytest.fixture
def con() -> Iterator[sqlite3.Connection]:
    con = sqlite3.connect(":memory:", isolation_level=None)
    migrate(con)
    yield con
    con.close()


def put(con: sqlite3.Connection, rules: bytes, now_ns: int = 0) -> str:
    rule_pieces.put(con, digest_of(rules), rule_pieces.cut(rules), now_ns)
    return digest_of(rules)


def stored(con: sqlite3.Connection) -> int:
    return int(con.execute("SELECT coalesce(sum(length(body)), 0) FROM pieces").fetchone()[0])


def fleet(things: int, *more: str) -> bytes:
    names = tuple(f"meter-{n:06}" for n in range(things))
    return rules_bytes(Rules(fleet=Fleet((*names, *more), {"pumps": Group(None, names[::3])})))


def test_whatever_was_cut_is_whole_again(con: sqlite3.Connection) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(200):
        text = b"".join(chance.choice([b'","', b'"', b",", b"a", b"meter-17", b"\x01", b""]) for _ in range(60))
        rules = b"{" + text + b"}"
        assert b"".join(piece for _, piece in rule_pieces.cut(rules)) == rules
        assert rule_pieces.get(con, put(con, rules)) == rules


def test_a_cut_at_the_very_end_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_pieces, "PIECE_NAMES", 1)  # every name ends a piece
    for rules in (b"{}", b'{"a","b"}', b'{","'):
        assert b"".join(piece for _, piece in rule_pieces.cut(rules)) == rules


def test_one_more_thing_among_many_stores_a_piece_or_two(con: sqlite3.Connection) -> None:
    put(con, fleet(20_000))
    before = stored(con)
    grown = fleet(20_000, "one-more")
    digest = put(con, grown)
    assert rule_pieces.get(con, digest) == grown
    assert stored(con) - before < before / 10


def test_rules_that_were_stored_whole_are_read(con: sqlite3.Connection) -> None:
    con.execute("INSERT INTO definitions VALUES ('old', ?, 0)", (b'{"profiles":[]}',))
    assert rule_pieces.get(con, "old") == b'{"profiles":[]}'
    assert rule_pieces.get(con, "none") is None


def test_what_is_forgotten_takes_only_its_own_pieces_along(con: sqlite3.Connection) -> None:
    old, new = put(con, fleet(5_000), 1), put(con, fleet(5_000, "one-more"), 2)
    assert rule_pieces.drop(con, 2, [old]) == 0
    assert rule_pieces.drop(con, 2, []) == 1
    assert rule_pieces.get(con, old) is None
    assert rule_pieces.get(con, new) == fleet(5_000, "one-more")
    assert rule_pieces.drop(con, 3, []) == 1
    assert stored(con) == 0
