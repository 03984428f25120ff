"""What a new configuration changes: which objects by name, whether the rules, and what only a restart can take."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from config.model import Rules, Settings

RELOADABLE: Final = (
    "rules",
    "receivers",
    "broker.bridges",
    "broker.devices",
    "aws",
    "logging.level",
    "http.access_keys",
    "checkpoint",
    "sources",
    "origin",
)
"""Dotted names, with all below them, that a running daemon takes over. A setting that is not here needs a restart."""


class Names(msgspec.Struct, frozen=True):
    """What became of the objects of one kind, each sorted."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """From one configuration to another. False where nothing has changed but where it was read from."""

    profiles: Names = Names()
    custom_metrics: Names = Names()
    dimensions: Names = Names()
    groups: Names = Names()
    webhooks: Names = Names()
    bridges: Names = Names()
    rules_changed: bool = False
    """Something that decides alarms: the change is a log entry."""
    settings: tuple[str, ...] = ()
    """Dotted names of all other changed settings that are taken over."""
    needs_restart: tuple[str, ...] = ()
    """Dotted names of changed settings that are not: a reload is refused with them."""

    def __bool__(self) -> bool:
        return bool(self.rules_changed or self.settings or self.needs_restart)


def diff(old: Settings, new: Settings) -> Change:
    """What `new` changes. Both are checked."""
    names = [name for name in _differing(old, new, "") if name.split(".")[0] not in {"rules", "sources", "origin"}]
    return Change(
        profiles=_names(_profiles(old), _profiles(new)),
        custom_metrics=_names(_custom_metrics(old), _custom_metrics(new)),
        dimensions=_names(_dimensions(old), _dimensions(new)),
        groups=_names(old.rules.fleet.groups, new.rules.fleet.groups),
        webhooks=_names(_named(old.receivers.webhooks), _named(new.receivers.webhooks)),
        bridges=_names(_named(old.broker.bridges), _named(new.broker.bridges)),
        rules_changed=old.rules != new.rules,
        settings=tuple(name for name in names if _reloadable(name)),
        needs_restart=tuple(name for name in names if not _reloadable(name)),
    )


def rules_bytes(rules: Rules) -> bytes:
    """Canonical JSON: equal rules give equal bytes, and `rules_from_bytes` gives equal rules back."""
    return msgspec.json.encode(rules, order="deterministic")


def rules_from_bytes(data: bytes) -> Rules:
    """The rules that `rules_bytes` wrote.

    Raises:
        msgspec.DecodeError: it did not write that.
    """
    return msgspec.json.decode(data, type=Rules)


def rules_digest(rules: Rules) -> str:
    """64 hex digits that name the rules: SHA-256 of `rules_bytes`."""
    return digest_of(rules_bytes(rules))


def digest_of(spelled: bytes) -> str:
    """As `rules_digest`, of what `rules_bytes` gave."""
    return hashlib.sha256(spelled).hexdigest()


def _differing(old: Any, new: Any, name: str) -> list[str]:
    """Dotted names of the members that differ, as deep as both sides are structures of one kind."""
    if old == new:
        return []
    if not isinstance(old, msgspec.Struct) or type(old) is not type(new):
        return [name]
    below = f"{name}." if name else ""
    fields = old.__struct_fields__
    return [found for f in fields for found in _differing(getattr(old, f), getattr(new, f), below + f)]


def _reloadable(name: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in RELOADABLE)


def _names(old: Mapping[str, Any], new: Mapping[str, Any]) -> Names:
    return Names(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
    )


def _profiles(settings: Settings) -> dict[str, Any]:
    return {profile.security_profile_name: profile for profile in settings.rules.profiles}


def _custom_metrics(settings: Settings) -> dict[str, Any]:
    return {metric.metric_name: metric for metric in settings.rules.custom_metrics}


def _dimensions(settings: Settings) -> dict[str, Any]:
    return _named(settings.rules.dimensions)


def _named(objects: Iterable[Any]) -> dict[str, Any]:
    return {each.name: each for each in objects}
