"""Migrations: in order, each whole or not at all, and never on a file that is not ours to change."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from transitions import START_NS

from daemon.store.schema import MIGRATIONS, Migration, SchemaError, migrate
from daemon.store.store import Store, StoreError

FIRST = Migration("first", ("CREATE TABLE a (x)",))
SECOND = Migration("second", ("INSERT INTO a VALUES (1)", "CREATE TABLE b (y)"))
BROKEN = Migration("broken", ("CREATE TABLE c (z)", "INSERT INTO nowhere VALUES (1)"))


@pytest.fixture
def con(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    con = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    yield con
    con.close()


def tables(con: sqlite3.Connection) -> set[str]:
    return {name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def version(con: sqlite3.Connection) -> int:
    return int(con.execute("PRAGMA user_version").fetchone()[0])


def test_an_older_database_gets_what_it_lacks_and_keeps_what_it_has(con: sqlite3.Connection) -> None:
    assert migrate(con, [FIRST]) == ["first"]
    con.execute("INSERT INTO a VALUES (7)")
    assert migrate(con, [FIRST, SECOND]) == ["second"]
    assert migrate(con, [FIRST, SECOND]) == []
    assert con.execute("SELECT x FROM a").fetchall() == [(7,), (1,)]


def test_a_migration_that_fails_leaves_the_database_at_the_last_good_one(con: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(con, [FIRST, BROKEN, SECOND])
    assert tables(con) == {"a"}
    assert version(con) == 1
    assert migrate(con, [FIRST, SECOND]) == ["second"]


def test_a_database_of_a_newer_detectd_is_refused_and_left_alone(con: sqlite3.Connection) -> None:
    migrate(con, [FIRST, SECOND])
    with pytest.raises(SchemaError, match="schema 2, this detectd knows 1: it was written by a newer detectd"):
        migrate(con, [FIRST])
    assert version(con) == 2


def test_a_file_of_another_program_is_refused_and_left_alone(con: sqlite3.Connection) -> None:
    con.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(SchemaError, match="not written by detectd"):
        migrate(con)
    assert tables(con) == {"bookmarks"}


def test_names_of_migrations_are_unique() -> None:
    assert len({migration.name for migration in MIGRATIONS}) == len(MIGRATIONS)


def test_events_of_an_older_database_say_how_they_were_verified(con: sqlite3.Connection) -> None:
    assert [migration.name for migration in MIGRATIONS][2] == "events say how they were verified"
    migrate(con, MIGRATIONS[:2])
    for name, description in (("seen", "a drill"), ("unseen", None)):
        con.execute(
            "INSERT INTO violations (violation_id, profile, thing, registered, behavior_name, behavior, criteria_type, "
            "suppressed, start_ns, last_violation_ns, verification_description) "
            "VALUES (?, 'P', 't', 1, 'b', '{}', 'STATIC', 0, 1, 1, ?)",
            (name, description),
        )
        con.execute(
            "INSERT INTO events (event_id, violation_id, event_type, profile, thing, criteria_type, suppressed, "
            "time_ns, position, reason, message) VALUES (?1, ?1, 'in-alarm', 'P', 't', 'STATIC', 0, 1, 1, '', '{}')",
            (name,),
        )
    migrate(con)
    found = con.execute("SELECT violation_id, verification_description FROM events ORDER BY id").fetchall()
    assert found == [("seen", "a drill"), ("unseen", None)]


async def test_a_store_that_cannot_be_opened_says_which_file_and_what_to_do(tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    store = await Store.open(newer, clock=lambda: START_NS)
    await store.write(lambda con: con.execute("PRAGMA user_version = 99"))
    await store.close()
    (tmp_path / "text.db").write_text("this is no database, but it is long enough to be looked at" * 100)
    for name, why in (("newer.db", "newer detectd"), ("text.db", "not a database")):
        with pytest.raises(StoreError, match=rf"{name}: .*{why}"):
            await Store.open(tmp_path / name, clock=lambda: START_NS)
    with pytest.raises(StoreError, match=r"opening .*text\.db"):
        await Store.open(tmp_path / "text.db" / "below-a-file.db", clock=lambda: START_NS)


async def test_the_database_is_for_the_daemons_user_only(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "detectd.db", clock=lambda: START_NS)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    await store.close()
    assert modes == {"detectd.db": 0o600, "detectd.db-wal": 0o600, "detectd.db-shm": 0o600}
