"""Learned models: what has been gathered for each (spec.md §4.4, §10.4). Nothing is learned yet: all are pending."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from actors.series import IN, Series
from config.behaviors import metrics_of
from config.kinds import Metric, ValueField
from config.model import Behavior
from daemon.control import profiles, targets
from daemon.control.plane import Call
from daemon.control.profiles import scope
from daemon.control.rules import Con
from daemon.history.recorder import RETENTION_NS
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]
Row = tuple[str, str, Series, ValueField, bool]
"""profile, behavior, what is measured, and whether the profile has a target."""

PAGE: Final = 10  # spec.md §4.4
DATAPOINTS_WANTED: Final = 25_000  # spec.md §4.1


async def get_behavior_model_training_summaries(call: Call) -> Answer:
    """One row per learned behavior, in the order of profiles and behaviors."""
    only, size = call.params.get("securityProfileName"), page_size(call.params, PAGE)
    after = start_of(call.params, tuple[str, str]) or ("", "")
    rows = [row for row in await call.read(lambda con: _rows(con, call, only)) if row[:2] > after]
    shown, more = page(rows[: size + 1], size, lambda row: row[:2])
    return {"summaries": [await _summary(call, row) for row in shown], **more}


def _rows(con: Con, call: Call, only: str | None) -> list[Row]:
    limits = call.plane.settings.rules.limits
    metrics = metrics_of(call.plane.kinds, scope(con, limits).custom_metrics)
    names = [only] if only is not None else [name for (name,) in con.execute("SELECT name FROM profiles ORDER BY name")]
    return [row for name in names for row in _rows_of(con, name, metrics)]


def _rows_of(con: Con, profile: str, metrics: Mapping[str, Metric]) -> list[Row]:
    learned = [
        behavior
        for behavior in profiles.get(con, profile).profile.behaviors
        if behavior.criteria and behavior.criteria.ml_detection_config and behavior.metric in metrics
    ]
    has_target = bool(learned and targets.of_profile(con, profile, "", 1))
    return [
        (profile, behavior.name, _series(behavior), metrics[behavior.metric or ""].value_field, has_target)
        for behavior in sorted(learned, key=lambda each: each.name)
    ]


def _series(behavior: Behavior) -> Series:
    dimension = behavior.metric_dimension
    if dimension is None:
        return Series(behavior.metric or "")
    return Series(behavior.metric or "", dimension.dimension_name, dimension.operator or IN)


async def _summary(call: Call, row: Row) -> Answer:
    profile, behavior, series, field, has_target = row
    # Without a target nothing is gathered for it (spec.md §4.1), whatever others have of the metric.
    count = await asyncio.to_thread(_gathered, call, series, field) if has_target else 0
    return {
        "securityProfileName": profile,
        "behaviorName": behavior,
        "modelStatus": "PENDING_BUILD",
        "datapointsCollectionPercentage": min(100.0, 100.0 * count / DATAPOINTS_WANTED),
    }


def _gathered(call: Call, series: Series, field: ValueField) -> int:
    """Datapoints of the last 14 days, as far as it matters: no more than are wanted."""
    now_ns, history, count = call.plane.now_ns(), call.plane.history, 0
    if history is not None:
        for columns in history.columns(series, field, now_ns - RETENTION_NS, now_ns):
            count += len(columns.values)
            if count >= DATAPOINTS_WANTED:
                break
    return count
