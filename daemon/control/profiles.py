"""Security profiles in the tables (spec.md §5): rows, checks against what else there is, and their targets."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from config.kinds import Kinds
from config.model import Limits, Rules, SecurityProfile
from config.objects import PROFILES_PER_TARGET_MAX, check_one_profile
from config.problem import Finding, shown
from daemon.control import tags
from daemon.control.definitions import dimension_from, metric_from, profile_body, profile_from
from daemon.control.owned import refuse_if_of_file
from daemon.control.refusal import InvalidRequestException, LimitExceededException, ResourceNotFoundException

Con = sqlite3.Connection

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
    return None if row is None else _stored(row)


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


def everyone(con: Con) -> Iterator[Stored]:
    """All, by name."""
    for row in con.execute(f"SELECT {_COLUMNS} FROM profiles ORDER BY name"):  # noqa: S608
        yield _stored(row)


def _stored(row: tuple[str, str, int, int, int, str | None]) -> Stored:
    name, body, *rest = row
    return Stored(name, profile_from(name, body), *rest)  # type: ignore[arg-type]  # a row has its columns


def insert(con: Con, profile: SecurityProfile, now_ns: int) -> None:
    row = (profile.security_profile_name, profile_body(profile), now_ns, now_ns)
    con.execute("INSERT INTO profiles (name, body, version, created_ns, modified_ns) VALUES (?, ?, 1, ?, ?)", row)


def update(con: Con, profile: SecurityProfile, now_ns: int) -> None:
    """The next version."""
    con.execute(
        "UPDATE profiles SET body = ?, version = version + 1, modified_ns = ? WHERE name = ?",
        (profile_body(profile), now_ns, profile.security_profile_name),
    )


def delete(con: Con, name: str) -> None:
    """With its targets and tags."""
    con.execute("DELETE FROM profiles WHERE name = ?", (name,))
    con.execute("DELETE FROM targets WHERE profile = ?", (name,))
    tags.drop(con, resource(name))


def check(con: Con, profile: SecurityProfile, kinds: Kinds, limits: Limits) -> None:
    """Raises `InvalidRequestException` with every problem."""
    problems = [f"{shown(each.path)}: {each.message}" for each in findings(con, profile, kinds, limits)]
    if problems:
        raise InvalidRequestException("; ".join(problems))


def findings(con: Con, profile: SecurityProfile, kinds: Kinds, limits: Limits) -> list[Finding]:
    """What is wrong with a profile among the metrics and dimensions that there are."""
    rules = Rules(
        custom_metrics=tuple(metric_from(*row) for row in con.execute("SELECT name, body FROM custom_metrics")),
        dimensions=tuple(dimension_from(*row) for row in con.execute("SELECT name, body FROM dimensions")),
        limits=limits,
    )
    return [each for each in check_one_profile(profile, rules, kinds) if not each.is_warning]


def using_metric(con: Con, metric: str) -> list[str]:
    """The profiles that name a metric, by name."""
    return [each.name for each in everyone(con) if metric in _metrics(each.profile)]


def using_dimension(con: Con, dimension: str) -> list[str]:
    """The profiles that name a dimension, by name."""
    return [each.name for each in everyone(con) if dimension in _dimensions(each.profile)]


def _metrics(profile: SecurityProfile) -> set[str | None]:
    return {
        *(behavior.metric for behavior in profile.behaviors),
        *profile.additional_metrics_to_retain,
        *(kept.metric for kept in profile.additional_metrics_to_retain_v2),
    }


def _dimensions(profile: SecurityProfile) -> set[str]:
    dimensions = [
        *(behavior.metric_dimension for behavior in profile.behaviors),
        *(kept.metric_dimension for kept in profile.additional_metrics_to_retain_v2),
    ]
    return {dimension.dimension_name for dimension in dimensions if dimension is not None}


# ---- targets ----


def attach(con: Con, name: str, target: str) -> None:
    """`target` in its short form. Twice is once (spec.md §5.3).

    Raises:
        LimitExceededException: the target has as many profiles as it may.
    """
    attached = {profile for (profile,) in con.execute("SELECT profile FROM targets WHERE target = ?", (target,))}
    if name not in attached and len(attached) >= PROFILES_PER_TARGET_MAX:
        raise LimitExceededException(f"{target} has {PROFILES_PER_TARGET_MAX} security profiles, as many as it may")
    con.execute("INSERT OR IGNORE INTO targets VALUES (?, ?)", (name, target))


def detach(con: Con, name: str, target: str) -> None:
    con.execute("DELETE FROM targets WHERE profile = ? AND target = ?", (name, target))
