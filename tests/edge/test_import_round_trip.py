"""What the API made leans on what files define: it is exported as a whole, and applied again without drift."""

import asyncio
import json
from pathlib import Path

import boto3
import pytest
from app_runner import running
from system_tools import write

from daemon.__main__ import main

ACCOUNT = {"id": "123456789012", "region": "eu-west-1"}
ARN = "arn:aws:iot:eu-west-1:123456789012:"
BEHAVIORS = [
    {"name": "m", "metric": "filed", "criteria": {"comparisonOperator": "less-than", "value": {"number": 1}}},
    {
        "name": "d",
        "metric": "aws:num-messages-sent",
        "metricDimension": {"dimensionName": "Filed"},
        "criteria": {"comparisonOperator": "less-than", "value": {"count": 1}, "durationSeconds": 7},
    },
]


async def run(*arguments: str | Path) -> int:
    return await asyncio.to_thread(main, [str(each) for each in arguments])


async def test_what_leans_on_metrics_and_dimensions_of_files_is_exported_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = tmp_path / "detectd.yaml", tmp_path / "out"
    filed = {
        "profiles": [],
        "custom_metrics": [
            {"metricName": "filed", "metricType": "number"},
            {"metricName": "unused", "metricType": "number"},
        ],
        "dimensions": [{"name": "Filed", "stringValues": ["dt/+/up"]}],
        "fleet": {"groups": {"filed": {"things": ["f1"]}}},
    }
    async with running(write(tmp_path, account=ACCOUNT, **filed)) as app:
        iot = boto3.client(
            "iot", endpoint_url=f"http://{app.address}", region_name="eu-west-1",
            aws_access_key_id="nobody", aws_secret_access_key="nothing",
        )  # fmt: skip
        await asyncio.to_thread(iot.create_security_profile, securityProfileName="api", behaviors=BEHAVIORS)
        target = {"securityProfileName": "api", "securityProfileTargetArn": f"{ARN}thinggroup/filed"}
        await asyncio.to_thread(iot.attach_security_profile, **target)
        iot.close()
        assert await run("export", "--config", config, "-o", out) == 0
        (profile,) = (out / "profiles").iterdir()
        written = json.loads(profile.read_text())
        assert ([each["name"] for each in written["behaviors"]], written["targets"]) == (
            ["m", "d"],
            ["thinggroup/filed"],
        )
        assert [path.stem.lower().strip("^") for path in (out / "custom_metrics").iterdir()] == ["filed"]
        assert await run("check", out / "detectd.yaml") == 0
        assert await run("apply", out, "--config", config, "--check") == 0
        assert await run("apply", out, "--config", config) == 0
        assert "nothing to do" in capsys.readouterr().err


async def test_an_import_from_a_detectd_has_what_its_files_define_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    filed = {
        "profiles": [{"securityProfileName": "filed", "behaviors": BEHAVIORS, "targets": ["all/things"]}],
        "custom_metrics": [{"metricName": "filed", "metricType": "number"}],
        "dimensions": [{"name": "Filed", "stringValues": ["dt/+/up"]}],
        "limits": {"durations": "any"},
    }
    out = tmp_path / "out"
    async with running(write(tmp_path, account=ACCOUNT, **filed)) as app:
        more = ("--region", "eu-west-1", "--endpoint-url", f"http://{app.address}", "--durations", "any")
        assert await run("import", "aws", *more, "-o", out) == 0
    (profile,) = (out / "profiles").iterdir()
    assert json.loads(profile.read_text())["behaviors"] == BEHAVIORS
    assert [path.name for path in (out / "dimensions").iterdir()]
    assert await run("check", out / "detectd.yaml") == 0
