"""The tables of the store: ordered, named migrations, each one transaction together with the record of it.

`PRAGMA user_version` is the number of migrations that a database has; `application_id` says that it is ours.
Instants are INTEGER nanoseconds; behaviors and values are JSON text. To change the schema, append a migration:
one that has been released is never edited.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

APPLICATION_ID: Final = 0x64746374  # "dtct"


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    statements: tuple[str, ...]


class SchemaError(Exception):
    """The file is not ours, or was written by a newer detectd."""


MIGRATIONS: Final[tuple[Migration, ...]] = (
    Migration(
        "alarms and outbox",
        (
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
            "CREATE TABLE positions (actor TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE checkpoints (position INTEGER PRIMARY KEY, manifest TEXT NOT NULL)",
            "CREATE TABLE definitions (digest TEXT PRIMARY KEY, rules BLOB NOT NULL, time_ns INTEGER NOT NULL)",
            """CREATE TABLE gaps (
                 id INTEGER PRIMARY KEY, source TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
                 time_ns INTEGER NOT NULL, reason TEXT NOT NULL, UNIQUE (source, first, last))""",
            """CREATE TABLE poison (
                 actor TEXT NOT NULL, seq INTEGER NOT NULL, subject TEXT NOT NULL, entry BLOB NOT NULL,
                 error TEXT NOT NULL, time_ns INTEGER NOT NULL, PRIMARY KEY (actor, seq))""",
            # One row per episode. end_ns is NULL while the alarm is open.
            """CREATE TABLE violations (
                 violation_id TEXT PRIMARY KEY, profile TEXT NOT NULL, thing TEXT NOT NULL,
                 registered INTEGER NOT NULL, behavior_name TEXT NOT NULL, behavior TEXT NOT NULL,
                 criteria_type TEXT NOT NULL, suppressed INTEGER NOT NULL, start_ns INTEGER NOT NULL,
                 last_violation_ns INTEGER NOT NULL, last_value TEXT, end_ns INTEGER,
                 verification_state TEXT NOT NULL DEFAULT 'UNKNOWN', verification_description TEXT,
                 verified_ns INTEGER) WITHOUT ROWID""",
            "CREATE INDEX violations_open ON violations (start_ns) WHERE end_ns IS NULL",
            "CREATE INDEX violations_closed ON violations (end_ns) WHERE end_ns IS NOT NULL",
            # `message` is the whole event as receivers see it; the other columns are what lists filter by.
            """CREATE TABLE events (
                 id INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, violation_id TEXT NOT NULL,
                 event_type TEXT NOT NULL, profile TEXT NOT NULL, thing TEXT NOT NULL, criteria_type TEXT NOT NULL,
                 suppressed INTEGER NOT NULL, time_ns INTEGER NOT NULL, position INTEGER NOT NULL,
                 reason TEXT NOT NULL, message TEXT NOT NULL)""",
            "CREATE INDEX events_by_time ON events (time_ns, id)",
            "CREATE INDEX events_of_thing ON events (thing, time_ns, id)",
            "CREATE INDEX events_of_violation ON events (violation_id)",
            # AUTOINCREMENT: an id is never given twice, so the order of ids is the order of delivery.
            """CREATE TABLE outbox (
                 id INTEGER PRIMARY KEY AUTOINCREMENT, webhook_id TEXT NOT NULL UNIQUE, event_id TEXT NOT NULL,
                 violation_id TEXT NOT NULL, event_type TEXT NOT NULL, receiver TEXT NOT NULL, thing TEXT NOT NULL,
                 state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due_ns INTEGER NOT NULL,
                 created_ns INTEGER NOT NULL, done_ns INTEGER, why TEXT NOT NULL DEFAULT '')""",
            "CREATE INDEX outbox_of_violation ON outbox (violation_id, receiver)",
            "CREATE INDEX outbox_queued ON outbox (receiver, id) WHERE state = 'queued'",
            "CREATE INDEX outbox_queued_of_thing ON outbox (receiver, thing, id) WHERE state = 'queued'",
            "CREATE INDEX outbox_by_state ON outbox (state, id)",
            # A receiver that answered 410. `digest` names the options it had, so that new options start afresh.
            """CREATE TABLE disabled (
                 receiver TEXT PRIMARY KEY, digest TEXT NOT NULL, why TEXT NOT NULL, time_ns INTEGER NOT NULL)
               WITHOUT ROWID""",
        ),
    ),
    Migration(
        "the control plane",
        (
            # `file` names the file that defines an object; NULL: the API does. Instants are ns.
            """CREATE TABLE profiles (
                 name TEXT PRIMARY KEY, body TEXT NOT NULL, version INTEGER NOT NULL, created_ns INTEGER NOT NULL,
                 modified_ns INTEGER NOT NULL, file TEXT) WITHOUT ROWID""",
            # `target` in its short form: all/things, thinggroup/NAME …
            """CREATE TABLE targets (
                 profile TEXT NOT NULL, target TEXT NOT NULL, PRIMARY KEY (profile, target)) WITHOUT ROWID""",
            "CREATE INDEX targets_by_target ON targets (target, profile)",
            """CREATE TABLE custom_metrics (
                 name TEXT PRIMARY KEY, body TEXT NOT NULL, token TEXT, created_ns INTEGER NOT NULL,
                 modified_ns INTEGER NOT NULL, file TEXT) WITHOUT ROWID""",
            """CREATE TABLE dimensions (
                 name TEXT PRIMARY KEY, body TEXT NOT NULL, token TEXT, created_ns INTEGER NOT NULL,
                 modified_ns INTEGER NOT NULL, file TEXT) WITHOUT ROWID""",
            # `resource` is the last part of the ARN: securityprofile/NAME, thinggroup/NAME …
            """CREATE TABLE tags (
                 resource TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (resource, key))
               WITHOUT ROWID""",
            # The registry. What is here may be both a file's and the API's; it goes when it is neither's.
            # Things and types are listed in the order of `seq`, that of their creation.
            """CREATE TABLE things (
                 seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, id TEXT NOT NULL, type TEXT,
                 billing_group TEXT, attributes TEXT NOT NULL DEFAULT '{}', version INTEGER NOT NULL DEFAULT 0,
                 created_ns INTEGER NOT NULL, by_api INTEGER NOT NULL, file TEXT)""",
            "CREATE INDEX things_by_type ON things (type, seq) WHERE type IS NOT NULL",
            "CREATE INDEX things_by_billing_group ON things (billing_group, name) WHERE billing_group IS NOT NULL",
            """CREATE TABLE thing_groups (
                 name TEXT PRIMARY KEY, id TEXT NOT NULL, parent TEXT, description TEXT,
                 attributes TEXT NOT NULL DEFAULT '{}', version INTEGER NOT NULL DEFAULT 1,
                 created_ns INTEGER NOT NULL, by_api INTEGER NOT NULL, file TEXT) WITHOUT ROWID""",
            "CREATE INDEX thing_groups_by_parent ON thing_groups (parent, name)",
            """CREATE TABLE members (
                 thing_group TEXT NOT NULL, thing TEXT NOT NULL, by_api INTEGER NOT NULL, file TEXT,
                 PRIMARY KEY (thing_group, thing)) WITHOUT ROWID""",
            "CREATE INDEX members_by_thing ON members (thing, thing_group)",
            """CREATE TABLE thing_types (
                 seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, id TEXT NOT NULL,
                 body TEXT NOT NULL, created_ns INTEGER NOT NULL, deprecated_ns INTEGER)""",
            """CREATE TABLE billing_groups (
                 name TEXT PRIMARY KEY, id TEXT NOT NULL, description TEXT, version INTEGER NOT NULL DEFAULT 1,
                 created_ns INTEGER NOT NULL) WITHOUT ROWID""",
            # Rules as the log names them are cut into pieces, which versions share (daemon/store/rule_pieces.py).
            "CREATE TABLE pieces (digest BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
            # What the lists of violations filter by (daemon/store/lists.py): what is rare has an index of its own.
            "ALTER TABLE events ADD COLUMN verification_state TEXT NOT NULL DEFAULT 'UNKNOWN'",
            """UPDATE events SET verification_state = coalesce((SELECT verification_state FROM violations
                 WHERE violations.violation_id = events.violation_id), 'UNKNOWN')""",
            # The further columns spare a look at the row for each that a filter passes over.
            """CREATE INDEX events_of_profile ON events
                 (profile, time_ns, id, suppressed, criteria_type, verification_state)""",
            """CREATE INDEX events_verified ON events (verification_state, time_ns, id)
                 WHERE verification_state <> 'UNKNOWN'""",
            """CREATE INDEX events_not_static ON events
                 (criteria_type, time_ns, id, profile, suppressed, verification_state)
                 WHERE criteria_type <> 'STATIC'""",
            "CREATE INDEX events_suppressed ON events (time_ns, id) WHERE suppressed = 1",
            "CREATE INDEX violations_open_of_thing ON violations (thing, start_ns) WHERE end_ns IS NULL",
            # Who changed what: `who` is an access key's id, or what stands for it (a file, "local").
            """CREATE TABLE audit (
                 id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, who TEXT NOT NULL,
                 address TEXT NOT NULL, action TEXT NOT NULL, resource TEXT NOT NULL, detail TEXT NOT NULL)""",
            "CREATE INDEX audit_by_time ON audit (time_ns)",
        ),
    ),
    Migration(
        "events say how they were verified",
        (
            # As the state is already: a page of events would look up as many violations, which lie as far apart.
            "ALTER TABLE events ADD COLUMN verification_description TEXT",
            """UPDATE events SET verification_description = (SELECT verification_description FROM violations
                 WHERE violations.violation_id = events.violation_id) WHERE violation_id IN
                 (SELECT violation_id FROM violations WHERE verification_description IS NOT NULL)""",
        ),
    ),
)


def migrate(con: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> list[str]:
    """Bring the database up to date; the names of the migrations that ran. Raises `SchemaError`.

    `con` is in autocommit mode. A migration that fails, or a kill in its middle, leaves the database as it was.
    """
    version = _version(con, len(migrations))
    for number, migration in enumerate(migrations[version:], start=version + 1):
        _apply(con, migration, number)
    return [migration.name for migration in migrations[version:]]


def _version(con: Connection, known: int) -> int:
    (version,) = con.execute("PRAGMA user_version").fetchone()
    (application,) = con.execute("PRAGMA application_id").fetchone()
    (tables,) = con.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (tables or version):
        raise SchemaError("this SQLite file was not written by detectd; choose another data_dir")
    if version > known:
        raise SchemaError(
            f"the database has schema {version}, this detectd knows {known}: it was written by a newer detectd; "
            "run that one, or restore a backup made before the upgrade"
        )
    return int(version)


def _apply(con: Connection, migration: Migration, number: int) -> None:
    con.execute("BEGIN IMMEDIATE")
    try:
        if con.execute("PRAGMA user_version").fetchone()[0] >= number:  # another process was faster
            con.execute("ROLLBACK")
            return
        for statement in migration.statements:
            con.execute(statement)
        con.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        con.execute(f"PRAGMA user_version = {number}")
        con.execute("COMMIT")
    except BaseException:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise
