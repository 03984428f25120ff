"""The commands and boto3 against a daemon that asks for keys: they sign, rotate with a reload, and leave a trail."""

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest
from app_runner import running
from botocore.config import Config
from botocore.exceptions import ClientError
from signing import SECRETS
from system_tools import DETECTD, free_port, write

from daemon.app import App

pytestmark = pytest.mark.system


def configured(folder: Path, roles: Mapping[str, str] = {"READER": "read", "ADMIN": "admin"}) -> Path:
    keys = []
    for name, role in roles.items():
        (folder / f"{name}.key").write_text(SECRETS[name])
        (folder / f"{name}.key").chmod(0o600)
        keys.append({"id": name, "secret_file": f"{name}.key", "role": role})
    http = {"listen": f"127.0.0.1:{free_port()}", "access_keys": keys}
    return write(folder, http=http, account={"id": "123456789012", "region": "eu-west-1"})


async def detectd(*arguments: str) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        str(DETECTD), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(child.communicate(), 60)
    return int(child.returncode or 0), out.decode(), err.decode()


def client(app: App, key: str, secret: str | None = None, region: str = "eu-west-1") -> Any:
    return boto3.client(
        "iot",
        endpoint_url=f"http://{app.address}",
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret or SECRETS[key],
        config=Config(retries={"max_attempts": 0}),
    )


async def code_of(call: Any, **arguments: Any) -> str:
    """ "" where it went well."""
    try:
        await asyncio.to_thread(call, **arguments)
    except ClientError as problem:
        return str(problem.response["Error"]["Code"])
    return ""


async def test_boto3_and_the_commands_sign_and_what_they_change_is_in_the_trail(tmp_path: Path) -> None:
    config = configured(tmp_path)
    name = str(config)
    async with running(config) as app:
        reader, admin = client(app, "READER"), client(app, "ADMIN")
        assert await code_of(reader.list_things) == ""
        assert await code_of(reader.create_thing, thingName="t:1") == "AccessDeniedException"
        assert await code_of(admin.create_thing, thingName="t:1", attributePayload={"attributes": {"a": "b"}}) == ""
        assert await code_of(reader.describe_thing, thingName="t:1") == ""
        assert await code_of(client(app, "ADMIN", "guess").list_things) == "InvalidSignatureException"
        assert await code_of(client(app, "NOBODY", "x").list_things) == "UnrecognizedClientException"
        assert await code_of(client(app, "ADMIN", region="us-east-1").list_things) == "InvalidSignatureException"
        async with aiohttp.ClientSession() as session, session.get(f"http://{app.address}/things") as answer:
            assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")

        assert (await detectd("poison", "--config", name, "list"))[:2] == (0, "")
        assert (await detectd("outbox", "--config", name, "--key", "READER", "list"))[:2] == (0, "")
        code, _, err = await detectd("outbox", "--config", name, "--key", "READER", "drop", "1")
        assert (code, "needs admin" in err) == (1, True)
        code, _, err = await detectd("outbox", "--config", name, "drop", "1")
        assert (code, "row 1 is not there" in err) == (1, True)
        assert (await detectd("outbox", "--config", name, "--key", "NOBODY", "list"))[0] == 1

        code, out, _ = await detectd("audit", "--config", name, "--json", "--limit", "1")
        entry = json.loads(out)
        assert (code, entry["who"], entry["action"], entry["resource"]) == (0, "ADMIN", "CreateThing", "thing/t:1")
        assert entry["address"] == "127.0.0.1"
        assert (await detectd("audit", "--config", name, "--key", "READER"))[0] == 1
        assert (await detectd("audit", "--config", name, "--since", "2200-01-01T00:00:00Z"))[:2] == (0, "")
        assert (await detectd("audit", "--config", name, "--since", "soon"))[0] == 2
        assert (await detectd("audit", "--config", name, "--limit", "0"))[0] == 2
    code, out, err = await detectd("audit", "--config", name)
    assert (code, "CreateThing\tthing/t:1" in out, "doesn't answer" in err) == (0, True, True)
    with sqlite3.connect(tmp_path / "data" / "detectd.sqlite") as con:
        trail = str(con.execute("SELECT * FROM audit").fetchall())
    con.close()
    assert not [secret for secret in SECRETS.values() if secret in trail]


async def test_keys_rotate_with_a_reload(tmp_path: Path) -> None:
    config = configured(tmp_path)
    async with running(config) as app:
        (tmp_path / "ADMIN.key").write_text("rotated")
        assert await code_of(client(app, "ADMIN").list_things) == ""
        assert type(await app.reload()).__name__ == "Reloaded"
        assert await code_of(client(app, "ADMIN").list_things) == "InvalidSignatureException"
        assert await code_of(client(app, "ADMIN", "rotated").list_things) == ""
        (tmp_path / "ADMIN.key").unlink()
        assert type(await app.reload()).__name__ == "Refused"
        assert await code_of(client(app, "ADMIN", "rotated").list_things) == "", "a refused reload changes nothing"


async def test_a_configuration_without_a_key_that_may_says_so(tmp_path: Path) -> None:
    config = configured(tmp_path, {"READER": "read"})
    code, _, err = await detectd("poison", "--config", str(config), "retry", "g", "1")
    assert (code, "no access key with the role operate" in err) == (1, True)


async def test_without_a_daemon_and_without_a_database_there_is_no_trail(tmp_path: Path) -> None:
    assert (await detectd("audit", "--config", str(configured(tmp_path))))[0] == 3
