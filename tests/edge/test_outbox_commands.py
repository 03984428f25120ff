"""Dead letters: an operator sees them, sends them again, drops them."""

import asyncio
from pathlib import Path

import pytest
from system_tools import DETECTD, Hooks, report, send, serving, until, write

pytestmark = pytest.mark.system


async def detectd(*arguments: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        str(DETECTD), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), 60)
    return int(child.returncode or 0), out.decode()


async def test_a_notice_that_waits_is_listed_dropped_and_sent_again(tmp_path: Path) -> None:
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        hooks.status = 500
        await send(daemon.mqtt, "t1", report(1, ports=[4444]))
        await daemon.until_metric("detectd_deliveries_total", 1)
        config = str(daemon.config)
        code, out = await detectd("outbox", "--config", config, "list")
        number, state, receiver, thing, event, *_ = out.split("\t")
        assert (code, state, receiver, thing, event) == (0, "queued", "test", "t1", "in-alarm")
        assert (await detectd("outbox", "--config", config, "list", "--state", "dead")) == (0, "")
        assert (await detectd("outbox", "--config", config, "list", "--state", "nonsense"))[0] == 1
        assert (await detectd("outbox", "--config", config, "drop", number))[0] == 0
        hooks.status = 204
        assert (await detectd("outbox", "--config", config, "list")) == (0, "")
        assert (await detectd("outbox", "--config", config, "resend", number))[0] == 0
        await hooks.seen("t1", "ports", "in-alarm")
        await until(lambda: len(hooks.arrivals) == 1, "once")
        assert (await detectd("outbox", "--config", config, "drop", "999"))[0] == 1
        await daemon.stop()
        assert (await detectd("outbox", "--config", config, "list"))[0] == 3
