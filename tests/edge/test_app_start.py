"""What is asked of the daemon before it is there."""

import asyncio
import os
from pathlib import Path

import pytest
from system_tools import write

from actors.metrics import kinds
from config.load import load
from daemon.app import App
from daemon.http import ops
from daemon.nats.child import ServerFailed

SLOW = """#!/bin/sh
[ "$1" = --version ] && { echo "nats-server: v2.15.1"; exit 0; }
while [ ! -e "$HOLD" ]; do sleep 0.02; done
exit 1
"""


async def test_a_reload_while_the_daemon_starts_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "nats-server"
    server.write_text(SLOW)
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOLD", str(tmp_path / "go"))
    config = write(tmp_path)
    app = App(config, load(config, kinds()))
    starting = asyncio.create_task(app.run())
    async with asyncio.timeout(30):
        while not app.address:
            await asyncio.sleep(0.01)
    answer = await app.reload()
    assert isinstance(answer, ops.Failed)
    assert "starting" in answer.message
    (tmp_path / "go").touch()
    with pytest.raises(ServerFailed):
        await starting
