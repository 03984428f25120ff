"""Metric values: what things reported, and what was measured of them, in the last 14 days (spec.md §7.4)."""

import sqlite3
from typing import Any

from actors.series import IN, Series
from config.behaviors import unknown_metric
from config.kinds import ValueField
from daemon.control import vocabulary
from daemon.control.definitions import metric_from
from daemon.control.plane import Call
from daemon.control.refusal import InvalidRequestException, ThrottlingException
from daemon.control.vocabulary import DIMENSIONS, METRICS
from daemon.history.reader import Datum, Place
from daemon.history.recorder import RETENTION_NS
from daemon.http.aws.paging import page_size, start_of, token_of

Answer = dict[str, Any]


async def list_metric_values(call: Call) -> Answer:
    """Newest first; a range that begins more than 14 days ago is cut there."""
    params, history = call.params, call.plane.history
    since, until = params["startTime"], params["endTime"]
    if since > until:
        raise InvalidRequestException("startTime is after endTime")
    if "dimensionValueOperator" in params and "dimensionName" not in params:
        raise InvalidRequestException("dimensionValueOperator needs a dimensionName")
    series, before, size = _series(call), start_of(params, Place), page_size(params)
    field = await call.read(lambda con: _field(con, call, series))
    if history is None:
        raise ThrottlingException("the history of metric values is being opened; try again")
    since = max(since, call.plane.now_ns() - RETENTION_NS)
    data, place = await history.values(params["thingName"], series, field, since, until, before, size)
    more = {} if place is None else {"nextToken": token_of(place)}
    return {"metricDatumList": [_datum(datum, field) for datum in data], **more}


def _series(call: Call) -> Series:
    metric, dimension = call.params["metricName"], call.params.get("dimensionName", "")
    return Series(metric, dimension, call.params.get("dimensionValueOperator", IN) if dimension else "")


def _field(con: sqlite3.Connection, call: Call, series: Series) -> ValueField:
    """Which member a value of this metric has.

    Raises:
        ResourceNotFoundException: no such custom metric or dimension is defined.
        InvalidRequestException: there is no such metric of AWS's, or it can't have a dimension.
    """
    kinds = call.plane.kinds
    if series.metric.startswith("aws:"):
        metric = kinds.metrics.get(series.metric)
        if metric is None:
            raise InvalidRequestException(unknown_metric(series.metric, kinds.metrics))
    else:
        defined = metric_from(series.metric, vocabulary.get(con, METRICS, series.metric).body)
        metric = kinds.custom[defined.metric_type](series.metric)
    if series.dimension:
        vocabulary.get(con, DIMENSIONS, series.dimension)
        if not metric.dimension:
            raise InvalidRequestException(f"{series.metric} can't have a dimension")
    return metric.value_field


def _datum(datum: Datum, field: ValueField) -> Answer:
    return {"timestamp": datum.time_ns, "value": {field: datum.value}}
