"""Dead letters: an operator sees them, sends them again, drops them."""

import asyncio
from pathlib import Path

import pytest
from system_tools import DETECTD, Hooks, report, send, serving, until, write

from daemon.__main__ import main
from daemon.commands import _ask

pytestmark = pytest.mark.system


async def test_more_notices_than_one_answer_holds_are_listed_as_many_as_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_ask, "PAGE", 2)
    async with Hooks() as hooks, serving(write(tmp_path, hooks)) as daemon:
        hooks.status = 500
        for number in range(5):
            await send(daemon.mqtt, f"t{number}", report(1, ports=[4444]))
            await daemon.until_metric("detectd_events_total", number + 1)
        ask = ["outbox", "--config", str(daemon.config), "list"]
        capsys.readouterr()
        for more, wanted, note in (
            ([], "43210", ""),
            (["--limit", "3"], "432", "newest 3"),
            (["--limit", "5"], "43210", ""),
        ):
            assert await asyncio.to_thread(main, [*ask, *more]) == 0
            out, err = capsys.readouterr()
            assert [line.split("\t")[3] for line in out.splitlines()] == [f"t{number}" for number in wanted]
            assert (note in err) if note else not err


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
        assert (await detectd("outbox", "--config", config, "list", "--state", "nonsense"))[0] == 2
        assert (await detectd("outbox", "--config", config, "drop", number))[0] == 0
        hooks.status = 204
        assert (await detectd("outbox", "--config", config, "list")) == (0, "")
        assert (await detectd("outbox", "--config", config, "resend", number))[0] == 0
        await hooks.seen("t1", "ports", "in-alarm")
        await until(lambda: len(hooks.arrivals) == 1, "once")
        assert (await detectd("outbox", "--config", config, "drop", "999"))[0] == 1
        await daemon.stop()
        assert (await detectd("outbox", "--config", config, "list"))[0] == 3
