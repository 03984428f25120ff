"""From rules to actors: which sets of targets there are, which behaviors each is judged by, and who is in which.

Profiles that are attached to the same set of targets share one actor; a profile attached to several groups has their
union, each thing once (design.md §4).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from actors.columns import Schema
from actors.criteria import criteria, window_criteria
from actors.criteria._base import Slot
from actors.measures import Measure, measures_of
from config.kinds import Kinds, Metric
from config.model import Fleet, Rules, SecurityProfile

ALL: Final = "all/things"
REGISTERED: Final = "all/registered-things"
UNREGISTERED: Final = "all/unregistered-things"
GROUP: Final = "thinggroup/"


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One actor to be: its key (`key_of` the targets) and its behaviors in order."""

    key: str
    targets: frozenset[str]
    slots: tuple[Slot, ...]
    unjudged: tuple[str, ...]  # "profile/behavior" that no criterion of this build can judge
    measures: tuple[Measure, ...] = ()  # of what the brokers tell


class Registry:
    """The fleet, looked up by thing: who is registered, and in which groups, ancestors included.

    Things of the same groups share a code; code 0 is that of all that are not registered.
    """

    def __init__(self, fleet: Fleet) -> None:
        groups: dict[str, frozenset[str]] = {name: frozenset() for name in fleet.things}
        for name, group in fleet.groups.items():
            lineage = _lineage(fleet, name)
            for thing in group.things:
                groups[thing] = groups.get(thing, frozenset()) | lineage
        known: dict[frozenset[str], int] = {}
        self.codes = {thing.encode(): known.setdefault(inside, len(known) + 1) for thing, inside in groups.items()}
        self.groups = (frozenset[str](), *known)  # by code

    def covers(self, targets: frozenset[str], name: bytes, *, registered: bool) -> bool:
        """Whether an identity is among the targets.

        A thing that has been registered since keeps its unregistered identity until that falls silent (spec.md §3.6).
        """
        code = self.codes.get(name, 0) if registered else 0
        return registered == (code > 0) and self.covers_code(targets, code)

    def covers_code(self, targets: frozenset[str], code: int) -> bool:
        if code == 0:
            return ALL in targets or UNREGISTERED in targets
        return ALL in targets or REGISTERED in targets or any(GROUP + group in targets for group in self.groups[code])


def key_of(targets: Iterable[str]) -> str:
    """The key of the actor of a set of targets."""
    return "+".join(sorted(set(targets)))


def targets_of(key: str) -> frozenset[str]:
    """The targets that are in an actor's key: no name of a group holds a "+"."""
    return frozenset(key.split("+"))


def plans(rules: Rules, kinds: Kinds, schema: Schema) -> tuple[GroupPlan, ...]:
    """One per distinct set of targets, in the order of their keys. Profiles without targets watch nothing."""
    metrics = _metrics(rules, kinds)
    by_key: dict[str, list[SecurityProfile]] = {}
    for profile in sorted(rules.profiles, key=lambda p: p.security_profile_name):
        if profile.targets:
            by_key.setdefault(key_of(profile.targets), []).append(profile)
    return tuple(_plan(key, profiles, metrics, schema, rules) for key, profiles in sorted(by_key.items()))


def _plan(
    key: str, profiles: list[SecurityProfile], metrics: Mapping[str, Metric], schema: Schema, rules: Rules
) -> GroupPlan:
    slots, unjudged = [], []
    for profile in profiles:
        for behavior in profile.behaviors:
            metric = metrics.get(behavior.metric or "")
            slot = Slot(profile.security_profile_name, behavior, metric) if metric else None
            if slot is not None and _is_judged(slot, schema):
                slots.append(slot)
            else:
                unjudged.append(f"{profile.security_profile_name}/{behavior.name}")
    dimensions = [dimension.name for dimension in rules.dimensions]
    measures = measures_of(profiles, slots, metrics, dimensions, rules.limits)
    return GroupPlan(key, targets_of(key), tuple(slots), tuple(unjudged), measures)


def _is_judged(slot: Slot, schema: Schema) -> bool:
    by_reports = any(kind.claims(slot, schema) for kind in criteria())
    return by_reports or any(kind.claims(slot) for kind in window_criteria())


def _metrics(rules: Rules, kinds: Kinds) -> dict[str, Metric]:
    custom = {
        metric.metric_name: kinds.custom[metric.metric_type](metric.metric_name) for metric in rules.custom_metrics
    }
    return {**kinds.metrics, **custom}


def _lineage(fleet: Fleet, name: str) -> frozenset[str]:
    found: set[str] = set()
    group: str | None = name
    while group is not None and group not in found:
        found.add(group)
        group = fleet.groups[group].parent
    return frozenset(found)
