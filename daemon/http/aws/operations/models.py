"""Learned models: what has been gathered for each (spec.md §4.4, §10.4). Nothing is learned yet: all are pending."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from actors.series import IN, Series
from config.behaviors import metrics_of
from config.kinds import Metric, ValueField
from config.model import NS, Behavior
from daemon.control import profiles, targets
from daemon.control.plane import Call
from daemon.control.profiles import scope
from daemon.control.rules import Con
from daemon.history.recorder import RETENTION_NS, History
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]
Covers = Callable[[str], bool]
"""Whether a thing, by its name, is among a profile's targets."""
Row = tuple[str, str, Series, ValueField, bool]
"""profile, behavior, what is measured, and whether the profile has a target."""

PAGE: Final = 10  # spec.md §4.4
DATAPOINTS_WANTED: Final = 25_000  # spec.md §4.1
HOUR_NS: Final = 3600 * NS


async def get_behavior_model_training_summaries(call: Call) -> Answer:
    """One row per learned behavior, in the order of profiles and behaviors."""
    only, size = call.params.get("securityProfileName"), page_size(call.params, PAGE)
    after = start_of(call.params, tuple[str, str]) or ("", "")
    rows = [row for row in await call.read(lambda con: _rows(con, call, only)) if row[:2] > after]
    shown, more = page(rows[: size + 1], size, lambda row: row[:2])
    covers = {name: await call.plane.store.read(partial(targets.covers, profile=name)) for name, *_ in shown}
    return {"summaries": [await _summary(call, row, covers[row[0]]) for row in shown], **more}


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


async def _summary(call: Call, row: Row, covers: Covers) -> Answer:
    profile, behavior, series, field, has_target = row
    history, count, since_ns = call.plane.history, 0, None
    # Without a target nothing is gathered for it (spec.md §4.1), whatever others have of the metric.
    if history is not None and has_target:
        count = await asyncio.to_thread(_gathered, history, series, field, call.plane.now_ns(), covers)
        since_ns = await history.since_ns(series, field) if count else None
    return {
        "securityProfileName": profile,
        "behaviorName": behavior,
        "trainingDataCollectionStartDate": None if since_ns is None else since_ns - since_ns % HOUR_NS,
        "modelStatus": "PENDING_BUILD",
        "datapointsCollectionPercentage": min(100.0, 100.0 * count / DATAPOINTS_WANTED),
    }


def _gathered(history: History, series: Series, field: ValueField, now_ns: int, covers: Covers) -> int:
    """Datapoints of covered things in the last 14 days, as far as it matters: no more than are wanted."""
    count = 0
    for columns in history.columns(series, field, now_ns - RETENTION_NS, now_ns):
        is_covered = np.fromiter(map(covers, columns.things), np.bool_, len(columns.things))
        count += int(np.count_nonzero(is_covered[columns.who]))
        if count >= DATAPOINTS_WANTED:
            break
    return count
