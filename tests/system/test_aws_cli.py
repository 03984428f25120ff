"""The AWS CLI, unmodified, against a daemon that asks for signatures: what a team's scripts do."""
# ruff: noqa: E501 - commands as they are typed

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest
from system_tools import report, send, serving, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ENVIRONMENTS: Final = Path(__file__).parents[2] / ".venv-awscli"
INSTALL_S: Final = 180
BEHAVIORS: Final = [
    {
        "name": "ports",
        "metric": "aws:listening-tcp-ports",
        "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [443]}},
    }
]


@pytest.fixture(scope="session")
def aws() -> Path:
    """The `aws` command: the machine's, or of an environment that is made once."""
    there = shutil.which("aws")
    if there is not None:
        return Path(there)
    folder = ENVIRONMENTS / f"py{sys.version_info.major}.{sys.version_info.minor}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        ENVIRONMENTS.mkdir(exist_ok=True)
        (ENVIRONMENTS / ".gitignore").write_text("*\n")
        install = [
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "awscli",
        ]
        try:
            for command in ([sys.executable, "-m", "venv", folder], install):
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
        except (subprocess.SubprocessError, OSError) as problem:
            why = f"can't install the AWS CLI: {getattr(problem, 'stderr', '') or problem}"
            if os.environ.get("CI") == "true":
                pytest.fail(why)
            pytest.skip(why)
        (folder / "complete").touch()
    return folder / "bin" / "aws"


async def test_a_script_of_the_aws_cli_manages_detectd_with_signed_requests(tmp_path: Path, aws: Path) -> None:
    (tmp_path / "admin.key").write_text("a secret of the admin")
    keys = [{"id": "AKIDEXAMPLE", "secret_file": "admin.key", "role": "admin"}]
    account = {"id": "123456789012", "region": "eu-west-1"}
    config = write(tmp_path, profiles=[], account=account)
    settings = json.loads(config.read_text())
    settings["http"]["access_keys"] = keys
    config.write_text(json.dumps(settings))
    (tmp_path / "behaviors.json").write_text(json.dumps(BEHAVIORS))
    async with serving(config) as daemon:
        shell = Shell(aws, tmp_path, daemon.url)
        valid = await shell.run("validate-security-profile-behaviors --behaviors file://behaviors.json")
        assert valid == {"valid": True, "validationErrors": []}
        made = await shell.run("create-security-profile --security-profile-name P --behaviors file://behaviors.json")
        assert made["securityProfileArn"] == "arn:aws:iot:eu-west-1:123456789012:securityprofile/P"
        target = "arn:aws:iot:eu-west-1:123456789012:all/things"
        await shell.run(f"attach-security-profile --security-profile-name P --security-profile-target-arn {target}")
        await asyncio.to_thread(wait_for_rules, daemon.log_path)
        for thing in ("t1", "t2", "t3"):
            await send(daemon.mqtt, thing, report(1, ports=[80]))
        found = await shell.until("list-active-violations --security-profile-name P", "activeViolations", 3)
        name = next(one["violationId"] for one in found if one["thingName"] == "t1")
        await shell.run(
            f"put-verification-state-on-violation --violation-id {name} --verification-state TRUE_POSITIVE "
            "--verification-state-description seen"
        )
        verified = await shell.run("list-active-violations --verification-state TRUE_POSITIVE")
        assert [one["thingName"] for one in verified["activeViolations"]] == ["t1"]
        values = await shell.run(
            f"list-metric-values --thing-name t1 --metric-name aws:listening-tcp-ports --start-time 0 --end-time {now()}"
        )
        assert [one["value"] for one in values["metricDatumList"]] == [{"ports": [80]}]
        page = await shell.run(f"list-violation-events --start-time 0 --end-time {now()} --max-items 2 --page-size 1")
        rest = await shell.run(
            f"list-violation-events --start-time 0 --end-time {now()} --page-size 1 --starting-token {page['NextToken']}"
        )
        things = [event["thingName"] for event in [*page["violationEvents"], *rest["violationEvents"]]]
        assert sorted(things) == ["t1", "t2", "t3"]
        refused = await shell.fails("describe-security-profile --security-profile-name nobody")
        assert "(ResourceNotFoundException)" in refused
        shell.secret = "another secret"
        assert "(InvalidSignatureException)" in await shell.fails("list-security-profiles")


def now() -> int:
    return int(time.time()) + 5


def wait_for_rules(log: Path) -> None:
    """Until the profile is in force, as the log says."""
    until = time.monotonic() + 30
    while '"actors": 1' not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)


class Shell:
    """Runs `aws iot …` as a shell would."""

    def __init__(self, aws: Path, folder: Path, url: str) -> None:
        self._aws, self._folder, self._url = aws, folder, url
        self.secret = "a secret of the admin"

    async def run(self, command: str) -> Any:
        code, out, error = await self._run(command)
        assert code == 0, error
        return json.loads(out) if out.strip() else {}

    async def fails(self, command: str) -> str:
        code, _, error = await self._run(command)
        assert code != 0
        return error

    async def until(self, command: str, member: str, count: int) -> list[Any]:
        """Ask again until a list is so long."""
        async with asyncio.timeout(60):
            while len(found := (await self.run(command))[member]) < count:
                pass
        return found

    async def _run(self, command: str) -> tuple[int, str, str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL_IOT": self._url,
            "AWS_MAX_ATTEMPTS": "1",
        }
        child = await asyncio.create_subprocess_shell(
            f"{self._aws} iot {command} --output json",
            cwd=self._folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, error = await child.communicate()
        return child.returncode or 0, out.decode(), error.decode()
