"""Custom metrics: what devices report under a name of their own (spec.md §6.3, §10.3)."""

from typing import Any

import msgspec

from config.model import CustomMetric
from config.objects import CUSTOM_METRICS_MAX, check_one_custom_metric
from config.problem import shown
from daemon.control import profiles, tags
from daemon.control.definitions import metric_body, metric_from
from daemon.control.owned import refuse_if_of_file
from daemon.control.plane import Call
from daemon.control.refusal import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from daemon.control.rules import Con
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]
Row = tuple[CustomMetric, str | None, int, int, str | None]
"""metric, token, created ns, modified ns, file."""


async def create_custom_metric(call: Call) -> Answer:
    """The same token and content again is the same metric; all else of its name is refused (spec.md §6.3)."""
    name, plane, now_ns = call.params["metricName"], call.plane, call.plane.now_ns()
    token, given = call.params["clientRequestToken"], call.params.get("tags", ())
    kind, display = call.params["metricType"], call.params.get("displayName")
    wanted = _checked(CustomMetric(metric_name=name, metric_type=kind, display_name=display))

    def create(con: Con) -> None:
        known = _find(con, name)
        if known is not None:
            if known[:2] == (wanted, token):
                return
            message = f"there is a custom metric {name} already"
            raise ResourceAlreadyExistsException(message, name, plane.arn(_resource(name)))
        if con.execute("SELECT count(*) FROM custom_metrics").fetchone()[0] >= CUSTOM_METRICS_MAX:
            raise LimitExceededException(f"there are {CUSTOM_METRICS_MAX} custom metrics, as many as there may be")
        row = (name, metric_body(wanted), token, now_ns, now_ns)
        con.execute("INSERT INTO custom_metrics VALUES (?, ?, ?, ?, ?, NULL)", row)
        tags.put(con, _resource(name), given)

    await call.change(create, _resource(name))
    return {"metricName": name, "metricArn": plane.arn(_resource(name))}


async def update_custom_metric(call: Call) -> Answer:
    """The display name is all that may change."""
    name, now_ns, display = call.params["metricName"], call.plane.now_ns(), call.params["displayName"]

    def update(con: Con) -> Row:
        known = _get(con, name)
        refuse_if_of_file(f"custom metric {name}", known[4])
        wanted = _checked(msgspec.structs.replace(known[0], display_name=display))
        row = (metric_body(wanted), now_ns, name)
        con.execute("UPDATE custom_metrics SET body = ?, modified_ns = ? WHERE name = ?", row)
        return _get(con, name)

    return _described(call, await call.change(update, _resource(name)))


async def describe_custom_metric(call: Call) -> Answer:
    name = call.params["metricName"]
    return _described(call, await call.read(lambda con: _get(con, name)))


async def delete_custom_metric(call: Call) -> Answer:
    """One that is not there is gone already; one in use is to be taken out of the profiles first (spec.md §6.3)."""
    name = call.params["metricName"]

    def delete(con: Con) -> None:
        known = _find(con, name)
        if known is None:
            return
        refuse_if_of_file(f"custom metric {name}", known[4])
        users = profiles.using_metric(con, name)
        if users:
            raise InvalidRequestException(f"custom metric {name} is in use by security profiles: {', '.join(users)}")
        con.execute("DELETE FROM custom_metrics WHERE name = ?", (name,))
        tags.drop(con, _resource(name))

    await call.change(delete, _resource(name))
    return {}


async def list_custom_metrics(call: Call) -> Answer:
    after, size = start_of(call.params, str) or "", page_size(call.params)
    sql = "SELECT name FROM custom_metrics WHERE name > ? ORDER BY name LIMIT ?"
    names = [name for (name,) in await call.read(lambda con: con.execute(sql, (after, size + 1)).fetchall())]
    shown_, more = page(names, size, str)
    return {"metricNames": shown_, **more}


def _resource(name: str) -> str:
    return f"custommetric/{name}"


def _find(con: Con, name: str) -> Row | None:
    sql = "SELECT body, token, created_ns, modified_ns, file FROM custom_metrics WHERE name = ?"
    row = con.execute(sql, (name,)).fetchone()
    return None if row is None else (metric_from(name, row[0]), *row[1:])


def _get(con: Con, name: str) -> Row:
    found = _find(con, name)
    if found is None:
        raise ResourceNotFoundException(f"there is no custom metric {name}")
    return found


def _checked(metric: CustomMetric) -> CustomMetric:
    problems = [f"{shown(each.path)}: {each.message}" for each in check_one_custom_metric(metric)]
    if problems:
        raise InvalidRequestException("; ".join(problems))
    return metric


def _described(call: Call, row: Row) -> Answer:
    metric, _, created_ns, modified_ns, _ = row
    return {
        "metricName": metric.metric_name,
        "metricArn": call.plane.arn(_resource(metric.metric_name)),
        "metricType": metric.metric_type,
        "displayName": metric.display_name,
        "creationDate": created_ns,
        "lastModifiedDate": modified_ns,
    }
