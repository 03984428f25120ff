"""Security profiles in the tables (spec.md §5): rows, checks against what else there is, and who uses what."""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from config.kinds import Kinds
from config.model import Limits, Rules, SecurityProfile
from config.objects import check_one_profile, check_quotas
from daemon.control import tags
from daemon.control.checked import refuse
from daemon.control.definitions import dimension_from, metric_from, profile_body, profile_from
from daemon.control.owned import refuse_if_of_file
from daemon.control.refusal import InvalidRequestException, ResourceNotFoundException

Con = sqlite3.Connection
Named = Callable[[SecurityProfile], set[str]]

PROFILES_MAX: Final = 10_000
"""AWS publishes no quota; a table has a bound."""

_COLUMNS: Final = "name, body, version, created_ns, modified_ns, file"


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the table. Instants are ns."""

    name: str
    profile: SecurityProfile
    version: int
    created_ns: int
    modified_ns: int
    file: str | None

    @property
    def resource(self) -> str:
        return resource(self.name)


def resource(name: str) -> str:
    return f"securityprofile/{name}"


def find(con: Con, name: str) -> Stored | None:
    row = con.execute(f"SELECT {_COLUMNS} FROM profiles WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return None if row is None else Stored(name, profile_from(name, row[1]), *row[2:])


def get(con: Con, name: str) -> Stored:
    """Raises `ResourceNotFoundException`."""
    found = find(con, name)
    if found is None:
        raise ResourceNotFoundException(f"there is no security profile {name}")
    return found


def to_change(con: Con, name: str) -> Stored:
    """As `get`. Raises `InvalidRequestException` where a file defines it."""
    found = get(con, name)
    refuse_if_of_file(f"security profile {name}", found.file)
    return found


def insert(con: Con, profile: SecurityProfile, now_ns: int) -> None:
    """Raises `InvalidRequestException` where there are `PROFILES_MAX`: its model knows no LimitExceededException."""
    (count,) = con.execute("SELECT count(*) FROM profiles").fetchone()
    if count >= PROFILES_MAX:
        raise InvalidRequestException(f"there are {count} security profiles, as many as there may be")
    row = (profile.security_profile_name, profile_body(profile), now_ns, now_ns)
    con.execute("INSERT INTO profiles (name, body, version, created_ns, modified_ns) VALUES (?, ?, 1, ?, ?)", row)


def update(con: Con, profile: SecurityProfile, now_ns: int) -> None:
    """The next version, whether or not anything differs."""
    con.execute(
        "UPDATE profiles SET body = ?, version = version + 1, modified_ns = max(modified_ns, ?) WHERE name = ?",
        (profile_body(profile), now_ns, profile.security_profile_name),
    )


def delete(con: Con, name: str) -> None:
    """With its targets and tags."""
    con.execute("DELETE FROM profiles WHERE name = ?", (name,))
    con.execute("DELETE FROM targets WHERE profile = ?", (name,))
    tags.drop(con, resource(name))


def same(stored: Stored, profile: SecurityProfile) -> bool:
    """Whether a profile says what is stored already, tags and targets aside."""
    return profile_body(stored.profile) == profile_body(profile)


def check(con: Con, profile: SecurityProfile, kinds: Kinds, limits: Limits) -> None:
    """Raises `InvalidRequestException` with every problem of a profile, but for its tags and targets."""
    refuse(check_quotas(profile.behaviors))  # first: what follows then looks at no more than a quota allows
    refuse(check_one_profile(profile, scope(con, limits), kinds))


def scope(con: Con, limits: Limits) -> Rules:
    """What a behavior may refer to: the custom metrics and dimensions of files and API, and the limits."""
    return Rules(
        custom_metrics=tuple(metric_from(*row) for row in con.execute("SELECT name, body FROM custom_metrics")),
        dimensions=tuple(dimension_from(*row) for row in con.execute("SELECT name, body FROM dimensions")),
        limits=limits,
    )


# ---- lists ----


def names(con: Con, after: str, most: int) -> list[str]:
    """The next names in their order."""
    rows = con.execute("SELECT name FROM profiles WHERE name > ? ORDER BY name LIMIT ?", (after, most))
    return [name for (name,) in rows]


def using(con: Con, named: Named, word: str, after: str, most: int) -> list[str]:
    """The next profiles that use a metric or a dimension. `named` is `metrics_named` or `dimensions_named`."""
    sql = "SELECT name, body FROM profiles WHERE name > ? AND instr(body, ?) ORDER BY name"
    rows = con.execute(sql, (after, msgspec.json.encode(word).decode()))  # most bodies need no decoding
    return list(islice(_that_name(rows, named, word), most))


def metrics_named(profile: SecurityProfile) -> set[str]:
    """Every metric that a profile judges or retains."""
    judged = {behavior.metric for behavior in profile.behaviors if behavior.metric is not None}
    retained = {kept.metric for kept in profile.additional_metrics_to_retain_v2}
    return judged | retained | set(profile.additional_metrics_to_retain)


def dimensions_named(profile: SecurityProfile) -> set[str]:
    """Every dimension that a profile judges or retains by."""
    dimensions = [
        *(behavior.metric_dimension for behavior in profile.behaviors),
        *(kept.metric_dimension for kept in profile.additional_metrics_to_retain_v2),
    ]
    return {dimension.dimension_name for dimension in dimensions if dimension is not None}


def _that_name(rows: Iterable[tuple[str, str]], named: Named, word: str) -> Iterable[str]:
    return (name for name, body in rows if word in named(profile_from(name, body)))
