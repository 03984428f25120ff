"""Which series go to which topic, for whose things, under one set of rules (spec.md §9.4).

A profile with `metricsExportConfig` exports what its behaviors and retained metrics mark by `exportMetric`, of the
things among its targets. Its topic is one of the log's own broker, or, with the tag EXPORT_BRIDGE, of a bridge's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from actors.metrics.disconnect_duration import METRIC
from actors.plan import Registry, key_of
from actors.retention import Retention, retention
from actors.series import Series, series_of
from actors.world import World
from config.export import bridge_of, is_publishable
from config.model import NS, MetricDimension, MetricToRetain, SecurityProfile
from daemon.formed import Claims, Flags, covered

DISCONNECTED: Final = Series(METRIC.name)
HOUR_NS: Final = 3600 * NS


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """`bridge` "" = the broker that the log is on."""

    bridge: str
    topic: str


@dataclass(frozen=True, slots=True)
class Exports:
    """What is exported under one set of rules."""

    reported: Mapping[Destination, Retention]  # of reports
    formed: Mapping[str, Mapping[Series, tuple[Destination, ...]]]  # actor -> what it forms, and where that goes
    presence: Mapping[Destination, Flags]  # [code] where connects and disconnects are told, and of whom
    claims: Claims[tuple[Destination, Series]]
    registry: Registry
    window_ns: int
    refused: tuple[tuple[str, str], ...]  # (profile, topic) that may not be published to

    @property
    def destinations(self) -> frozenset[Destination]:
        formed = {place for series in self.formed.values() for places in series.values() for place in places}
        return frozenset(formed | self.reported.keys() | self.presence.keys())

    def is_due(self, series: Series, end: int) -> bool:
        """Whether a window's datapoint is exported; how long a device has been away, in the first of each hour."""
        return series != DISCONNECTED or end // HOUR_NS != (end - self.window_ns) // HOUR_NS


@dataclass(frozen=True, slots=True)
class _Export:
    profile: SecurityProfile
    key: str  # of the actor of its targets
    series: tuple[Series, ...]


def exports_of(world: World) -> Exports:
    """What the rules of a world export."""
    found: dict[Destination, list[_Export]] = {}
    refused = []
    for profile in sorted(world.rules.profiles, key=lambda profile: profile.security_profile_name):
        place, series = destination(profile), exported(profile)
        if place is None or not series or not profile.targets:
            continue
        if not place.bridge and not is_publishable(place.topic):
            refused.append((profile.security_profile_name, place.topic))
            continue
        found.setdefault(place, []).append(_Export(profile, key_of(profile.targets), series))
    registry = world.router.registry
    reported = {place: _retention(world, exports) for place, exports in found.items()}
    return Exports(
        {place: kept for place, kept in reported.items() if kept.kept},
        _formed(found), _presence(found, registry), Claims(_claimants(found), registry), registry,
        world.rules.limits.cloud_window_s * NS, tuple(refused),
    )  # fmt: skip


def destination(profile: SecurityProfile) -> Destination | None:
    config = profile.metrics_export_config
    return None if config is None else Destination(bridge_of(profile), config.mqtt_topic)


def exported(profile: SecurityProfile) -> tuple[Series, ...]:
    """The series that a profile exports, each once."""
    behaviors = [(each.metric, each.metric_dimension) for each in profile.behaviors if each.export_metric]
    retained = [(e.metric, e.metric_dimension) for e in profile.additional_metrics_to_retain_v2 if e.export_metric]
    named = [*behaviors, *retained]
    return tuple(sorted({series_of(metric, dimension) for metric, dimension in named if metric}))


def _retention(world: World, exports: Sequence[_Export]) -> Retention:
    """What of reports goes to one place."""
    profiles = tuple(_only(each) for each in exports)
    rules = msgspec.structs.replace(world.rules, profiles=profiles)
    return retention(rules, world.kinds, world.schema, world.router.registry)


def _only(export: _Export) -> SecurityProfile:
    retained = tuple(MetricToRetain(each.metric, _dimension(each)) for each in export.series)
    profile = export.profile
    return SecurityProfile(
        profile.security_profile_name, additional_metrics_to_retain_v2=retained, targets=profile.targets
    )


def _dimension(series: Series) -> MetricDimension | None:
    return MetricDimension(series.dimension, series.operator) if series.dimension else None  # type: ignore[arg-type]


def _formed(found: Mapping[Destination, Iterable[_Export]]) -> dict[str, dict[Series, tuple[Destination, ...]]]:
    formed: dict[str, dict[Series, tuple[Destination, ...]]] = {}
    for place, exports in found.items():
        for export in exports:
            mine = formed.setdefault(export.key, {})
            for series in export.series:
                mine[series] = tuple(dict.fromkeys((*mine.get(series, ()), place)))
    return formed


def _presence(found: Mapping[Destination, Sequence[_Export]], registry: Registry) -> dict[Destination, Flags]:
    keys = {
        place: [export.key for export in exports if DISCONNECTED in export.series] for place, exports in found.items()
    }
    return {place: covered(registry, some) for place, some in keys.items() if some}


def _claimants(found: Mapping[Destination, Sequence[_Export]]) -> dict[tuple[Destination, Series], list[str]]:
    claimants: dict[tuple[Destination, Series], set[str]] = {}
    for place, exports in found.items():
        for export in exports:
            for series in export.series:
                claimants.setdefault((place, series), set()).add(export.key)
    return {name: sorted(keys) for name, keys in claimants.items()}
