"""One order for equal rules: the same objects in other files or in another order have the same digest."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from config.model import CustomMetric, Dimension, Rules, SecurityProfile
from config.targets import short_target

Defined = TypeVar("Defined", SecurityProfile, CustomMetric, Dimension)

_PRINTED = ("version", "security_profile_arn", "metric_arn", "arn", "creation_date", "last_modified_date")
"""What describe-... prints and nobody can set: it decides nothing."""


def canonical(rules: Rules) -> Rules:
    """The same rules in one order, targets in their short form, without what AWS only prints."""
    fleet = msgspec.structs.replace(
        rules.fleet,
        things=_sorted_once(rules.fleet.things),
        groups={
            name: msgspec.structs.replace(group, things=_sorted_once(group.things))
            for name, group in sorted(rules.fleet.groups.items())
        },
    )
    return msgspec.structs.replace(
        rules,
        profiles=tuple(sorted(map(_canonical_profile, rules.profiles), key=lambda each: each.security_profile_name)),
        custom_metrics=tuple(sorted(map(_without_printed, rules.custom_metrics), key=lambda each: each.metric_name)),
        dimensions=tuple(sorted(map(_without_printed, rules.dimensions), key=lambda each: each.name)),
        fleet=fleet,
    )


def _canonical_profile(profile: SecurityProfile) -> SecurityProfile:
    targets = _sorted_once(short_target(target) or target for target in profile.targets)
    return msgspec.structs.replace(_without_printed(profile), targets=targets)


def _without_printed(each: Defined) -> Defined:
    printed = {field: None for field in _PRINTED if field in each.__struct_fields__}
    return msgspec.structs.replace(each, **printed)


def _sorted_once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
