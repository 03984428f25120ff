"""Rules of two origins as one: what files say, and what the API made. Where both define a name, the file's counts."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from config.canonical import canonical
from config.model import CustomMetric, Dimension, Fleet, Group, Rules, SecurityProfile

Defined = TypeVar("Defined", SecurityProfile, CustomMetric, Dimension)


def merged(files: Rules, api: Rules) -> Rules:
    """All of both, in the one canonical order; the limits and `clients` are the files'.

    Groups are joined: the members of both, and the file's parent where the file defines the group.
    """
    if api == Rules(limits=api.limits, clients=api.clients):
        return files
    both = msgspec.structs.replace(
        files,
        profiles=_named([*api.profiles, *files.profiles], "security_profile_name"),
        custom_metrics=_named([*api.custom_metrics, *files.custom_metrics], "metric_name"),
        dimensions=_named([*api.dimensions, *files.dimensions], "name"),
        fleet=_fleet(files.fleet, api.fleet),
    )
    return canonical(both)


def _named(objects: Iterable[Defined], name: str) -> tuple[Defined, ...]:
    """The last of each name."""
    return tuple({getattr(each, name): each for each in objects}.values())


def _fleet(files: Fleet, api: Fleet) -> Fleet:
    groups = dict(api.groups)
    for name, group in files.groups.items():
        also = groups.get(name, Group()).things
        groups[name] = Group(group.parent, (*group.things, *also)) if also else group
    return Fleet((*files.things, *api.things), groups)
