"""Definitions in and out where it is not plain: groups of files, endpoints that stumble, TLS, names, old files."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
import trustme
from app_runner import running
from system_tools import PORTS, free_port, write

from actors.metrics import kinds
from config.load import load
from config.model import Account, CustomMetric, Rules
from daemon.__main__ import main
from daemon.app import App
from daemon.moving import files

ACCOUNT = {"id": "123456789012", "region": "eu-west-1"}
FLEET = {"groups": {"site": {}, "filed": {"parent": "site", "things": ["f1"]}}}
BYTES = {
    "name": "bytes",
    "metric": "aws:all-bytes-out",
    "criteria": {"comparisonOperator": "less-than", "value": {"count": 9}, "durationSeconds": 7},
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    profiles = [{"securityProfileName": "F", "behaviors": [PORTS], "targets": ["all/things"]}]
    async with running(write(tmp_path, account=ACCOUNT, fleet=FLEET, profiles=profiles)) as app:
        yield app


def folder(tmp_path: Path, **body: object) -> Path:
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in" / "detectd.yaml").write_text(json.dumps({"limits": {"durations": "any"}} | body))
    return tmp_path / "in"


def steps(said: str) -> list[str]:
    return [line for line in said.splitlines() if line[:2] in ("+ ", "- ", "~ ", "! ")]


@asynccontextmanager
async def listening(config: Path) -> AsyncIterator[None]:
    """The whole daemon, where it doesn't tell anybody whether it is ready."""
    app = App(config, load(config, kinds()))
    task = asyncio.create_task(app.run())
    try:
        async with asyncio.timeout(60):
            while not app.address:
                assert not task.done(), task.exception()
                await asyncio.sleep(0.02)
        yield
    finally:
        app.stop()
        await asyncio.wait_for(task, 30)


async def run(*arguments: str | Path) -> int:
    return await asyncio.to_thread(main, [str(each) for each in arguments])


# ---- beside the daemon's own files ----


async def test_what_hangs_on_groups_of_files_goes_round_and_the_groups_are_let_be(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = tmp_path / "detectd.yaml", tmp_path / "out"
    profile = {"securityProfileName": "P", "behaviors": [BYTES], "targets": ["thinggroup/filed"]}
    fleet = {"groups": {"site": {}, "filed": {"parent": "site", "things": ["t1"]}, "own": {"parent": "filed"}}}
    assert await run("apply", folder(tmp_path, profiles=[profile], fleet=fleet), "--config", config) == 0
    assert steps(capsys.readouterr().out) == [
        "+ security profile P",
        "+ thing group own",
        "+ thing t1",
        "+ thing t1 in filed",
        "+ security profile P on thinggroup/filed",
    ]
    assert await run("export", "--config", config, "-o", out) == 0
    exported = json.loads((out / "fleet.json").read_text())
    assert exported["groups"]["filed"] == {"parent": "site", "things": ["t1"]}
    assert await run("apply", out, "--config", config, "--check") == 0
    assert await run("apply", folder(tmp_path), "--config", config) == 0
    assert await run("apply", folder(tmp_path), "--config", config, "--check") == 0
    async with asyncio.timeout(10):  # in force a moment after the answer
        while set(app.pipeline.world.rules.fleet.groups) != {"site", "filed"}:
            await asyncio.sleep(0.01)


async def test_what_the_daemons_files_define_otherwise_is_said_and_not_touched(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "detectd.yaml"
    profile = {"securityProfileName": "F", "behaviors": [], "targets": ["all/things"]}
    groups: dict[str, object] = {"filed": {}}
    assert await run("apply", folder(tmp_path, profiles=[profile], fleet={"groups": groups}), "--config", config) == 0
    said = capsys.readouterr().err
    assert f"security profile F is defined in {config}: change it there" in said
    assert f"the parent of thing group filed is defined in {config}: change it there" in said
    assert "nothing to do" in said


async def test_a_template_becomes_the_very_profile_that_boto3_would_create(app: App, tmp_path: Path) -> None:
    template = {
        "Parameters": {"Most": {"Type": "Number", "Default": 5000}, "Topic": {"Type": "String"}},
        "Resources": {
            "Load": {"Type": "AWS::IoT::CustomMetric", "Properties": {"MetricName": "load", "MetricType": "number"}},
            "Up": {
                "Type": "AWS::IoT::Dimension",
                "Properties": {"Name": "Up", "Type": "TOPIC_FILTER", "StringValues": ["dt/+"]},
            },
            "Profile": {
                "Type": "AWS::IoT::SecurityProfile",
                "Properties": {
                    "SecurityProfileName": "made",
                    "TargetArns": [{"Fn::Sub": "arn:aws:iot:${AWS::Region}:${AWS::AccountId}:all/things"}],
                    "AlertTargets": {"SNS": {"AlertTargetArn": {"Ref": "Topic"}, "RoleArn": "arn:aws:iam::1:role/abc"}},
                    "AdditionalMetricsToRetainV2": [{"Metric": "aws:num-messages-sent"}],
                    "MetricsExportConfig": {"MqttTopic": "a/b", "RoleArn": "arn:aws:iam::1:role/abc"},
                    "Behaviors": [
                        {
                            "Name": "sent",
                            "Metric": "aws:num-messages-sent",
                            "MetricDimension": {"DimensionName": {"Ref": "Up"}, "Operator": "IN"},
                            "Criteria": {
                                "ComparisonOperator": "less-than",
                                "Value": {"Count": {"Ref": "Most"}},
                                "DurationSeconds": "300",
                            },
                            "SuppressAlerts": "true",
                        },
                        {
                            "Name": "load",
                            "Metric": {"Ref": "Load"},
                            "Criteria": {"ComparisonOperator": "less-than", "Value": {"Number": "0.5"}},
                        },
                    ],
                    "Tags": [{"Key": "team", "Value": "x"}],
                },
            },
        },
    }
    arn = "arn:aws:sns:eu-west-1:123456789012:alarms"
    where = ("--region", "eu-west-1", "--account", "123456789012", "--parameter", f"Topic={arn}")
    (tmp_path / "t.json").write_text(json.dumps(template))
    assert await run("import", "cloudformation", tmp_path / "t.json", *where, "-o", tmp_path / "out") == 0
    assert await run("check", tmp_path / "out" / "detectd.yaml") == 0
    assert await run("apply", tmp_path / "out", "--config", tmp_path / "detectd.yaml") == 0
    iot = boto3.client("iot", endpoint_url=f"http://{app.address}", region_name="eu-west-1")
    body = {
        "alertTargets": {"SNS": {"alertTargetArn": arn, "roleArn": "arn:aws:iam::1:role/abc"}},
        "additionalMetricsToRetainV2": [{"metric": "aws:num-messages-sent"}],
        "metricsExportConfig": {"mqttTopic": "a/b", "roleArn": "arn:aws:iam::1:role/abc"},
        "behaviors": [
            {
                "name": "sent",
                "metric": "aws:num-messages-sent",
                "metricDimension": {"dimensionName": "Up", "operator": "IN"},
                "criteria": {"comparisonOperator": "less-than", "value": {"count": 5000}, "durationSeconds": 300},
                "suppressAlerts": True,
            },
            {
                "name": "load",
                "metric": "load",
                "criteria": {"comparisonOperator": "less-than", "value": {"number": 0.5}},
            },
        ],
    }
    await asyncio.to_thread(lambda: iot.create_security_profile(securityProfileName="beside", **body))
    made = await asyncio.to_thread(lambda: iot.describe_security_profile(securityProfileName="made"))
    beside = await asyncio.to_thread(lambda: iot.describe_security_profile(securityProfileName="beside"))
    iot.close()
    own = {"securityProfileName", "securityProfileArn", "creationDate", "lastModifiedDate", "ResponseMetadata"}
    assert {key: made[key] for key in made.keys() - own} == {key: beside[key] for key in beside.keys() - own}


async def test_the_commands_trust_the_certificate_of_the_configuration(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(issued.private_key_pem.bytes())
    tls = {"cert": "cert.pem", "key": "key.pem"}
    config = write(tmp_path, account=ACCOUNT, http={"listen": f"127.0.0.1:{free_port()}", "tls": tls})
    async with listening(config):
        assert await run("export", "--config", config, "-o", tmp_path / "out") == 0
        assert await run("apply", tmp_path / "out", "--config", config, "--check") == 0


async def test_with_access_keys_reading_takes_one_and_applying_an_admins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("reader", "boss"):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(f"the secret of {name}")
    keys = [{"id": "AKREAD", "secret_file": "reader"}, {"id": "AKBOSS", "secret_file": "boss", "role": "admin"}]
    config = write(tmp_path, account=ACCOUNT, http={"listen": f"127.0.0.1:{free_port()}", "access_keys": keys})
    wanted = folder(tmp_path, profiles=[{"securityProfileName": "P", "behaviors": [PORTS], "targets": ["all/things"]}])
    async with listening(config):
        assert await run("export", "--config", config, "--key", "AKREAD", "-o", tmp_path / "out") == 0
        assert await run("apply", wanted, "--config", config, "--key", "AKREAD") == 1
        said = capsys.readouterr().err
        assert "the access key AKREAD has the role read; this needs admin" in said
        assert await run("apply", wanted, "--config", config) == 0
        assert await run("apply", wanted, "--config", config, "--key", "AKREAD", "--check") == 0
        assert await run("apply", wanted, "--config", config, "--key", "NOBODY") == 1
    assert "the secret of" not in said + capsys.readouterr().err


# ---- endpoints that stumble ----

Answer = tuple[int, dict[str, Any] | bytes]


@contextmanager
def endpoint(answer: Callable[[str, dict[str, list[str]]], Answer]) -> Iterator[str]:
    """The URL of a server that answers GETs of a path and a query."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            status, body = answer(url.path, parse_qs(url.query))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if isinstance(body, bytes):
                self.send_header("Content-Type", "text/html")
            elif "__type" in body:
                self.send_header("x-amzn-ErrorType", body["__type"])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def account(path: str, query: dict[str, list[str]]) -> Answer:
    """120 profiles on pages of 50, of which the third is deleted meanwhile; every answer is throttled once."""
    match path.split("/")[1:]:
        case ["security-profiles"]:
            first = int(query.get("nextToken", ["0"])[0])
            names = [f"p{at}" for at in range(first, min(first + 50, 120))]
            more = {"nextToken": str(first + 50)} if first + 50 < 120 else {}
            found = [{"name": name, "arn": f"arn:aws:iot:r:1:securityprofile/{name}"} for name in names]
            return 200, {"securityProfileIdentifiers": found, **more}
        case ["security-profiles", "p2"]:
            return 404, {"__type": "ResourceNotFoundException", "message": "gone"}
        case ["security-profiles", name]:
            arn = f"arn:aws:iot:r:1:securityprofile/{name}"
            bad = [{"name": "none", "metric": "aws:num-messages-sent"}] if name == "p3" else []
            return 200, {"securityProfileName": name, "securityProfileArn": arn, "behaviors": [PORTS, *bad]}
        case ["security-profiles", name, "targets"]:
            return 200, {"securityProfileTargets": [{"arn": f"arn:aws:iot:r:1:thinggroup/g{int(name[1:]) // 5}"}]}
        case ["tags"]:
            return 200, {"tags": [{"Key": "aws:cloudformation:stack-name", "Value": "s"}, {"Key": "a", "Value": "b"}]}
        case ["custom-metrics"]:
            return 200, {"metricNames": []}
        case ["dimensions"]:
            return 200, {"dimensionNames": []}
        case ["thing-groups"]:
            return 200, {"thingGroups": [{"groupName": "g", "groupArn": "arn:aws:iot:r:1:thinggroup/g"}]}
        case ["thing-groups", "g"]:
            return 200, {"thingGroupName": "g", "queryString": "x:y", "thingGroupArn": "arn:aws:iot:r:1:thinggroup/g"}
        case ["thing-groups", "g", "things"]:
            return 200, {"things": []}
        case ["things"]:
            return 200, {"things": [{"thingName": "t", "attributes": {"a": "b"}}]}
    return 404, {}


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>hello</html>", b"null", b"[]", b"[" * 100_000, b'{"dimensionNames": 5, "metricNames": 5}', b"{"],
    ids=["nothing", "a page", "null", "a list", "deep", "wrong types", "cut"],
)
async def test_what_does_not_speak_as_aws_iot_does_is_no_empty_account(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    with endpoint(lambda *_: (200, body)) as url:
        assert await imported(url, tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1, said
    assert not (tmp_path / "out").exists()


async def imported(url: str, out: Path, *more: str) -> int:
    return await run("import", "aws", "--region", "eu-west-1", "--endpoint-url", url, "-o", out, *more)


async def test_an_account_is_read_page_by_page_though_it_throttles_and_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    lock = threading.Lock()

    def throttling(path: str, query: dict[str, list[str]]) -> Answer:
        with lock:
            is_new = f"{path}{query}" not in seen
            seen.add(f"{path}{query}")
        return (429, {"__type": "ThrottlingException", "message": "slow"}) if is_new else account(path, query)

    monkeypatch.setattr("daemon.moving.api.PAUSE_S", 0.001)
    with endpoint(throttling) as url:
        assert await imported(url, tmp_path / "out") == 1
        said = capsys.readouterr()
        assert await imported(url, tmp_path / "strict", "--strict") == 1
        assert not (tmp_path / "strict").exists()
    assert "security profile p3: Behavior none is malformed. criteria is required (left out: the behavior)" in said.err
    assert "thing group g: a fleet file has no place for tags, a query that fills it (x:y)" in said.err
    assert "attributes and types, which 1 have" in said.err
    names = {path.stem for path in (tmp_path / "out" / "profiles").iterdir()}
    assert names == {f"p{at}" for at in range(120) if at != 2}
    body = json.loads((tmp_path / "out" / "profiles" / "p3.json").read_text())
    assert (body["tags"], body["targets"]) == ([{"Key": "a", "Value": "b"}], ["thinggroup/g0"])
    assert len(body["behaviors"]) == 1


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ((403, {"__type": "AccessDeniedException", "message": "not you"}), 1, "AccessDeniedException: not you"),
        ((500, {"__type": "InternalFailureException", "message": "oops"}), 1, "InternalFailureException"),
        ((503, {"__type": "ServiceUnavailableException", "message": "later"}), 1, "ServiceUnavailableException"),
    ],
)
async def test_a_refusal_is_no_empty_account(
    answer: Answer, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with endpoint(lambda path, query: answer if path == "/security-profiles" else account(path, query)) as url:
        assert await imported(url, tmp_path / "out") == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


async def test_pages_that_never_end_are_given_up_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endless = (200, {"metricNames": [], "nextToken": "again"})
    with endpoint(lambda path, query: endless if path == "/custom-metrics" else account(path, query)) as url:
        assert await imported(url, tmp_path / "out") == 1
    assert "the pages never end" in capsys.readouterr().err


async def test_an_endpoint_that_lacks_half_of_the_api_is_nothing_to_export_from_or_apply_to(tmp_path: Path) -> None:
    config = write(tmp_path, account=ACCOUNT)
    with endpoint(lambda path, query: (404, {}) if path == "/dimensions" else account(path, query)) as url:
        assert await run("export", "--config", config, "--endpoint-url", url, "-o", tmp_path / "out") == 1
        assert await run("apply", folder(tmp_path), "--config", config, "--endpoint-url", url) == 1
    assert not (tmp_path / "out").exists()


async def test_nobody_there_and_no_credentials_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await imported(f"http://127.0.0.1:{free_port()}", tmp_path / "out") == 3
    assert await imported("no url", tmp_path / "out") == 2
    assert await imported("http://127.0.0.1:1", tmp_path / "out", "--profile", "nope") == 2
    assert "Traceback" not in capsys.readouterr().err


# ---- files ----


def test_every_name_makes_a_file_of_its_own_on_any_file_system(tmp_path: Path) -> None:
    names = ["a", "A", "a:b", "a-b", "A" * 128, "A" * 127 + "B", ":" * 128, "con", "a_b"]
    spelled = [files.file_name(name) for name in names]
    assert len({each.lower() for each in spelled}) == len(names)
    assert max(map(len, spelled)) < 240
    rules = Rules(custom_metrics=tuple(CustomMetric(metric_name=name, metric_type="number") for name in names))
    files.write(tmp_path, files.laid_out(rules, Account("123456789012", "eu-west-1")), force=False)
    assert main(["check", str(tmp_path / "detectd.yaml")]) == 0


async def test_files_in_the_way_stop_it_and_those_of_other_names_count_when_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "out" / "profiles" / "old.json"
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({"securityProfileName": "old", "behaviors": [PORTS], "targets": ["all/things"]}))
    (tmp_path / "t.json").write_text('{"Resources": {"P": {"Type": "AWS::IoT::SecurityProfile"}}}')
    command = ("import", "cloudformation", tmp_path / "t.json", "-o", tmp_path / "out")
    assert await run(*command) == 1
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["old.json"]
    assert await run(*command, "--force") == 0
    assert f"{old} was there before, and counts too" in capsys.readouterr().err


async def test_a_template_that_can_not_be_read_is_wrong_use_and_names_nobody_asks_for_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "t.yaml"
    command = ("import", "cloudformation", template, "-o", tmp_path / "out")
    assert await run(*command) == 2
    template.write_text("a: [\n")
    assert await run(*command) == 2
    assert f"{template}:2:1: " in capsys.readouterr().err
    template.write_text("Resources: {}\n")
    assert await run(*command, "--parameter", "Nope=1") == 2
    assert "nothing in it asks for Nope" in capsys.readouterr().err
