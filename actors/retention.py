"""Which metrics are kept for whom, and what of a report that is (spec.md §1.6).

A metric is kept for a thing when a profile attached to one of the thing's targets names it, in a behavior or among
the metrics to retain. Thing by thing the answer depends on the registry's code alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.columns import Schema
from actors.messages import I4
from actors.plan import Registry
from actors.router import Routed
from actors.series import Series, named
from config.behaviors import metrics_of
from config.kinds import Kinds, ValueField
from config.model import Rules


@dataclass(frozen=True, slots=True)
class Kept:
    """A series that reports bring, and the column of the schema in which they do."""

    series: Series
    field: ValueField
    column: int
    is_set: bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What is defined: values under a name that was defined again are those of another quantity."""

    custom: Mapping[str, ValueField]  # by metric
    dimensions: frozenset[str]

    def has(self, series: Series, field: ValueField) -> bool:
        if not series.metric.startswith("aws:") and self.custom.get(series.metric) != field:
            return False
        return not series.dimension or series.dimension in self.dimensions


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of reports under one set of rules."""

    kept: tuple[Kept, ...]
    covered: npt.NDArray[np.bool_]  # [code, series] by the registry's codes
    registry: Registry
    vocabulary: Vocabulary
    kinds: Kinds


def retention(rules: Rules, kinds: Kinds, schema: Schema, registry: Registry) -> Retention:
    """What these rules keep; `schema` and `registry` are made of the same rules."""
    metrics = metrics_of(kinds, rules.custom_metrics)
    targets = _targets(rules)
    kept = []
    for series in sorted(targets):
        metric = metrics.get(series.metric)
        column = None if metric is None else _column(schema, series)
        if metric is not None and metric.read is not None and column is not None:
            kept.append(Kept(series, metric.value_field, column, metric.is_set))
    codes = range(len(registry.groups))
    covered = [
        [any(registry.covers_code(one, code) for one in targets[each.series]) for each in kept] for code in codes
    ]
    vocabulary = Vocabulary(
        {each.metric_name: metrics[each.metric_name].value_field for each in rules.custom_metrics},
        frozenset(each.name for each in rules.dimensions),
    )
    return Retention(tuple(kept), np.array(covered, bool).reshape(len(codes), len(kept)), registry, vocabulary, kinds)


def accepted(routed: Routed) -> I4:
    """The entries of a batch that are reports which count."""
    ok = routed.batch.columns.ok == 1
    if routed.rejected:
        ok[list(routed.rejected)] = False
    return np.flatnonzero(ok).astype(np.int32)


def _targets(rules: Rules) -> dict[Series, set[frozenset[str]]]:
    """Series -> the sets of targets of the profiles that name it."""
    found: dict[Series, set[frozenset[str]]] = {}
    for profile in rules.profiles:
        if profile.targets:
            for series in named(profile):
                found.setdefault(series, set()).add(frozenset(profile.targets))
    return found


def _column(schema: Schema, series: Series) -> int | None:
    if series.dimension:
        return None  # the device's side has no dimensions
    scalar = schema.scalar(series.metric)
    return schema.set(series.metric) if scalar is None else scalar
