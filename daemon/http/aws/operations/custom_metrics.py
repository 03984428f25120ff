"""Custom metrics: what devices report under a name of their own (spec.md §6.3, §10.3)."""

from typing import Any

import msgspec

from config.model import CustomMetric
from config.objects import check_one_custom_metric
from daemon.control import vocabulary
from daemon.control.checked import made_of, refuse
from daemon.control.definitions import metric_body, metric_from
from daemon.control.plane import Call
from daemon.control.rules import Con
from daemon.control.vocabulary import METRICS, Word
from daemon.http.aws.paging import page, page_size, start_of

Answer = dict[str, Any]


async def create_custom_metric(call: Call) -> Answer:
    """The same token and content again is the same metric; all else of its name is refused (spec.md §6.3)."""
    metric = made_of(call.params, CustomMetric)
    refuse(check_one_custom_metric(metric))
    name, now_ns, arn_of = metric.metric_name, call.plane.now_ns(), call.plane.arn
    given, token = call.params.get("tags", ()), call.params["clientRequestToken"]

    def create(con: Con) -> None:
        vocabulary.create(con, METRICS, name, metric_body(metric), given, token, arn_of, now_ns)

    await call.change(create, METRICS.resource(name))
    return {"metricName": name, "metricArn": arn_of(METRICS.resource(name))}


async def update_custom_metric(call: Call) -> Answer:
    """The display name is all that may change."""
    name, display, now_ns = call.params["metricName"], call.params["displayName"], call.plane.now_ns()

    def renamed(word: Word) -> str:
        metric = msgspec.structs.replace(metric_from(name, word.body), display_name=display)
        refuse(check_one_custom_metric(metric))
        return metric_body(metric)

    def update(con: Con) -> Word:
        return vocabulary.update(con, METRICS, name, renamed, now_ns)

    return _described(call, await call.change(update, METRICS.resource(name)))


async def describe_custom_metric(call: Call) -> Answer:
    name = call.params["metricName"]
    return _described(call, await call.read(lambda con: vocabulary.get(con, METRICS, name)))


async def delete_custom_metric(call: Call) -> Answer:
    """One that is not there is gone already; one in use is to be taken out of the profiles first (spec.md §6.3)."""
    name = call.params["metricName"]
    await call.change(lambda con: vocabulary.delete(con, METRICS, name), METRICS.resource(name))
    return {}


async def list_custom_metrics(call: Call) -> Answer:
    after, size = start_of(call.params, str) or "", page_size(call.params)
    shown, more = page(await call.read(lambda con: vocabulary.names(con, METRICS, after, size + 1)), size, str)
    return {"metricNames": shown, **more}


def _described(call: Call, word: Word) -> Answer:
    metric = metric_from(word.name, word.body)
    return {
        "metricName": word.name,
        "metricArn": call.plane.arn(METRICS.resource(word.name)),
        "metricType": metric.metric_type,
        "displayName": metric.display_name,
        "creationDate": word.created_ns,
        "lastModifiedDate": word.modified_ns,
    }
