"""Definitions in and out of a running daemon: import, export, apply, by the commands that people type."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import boto3
import pytest
from app_runner import eventually, running
from moto_server import CREDENTIALS, moto
from system_tools import PORTS, write

from daemon.__main__ import main
from daemon.app import App

ACCOUNT = {"id": "123456789012", "region": "eu-west-1"}
FILES = {
    "profiles": [
        {
            "securityProfileName": "P",
            "behaviors": [
                PORTS,
                {
                    "name": "load",
                    "metric": "load",
                    "criteria": {"comparisonOperator": "less-than", "value": {"number": 9}},
                },
            ],
            "tags": [{"Key": "team", "Value": "x"}],
            "targets": ["all/things", "thinggroup/pumps"],
        },
        {"securityProfileName": "p", "behaviors": [], "targets": []},
    ],
    "custom_metrics": [{"metricName": "load", "metricType": "number", "displayName": "Load"}],
    "dimensions": [{"name": "D", "stringValues": ["a/+"]}],
    "fleet": {"things": ["t0"], "groups": {"site": {}, "pumps": {"parent": "site", "things": ["t1", "t2"]}}},
}


@pytest.fixture(autouse=True)
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    fleet = {"groups": {"filed": {"things": ["f1"]}}}
    profiles = [{"securityProfileName": "F", "behaviors": [PORTS], "targets": ["all/things"]}]
    async with running(write(tmp_path, account=ACCOUNT, fleet=fleet, profiles=profiles)) as app:
        yield app


def folder(tmp_path: Path, files: object, name: str = "in") -> Path:
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / "detectd.yaml").write_text(json.dumps(files))
    return tmp_path / name


def steps(said: str) -> list[str]:
    """What a command said it does, among what the daemon in this process says."""
    return [line for line in said.splitlines() if line[:2] in ("+ ", "- ", "~ ", "! ")]


async def is_judged(app: App, actor: str) -> bool:
    return actor in app.pipeline.world.actors


async def run(*arguments: str | Path) -> int:
    return await asyncio.to_thread(main, [str(each) for each in arguments])


async def test_what_is_applied_is_exported_as_it_was_and_applied_again_changes_nothing(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, wanted, out = tmp_path / "detectd.yaml", folder(tmp_path, FILES), tmp_path / "out"
    assert await run("apply", wanted, "--config", config, "--check") == 1
    planned = steps(capsys.readouterr().out)
    assert await run("apply", wanted, "--config", config, "--dry-run") == 0
    assert steps(capsys.readouterr().out) == planned
    assert await run("apply", wanted, "--config", config) == 0
    assert steps(capsys.readouterr().out) == planned
    assert "+ security profile P on thinggroup/pumps" in planned
    assert await run("apply", wanted, "--config", config) == 0
    assert capsys.readouterr().err == "nothing to do\n"
    assert await run("export", "--config", config, "--out", out) == 0
    assert "P/load: alarms when load is not less than 9" in capsys.readouterr().out
    assert await run("check", out / "detectd.yaml") == 0
    assert sorted(path.name for path in (out / "profiles").iterdir()) == ["^P.json", "p.json"]
    assert await run("apply", out, "--config", config, "--check") == 0
    await eventually(lambda: is_judged(app, "all/things+thinggroup/pumps"))


async def test_apply_changes_what_differs_and_deletes_what_is_gone(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "detectd.yaml"
    assert await run("apply", folder(tmp_path, FILES), "--config", config) == 0
    changed = FILES | {
        "profiles": [
            {
                "securityProfileName": "P",
                "behaviors": [PORTS],
                "targets": ["thinggroup/site"],
                "tags": [{"Key": "a", "Value": "1"}],
            }
        ],
        "custom_metrics": [],
        "dimensions": [{"name": "D", "stringValues": ["b/+"]}],
        "fleet": {"groups": {"site": {"things": ["t9"]}}},
    }
    capsys.readouterr()
    assert await run("apply", folder(tmp_path, changed), "--config", config, "--no-delete") == 0
    assert not [line for line in steps(capsys.readouterr().out) if line.startswith("-")]
    assert await run("apply", folder(tmp_path, changed), "--config", config) == 0
    assert steps(capsys.readouterr().out) == [
        "- custom metric load",
        "- security profile p",
        "- security profile P on all/things",
        "- security profile P on thinggroup/pumps",
        "- thing t0",
        "- thing t1",
        "- thing t2",
        "- thing group pumps",
    ]
    assert await run("apply", folder(tmp_path, changed), "--config", config, "--check") == 0
    names = [profile.security_profile_name for profile in app.pipeline.world.rules.profiles]
    assert "F" in names  # the file's own


async def test_apply_gets_there_in_one_run_where_things_move_and_lists_are_exchanged(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thing into another group while its own goes, a new name at the quota, one list of metrics for the other."""
    config = tmp_path / "detectd.yaml"
    dimensions = [{"name": f"D{n}", "stringValues": ["a/+"]} for n in range(10)]
    before = {
        "profiles": [{"securityProfileName": "R", "additionalMetricsToRetain": ["aws:num-disconnects"], "targets": []}],
        "custom_metrics": [{"metricName": "load", "metricType": "number"}],
        "dimensions": dimensions,
        "fleet": {"groups": {"root": {}, "a": {"parent": "root", "things": ["t1"]}}},
    }
    tags = [{"Key": "k", "Value": "v"}]
    after = {
        "profiles": [
            {
                "securityProfileName": "R",
                "additionalMetricsToRetainV2": [{"metric": "aws:num-messages-received"}],
                "targets": [],
            }
        ],
        "custom_metrics": [{"metricName": "load", "metricType": "number", "tags": tags}],
        "dimensions": [*dimensions[1:-1], dimensions[-1] | {"tags": tags}, {"name": "E", "stringValues": ["a/+"]}],
        "fleet": {"groups": {"root": {}, "b": {"parent": "root", "things": ["t1"]}}},
    }
    for files in (before, after, before):
        assert await run("apply", folder(tmp_path, files), "--config", config) == 0
        assert await run("apply", folder(tmp_path, files), "--config", config, "--check") == 0
    said = steps(capsys.readouterr().out)
    assert "~ tags of dimension/D9" in said
    assert "~ tags of custommetric/load" in said
    assert said.count("~ security profile R") == 4


async def test_apply_says_what_can_not_be_done_and_does_the_rest(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "detectd.yaml"
    assert await run("apply", folder(tmp_path, FILES), "--config", config) == 0
    metric = {"metricName": "load", "metricType": "number-list"}
    other = FILES | {"custom_metrics": [metric], "profiles": [], "fleet": {"groups": {"pumps": {}}}}
    assert await run("apply", folder(tmp_path, other), "--config", config) == 1
    said = capsys.readouterr().out
    assert "! custom metric load: its type can't change from number to number-list" in said
    assert "! thing group pumps: its parent can't change from site to None" in said
    assert "- security profile P" in said


async def test_a_thing_of_the_daemons_files_goes_into_groups_of_the_api_and_out_again(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "detectd.yaml"
    with_it, without_it = (
        {"profiles": [], "fleet": {"groups": {"api": {"things": some}}}} for some in (["f1", "t1"], ["t1"])
    )
    for wanted, said in (
        (with_it, ["+ thing group api", "+ thing t1", "+ thing f1 in api", "+ thing t1 in api"]),
        (without_it, ["- thing f1 in api"]),
        (with_it, ["+ thing f1 in api"]),
        ({"profiles": []}, ["- thing t1", "- thing group api"]),
    ):
        capsys.readouterr()
        assert await run("apply", folder(tmp_path, wanted), "--config", config) == 0
        assert steps(capsys.readouterr().out) == said
        assert await run("apply", folder(tmp_path, wanted), "--config", config, "--check") == 0


async def test_what_a_profile_has_beside_its_behaviors_comes_along_and_goes(app: App, tmp_path: Path) -> None:
    """The tag that says where metrics go is the user's own; no description and an empty one are the same."""
    config, out = tmp_path / "detectd.yaml", tmp_path / "out"
    tags = [{"Key": "detectd:export-bridge", "Value": "plant"}, {"Key": "team", "Value": "a"}]
    full = {"securityProfileName": "E", "behaviors": [], "targets": [], "securityProfileDescription": "d", "tags": tags}
    for wanted in (full, {**full, "securityProfileDescription": ""}, {**full, "tags": tags[1:]}, full):
        assert await run("apply", folder(tmp_path, {"profiles": [wanted]}), "--config", config) == 0
        assert await run("apply", folder(tmp_path, {"profiles": [wanted]}), "--config", config, "--check") == 0
    assert await run("export", "--config", config, "-o", out) == 0
    (path,) = (out / "profiles").iterdir()
    assert json.loads(path.read_text())["tags"] == tags


async def test_a_daemon_that_runs_other_files_than_those_of_the_configuration_is_not_compared(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "other.yaml"
    settings = json.loads((tmp_path / "detectd.yaml").read_text())
    config.write_text(json.dumps(settings | {"fleet": {"groups": {"renamed": {"things": ["f1"]}}}}))
    assert await run("export", "--config", config, "-o", tmp_path / "out") == 1
    assert f"does not run what {config} says (thing group filed, thing group renamed)" in capsys.readouterr().err


async def test_files_that_are_not_valid_are_said_with_their_place(app: App, tmp_path: Path) -> None:
    bad = folder(tmp_path, {"profiles": [{"securityProfileName": "a b"}]})
    assert await run("apply", bad, "--config", tmp_path / "detectd.yaml") == 1


async def test_export_writes_over_nothing_unless_told_to(app: App, tmp_path: Path) -> None:
    config, out = tmp_path / "detectd.yaml", tmp_path / "out"
    assert await run("export", "--config", config, "--out", out) == 0
    assert await run("export", "--config", config, "--out", out) == 1
    assert await run("export", "--config", config, "--out", out, "--force") == 0


async def test_a_daemon_that_is_not_there_is_said(tmp_path: Path) -> None:
    config = write(tmp_path, account=ACCOUNT)
    assert await run("export", "--config", config, "--out", tmp_path / "out") == 3


async def test_an_import_from_any_endpoint_brings_all_that_is_there(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    assert await run("apply", folder(tmp_path, FILES), "--config", tmp_path / "detectd.yaml") == 0
    endpoint = f"http://{app.address}"
    assert await run("import", "aws", "--region", "eu-west-1", "--endpoint-url", endpoint, "-o", tmp_path / "aws") == 0
    said = capsys.readouterr()
    assert "P/ports: alarms when" in said.out
    assert "F: there " in said.err
    assert sorted(path.name for path in (tmp_path / "aws" / "profiles").iterdir()) == ["^F.json", "^P.json", "p.json"]


async def test_an_endpoint_without_security_profiles_gives_its_registry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS["aws_secret_access_key"])
    with moto(tmp_path) as url:
        iot = boto3.client("iot", endpoint_url=url, region_name="eu-west-1")
        for group, more in (("site", {}), ("pumps", {"parentGroupName": "site"})):
            await asyncio.to_thread(iot.create_thing_group, thingGroupName=group, **more)
        for thing in ("t1", "t2"):
            await asyncio.to_thread(iot.create_thing, thingName=thing)
        await asyncio.to_thread(iot.add_thing_to_thing_group, thingName="t1", thingGroupName="pumps")
        iot.close()
        out = tmp_path / "out"
        assert await run("import", "aws", "--region", "eu-west-1", "--endpoint-url", url, "-o", out) == 0
    fleet = json.loads((out / "fleet.json").read_text())
    assert fleet["things"] == ["t2"]
    assert fleet["groups"]["pumps"] == {"parent": "site", "things": ["t1"]}
    assert "security profiles: this endpoint does not offer them" in capsys.readouterr().err
