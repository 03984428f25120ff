"""ListMetricValues as a client sees it: ranges, pages, members of values, and what is refused (spec.md §7.4)."""

from pathlib import Path
from typing import Any

import pytest
from builders import START_S, report
from control_runner import CUSTOM, OUT, START_NS, TestedPlane, ask, fitting, plane, refused, reported, service

from config.model import NS
from daemon.control.audit import Actor
from daemon.control.plane import Call
from daemon.http.aws.operations.values import list_metric_values

SINCE_S = START_NS // NS - START_S  # of the plane's clock, as `report` counts
RANGE = {"startTime": START_NS, "endTime": START_NS + 10**6 * NS}


async def listed(control: TestedPlane, **params: Any) -> dict[str, Any]:
    """The answer, held against the model. Instants are ns, as the server's parser gives them."""
    shape = service().operation_model("ListMetricValues").output_shape
    assert shape is not None
    answer = await list_metric_values(Call(control, "ListMetricValues", params, Actor("tester", "127.0.0.1")))
    return dict(fitting(answer, shape))


async def test_every_member_of_a_value_is_the_one_of_its_metric(tmp_path: Path) -> None:
    custom = {
        "n": ("number", 0.5), "ns": ("number-list", [1, 2.5]), "ss": ("string-list", ["a"]),
        "ips": ("ip-address-list", ["192.0.2.1"]),
    }  # fmt: skip
    wanted = {
        OUT: {"count": 7}, "aws:listening-tcp-ports": {"ports": [22]},
        "aws:destination-ip-addresses": {"cidrs": ["::1"]}, "n": {"number": 0.5}, "ns": {"numbers": [1.0, 2.5]},
        "ss": {"strings": ["a"]}, "ips": {"cidrs": ["192.0.2.1"]},
    }  # fmt: skip
    async with reported(tmp_path, report("p1", SINCE_S, custom, bytes_out=7, tcp=(22,), addresses=("::1",))) as control:
        for name, kind in CUSTOM.items():
            await ask(control, "CreateCustomMetric", metricName=name, metricType=kind)
        for metric, value in wanted.items():
            answer = await listed(control, thingName="p1", metricName=metric, **RANGE)
            assert answer == {"metricDatumList": [{"timestamp": START_NS, "value": value}]}, metric


async def test_pages_hold_all_from_the_newest_to_the_oldest(tmp_path: Path) -> None:
    log = [report("p1", SINCE_S + at, bytes_out=at) for at in range(7)]
    async with reported(tmp_path, *log) as control:
        wanted = {"thingName": "p1", "metricName": OUT, **RANGE}
        found, more = [], {}
        while not found or more:
            answer = await listed(control, **wanted, **more, maxResults=3)
            found.append([datum["value"]["count"] for datum in answer["metricDatumList"]])
            more = {"nextToken": answer["nextToken"]} if "nextToken" in answer else {}
        assert found == [[6, 5, 4], [3, 2, 1], [0]]
        whole = await listed(control, **wanted, maxResults=7)
        assert len(whole["metricDatumList"]) == 7
        assert "nextToken" not in whole


async def test_a_range_that_begins_before_14_days_ago_is_cut_there(tmp_path: Path) -> None:
    log = [report("p1", SINCE_S + day * 86_400, bytes_out=day) for day in (0, 1, 15)]
    async with reported(tmp_path, *log) as control:
        control.clock.forward(15 * 86_400)
        wanted = {"startTime": 0, "endTime": START_NS + 10**9 * NS}
        answer = await listed(control, thingName="p1", metricName=OUT, **wanted)
        assert [datum["value"]["count"] for datum in answer["metricDatumList"]] == [15, 1]


async def test_no_instant_is_too_far_away(tmp_path: Path) -> None:
    async with reported(tmp_path, report("p1", SINCE_S, bytes_out=1)) as control:
        for since, until, count in ((-(10**30), 10**30, 1), (10**30, 10**31, 0), (-(10**31), -(10**30), 0)):
            answer = await listed(control, thingName="p1", metricName=OUT, startTime=since, endTime=until)
            assert len(answer["metricDatumList"]) == count


@pytest.mark.parametrize("metric", ["aws:all-bytes-in", "aws:num-messages-sent", "aws:disconnect-duration"])
async def test_a_metric_without_data_has_an_empty_list(tmp_path: Path, metric: str) -> None:
    async with reported(tmp_path, report("p1", SINCE_S, bytes_in=1)) as control:
        answer = await listed(control, thingName="p1", metricName=metric, **RANGE)
        assert answer == {"metricDatumList": []}


async def test_a_thing_that_never_reported_has_an_empty_list(tmp_path: Path) -> None:
    async with reported(tmp_path, report("p1", SINCE_S, bytes_out=1)) as control:
        answer = await listed(control, thingName="p2 ü", metricName=OUT, **RANGE)
        assert answer == {"metricDatumList": []}


async def test_a_dimension_selects_a_series_of_its_own_and_IN_is_meant_where_none_is_said(tmp_path: Path) -> None:  # noqa: N802
    async with reported(tmp_path, report("p1", SINCE_S, bytes_out=1)) as control:
        await ask(control, "CreateDimension", name="D", type="TOPIC_FILTER", stringValues=["a/#"])
        wanted = {"thingName": "p1", "metricName": "aws:num-messages-sent", "dimensionName": "D", **RANGE}
        assert await listed(control, **wanted) == {"metricDatumList": []}
        assert await listed(control, **wanted, dimensionValueOperator="NOT_IN") == {"metricDatumList": []}


@pytest.mark.parametrize(
    ("code", "words", "params"),
    [
        ("ResourceNotFoundException", "custom metric undefined", {"metricName": "undefined"}),
        ("ResourceNotFoundException", "dimension D", {"metricName": "aws:num-messages-sent", "dimensionName": "D"}),
        ("InvalidRequestException", 'did you mean "aws:all-bytes-out"', {"metricName": "aws:all-byte-out"}),
        ("InvalidRequestException", "after endTime", {"metricName": OUT, "startTime": 2, "endTime": 1}),
        ("InvalidRequestException", "dimensionName", {"metricName": OUT, "dimensionValueOperator": "IN"}),
        ("InvalidRequestException", "nextToken", {"metricName": OUT, "nextToken": "gibberish"}),
        ("InvalidRequestException", "nextToken", {"metricName": OUT, "nextToken": "WzEsMiwzXQ=="}),  # [1,2,3]
        ("InvalidRequestException", "nextToken", {"metricName": OUT, "nextToken": "Wy0xLDBd"}),  # [-1,0]
    ],
)
async def test_what_can_not_be_answered_is_refused_in_words(tmp_path: Path, code: str, words: str, params: Any) -> None:
    async with reported(tmp_path) as control:
        with refused(code, words):
            await listed(control, **{"thingName": "p1", **RANGE, **params})


async def test_a_metric_of_the_device_side_has_no_dimension(tmp_path: Path) -> None:
    async with reported(tmp_path) as control:
        await ask(control, "CreateDimension", name="D", type="TOPIC_FILTER", stringValues=["a/#"])
        with refused("InvalidRequestException", "can't have a"):
            await listed(control, thingName="p1", metricName=OUT, dimensionName="D", **RANGE)


async def test_before_the_history_is_open_a_client_is_asked_to_try_again(tmp_path: Path) -> None:
    async with plane(tmp_path) as control:
        with refused("ThrottlingException", "try again"):
            await listed(control, thingName="p1", metricName=OUT, **RANGE)
