"""What the API makes, in the whole daemon: judged by at once, there after kill and restart, beside what files say."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from app_runner import ask, eventually, mqtt, running
from system_tools import PORTS, Hooks, profile, report, send, serving, write

ACCOUNT = {"id": "123456789012", "region": "eu-west-1"}
ALL = "arn:aws:iot:eu-west-1:123456789012:all/things"


def client(url: str) -> Any:
    return boto3.client(
        "iot", endpoint_url=url, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


async def call(iot: Any, operation: str, **params: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await asyncio.to_thread(getattr(iot, operation), **params)
    return answer


async def make(iot: Any, name: str) -> None:
    await call(iot, "create_security_profile", securityProfileName=name, behaviors=[PORTS])
    await call(iot, "attach_security_profile", securityProfileName=name, securityProfileTargetArn=ALL)


@asynccontextmanager
async def in_alarm(folder: Path) -> AsyncIterator[tuple[Any, Hooks]]:
    """A daemon whose one profile, P, was made by its API and has raised an alarm: a client of it, and what was told."""
    async with Hooks() as hooks, running(write(folder, hooks, profiles=[], account=ACCOUNT)) as app:
        iot = client(f"http://{app.address}")
        await make(iot, "P")
        await eventually(lambda: has_actors(app, 1))
        await send(mqtt(app), "t1", report(1, ports=[80]))
        await hooks.seen("t1", "ports", "in-alarm")
        yield iot, hooks
        iot.close()


async def test_a_profile_of_the_api_judges_the_next_report_and_its_end_ends_its_alarms(tmp_path: Path) -> None:
    async with in_alarm(tmp_path) as (iot, hooks):
        await call(iot, "delete_security_profile", securityProfileName="P")
        await hooks.seen("t1", "ports", "alarm-invalidated")
        assert (await call(iot, "list_active_violations"))["activeViolations"] == []


P = {"securityProfileName": "P"}
AT_ALL = {**P, "securityProfileTargetArn": ALL}
TAKEN_AND_GIVEN = {
    "made": (("delete_security_profile", P), ("create_security_profile", {**P, "behaviors": [PORTS]})),
    "attached": (("detach_security_profile", AT_ALL), ("attach_security_profile", AT_ALL)),
    "its behavior": (
        ("update_security_profile", {**P, "deleteBehaviors": True}),
        ("update_security_profile", {**P, "behaviors": [PORTS]}),
    ),
}


@pytest.mark.parametrize("what", TAKEN_AND_GIVEN)
async def test_what_is_taken_and_given_again_at_once_was_gone_in_between(tmp_path: Path, what: str) -> None:
    async with in_alarm(tmp_path) as (iot, hooks):
        for operation, params in TAKEN_AND_GIVEN[what]:
            await call(iot, operation, **params)
        await hooks.seen("t1", "ports", "alarm-invalidated")


async def test_a_metric_that_is_made_again_at_once_has_no_values_of_before(tmp_path: Path) -> None:
    metric = {"metricName": "load", "metricType": "number", "clientRequestToken": "t"}
    async with running(write(tmp_path, profiles=[], account=ACCOUNT)) as app:
        iot = client(f"http://{app.address}")
        await call(iot, "create_custom_metric", **metric)
        await call(iot, "create_security_profile", **P, additionalMetricsToRetainV2=[{"metric": "load"}])
        await call(iot, "attach_security_profile", **AT_ALL)
        await eventually(lambda: has_actors(app, 1))
        await send(mqtt(app), "t1", report(1) | {"custom_metrics": {"load": [{"number": 7.0}]}})

        async def values() -> int:
            span = {"startTime": datetime.fromtimestamp(0, UTC), "endTime": datetime.now(UTC) + timedelta(hours=1)}
            answer = await call(iot, "list_metric_values", thingName="t1", metricName="load", **span)
            return len(answer["metricDatumList"])

        await eventually(values)
        await call(iot, "update_security_profile", **P, deleteAdditionalMetricsToRetain=True)
        await call(iot, "delete_custom_metric", metricName="load")
        await call(iot, "create_custom_metric", **metric)
        assert await values() == 0
        iot.close()


async def has_actors(app: Any, count: int) -> bool:
    return len(app.pipeline.world.actors) == count


async def test_what_was_answered_survives_a_kill_and_a_reload_of_files(tmp_path: Path) -> None:
    async with Hooks() as hooks:
        config = write(tmp_path, hooks, profiles=[], account=ACCOUNT)
        async with serving(config) as daemon:
            iot = client(daemon.url)
            await make(iot, "P")
            await call(iot, "create_thing", thingName="t1")
            await daemon.kill()  # the answer is here, the entry of the log may not be
            await daemon.start()
            await send(daemon.mqtt, "t1", report(1, ports=[80]))
            await hooks.seen("t1", "ports", "in-alarm")
            body = json.loads(config.read_text())
            body["profiles"] = [profile(PORTS | {"name": "filed"}, name="F")]
            config.write_text(json.dumps(body))
            await daemon.ask("POST", "/-/reload")
            await send(daemon.mqtt, "t1", report(2, ports=[80]))
            await hooks.seen("t1", "filed", "in-alarm")
            found = await call(iot, "list_security_profiles")
            assert [one["name"] for one in found["securityProfileIdentifiers"]] == ["F", "P"]
            assert (await call(iot, "describe_thing", thingName="t1"))["version"] == 0
            iot.close()
        assert ("t1", "ports", "alarm-invalidated") not in hooks.keys()


async def test_a_reload_that_takes_away_what_the_api_needs_is_refused_in_words(tmp_path: Path) -> None:
    metric = {"metricName": "load", "metricType": "number"}
    fleet = {"groups": {"site": {"things": ["t1"]}}}
    config = write(tmp_path, profiles=[], account=ACCOUNT, custom_metrics=[metric], fleet=fleet)
    async with running(config) as app:
        iot = client(f"http://{app.address}")
        await call(iot, "create_thing_group", thingGroupName="hall", parentGroupName="site")
        criteria = {"comparisonOperator": "less-than", "value": {"number": 9.0}}
        behavior = {"name": "load", "metric": "load", "criteria": criteria}
        await call(iot, "create_security_profile", securityProfileName="P", behaviors=[behavior])
        write(tmp_path, profiles=[], account=ACCOUNT)  # other ports: a restart is needed for them, and said first
        body = json.loads(config.read_text())
        body["http"], body["broker"] = (
            {"listen": app.reloader.settings.http.listen},
            {"embedded": {"mqtt": ":".join(map(str, mqtt(app)))}},
        )
        config.write_text(json.dumps(body))
        status, answer = await ask(app, "POST", "/-/reload")
        assert status == 400
        parent_gone, metric_gone = answer["problems"]
        assert "security profile P: behaviors[0].metric" in metric_gone
        assert 'fleet.groups.hall.parent: group "site" is not defined' in parent_gone
        assert (await call(iot, "list_custom_metrics"))["metricNames"] == ["load"]
        iot.close()


async def test_files_that_do_not_go_with_what_the_api_made_end_a_start_for_good(tmp_path: Path) -> None:
    config = write(tmp_path, account=ACCOUNT, fleet={"groups": {"site": {}}})
    async with serving(config) as daemon:
        iot = client(daemon.url)
        await call(iot, "create_thing_group", thingGroupName="hall", parentGroupName="site")
        iot.close()
        assert await daemon.stop() == 0
        config.write_text(json.dumps(json.loads(config.read_text()) | {"fleet": {}}))
        await daemon.start(ready=False)
        assert await daemon.ended() == 1  # a service manager need not try again
        assert "fleet.groups.hall.parent" in daemon.log_path.read_text()


async def test_values_are_read_back_and_are_there_after_a_kill(tmp_path: Path) -> None:
    async with serving(write(tmp_path, account=ACCOUNT)) as daemon:
        iot = client(daemon.url)
        await send(daemon.mqtt, "t1", *(report(number, ports=[22 + number]) for number in range(1, 6)))

        async def ports() -> list[list[int]]:
            found = await call(
                iot, "list_metric_values",
                thingName="t1", metricName="aws:listening-tcp-ports", startTime=0, endTime=4e9,
            )  # fmt: skip
            return [one["value"]["ports"] for one in found["metricDatumList"]]

        await eventually(lambda: are(ports, [[27], [26], [25], [24], [23]]))
        await daemon.kill()
        await daemon.start()
        await send(daemon.mqtt, "t1", report(6, ports=[80]))
        await eventually(lambda: are(ports, [[80], [27], [26], [25], [24], [23]]))
        iot.close()


async def are(found: Any, wanted: Any) -> bool:
    return bool(await found() == wanted)
