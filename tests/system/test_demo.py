"""The demo from a fresh clone, and the simulated fleet: what a visitor runs first."""

import asyncio
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from system_tools import DEADLINE_S, Daemon, serving, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
STAMPED = ("pyproject.toml", "scripts/constraints.txt", "scripts/environment")
LINE = re.compile(r"^\d\d:\d\d:\d\d (in-alarm|alarm-cleared) (\S+) (\S+)", re.MULTILINE)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed, and nothing else. Its environment borrows what is installed in ours, to save a minute."""
    folder = tmp_path_factory.mktemp("fresh") / "detectd"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", folder], check=True, timeout=60)
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith("stamp"):
            (folder / ".venv" / entry.name).symlink_to(entry)
    # As `scripts/environment` makes it: with it in place nothing is installed, and ours stays as it is.
    parts = b"".join((folder / name).read_bytes() for name in STAMPED)
    stamp = subprocess.run(["cksum"], input=parts, capture_output=True, check=True).stdout.decode().replace(" ", "-")
    (folder / ".venv" / "stamp-run").write_text(f"{stamp.strip()}-run\n")
    return folder


@pytest.fixture
def demo_environment(clone: Path, tmp_path: Path) -> dict[str, str]:
    """Its files are in a folder of the test's own, so that what is left behind is found; the clone's code runs."""
    return os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(clone), "COLUMNS": "80", "LINES": "24"}


def left_behind(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{folder}/".encode() in command:
                found.append(command.replace(b"\0", b" ").decode())
    return found


async def started(clone: Path, environment: dict[str, str], *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        clone / "scripts" / "demo", *options,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environment,
    )  # fmt: skip


async def test_without_a_terminal_an_alarm_and_its_end_are_lines_within_15_s_of_ready(
    clone: Path, demo_environment: dict[str, str], tmp_path: Path
) -> None:
    demo = await started(clone, demo_environment, "--for", "15")
    out, err = await asyncio.wait_for(demo.communicate(), 200)
    text = out.decode()
    assert (demo.returncode, err.decode()) == (0, "")
    assert "http://127.0.0.1:" in text
    events = [match.groups() for match in LINE.finditer(text)]
    raised = {(thing, behavior) for kind, thing, behavior in events if kind == "in-alarm"}
    cleared = {(thing, behavior) for kind, thing, behavior in events if kind == "alarm-cleared"}
    assert {behavior for _, behavior in cleared} >= {"everything/allowed-ports", "everything/known-peers"}, text
    assert cleared <= raised
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_demo_and_all_that_it_started(
    clone: Path, demo_environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    demo = await started(clone, demo_environment)
    assert demo.stdout is not None
    async with asyncio.timeout(200):
        async for line in demo.stdout:
            if b" in-alarm " in line:
                break
    assert left_behind(tmp_path) != []
    demo.send_signal(number)
    out, err = await asyncio.wait_for(demo.communicate(), DEADLINE_S)
    assert (demo.returncode, err.decode()) == (0, ""), out
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


async def test_a_reader_that_goes_away_ends_the_demo(
    clone: Path, demo_environment: dict[str, str], tmp_path: Path
) -> None:
    command = f"set -o pipefail; '{clone}/scripts/demo' | head -n 3"
    demo = await asyncio.create_subprocess_exec(
        "bash", "-c", command, env=demo_environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(demo.communicate(), 200)
    assert (demo.returncode, err.decode()) == (0, "")
    assert len(out.splitlines()) == 3
    assert left_behind(tmp_path) == []


async def test_a_daemon_that_cannot_start_is_shown_with_its_last_words(
    clone: Path, demo_environment: dict[str, str], tmp_path: Path
) -> None:
    broken = demo_environment | {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path / 'broken'}:{clone}"}
    (tmp_path / "broken").mkdir()
    # As on a machine whose installation misses a part.
    (tmp_path / "broken" / "structlog.py").write_text("raise ImportError('structlog is damaged')\n")
    demo = await started(clone, broken)
    _, err = await asyncio.wait_for(demo.communicate(), DEADLINE_S)
    assert demo.returncode == 1
    assert "structlog is damaged" in err.decode()


def screens(clone: Path, environment: dict[str, str]) -> Iterator[bytes]:
    """What the demo writes to a terminal, until it ends; `environment` says how large that is."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(str(clone / "scripts" / "demo"), ["demo", "--for", "8"], environment)
    try:
        yield from _output(terminal)
    finally:
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _output(terminal: int) -> Iterator[bytes]:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # how Linux says that the other side is closed
                return
            if not chunk:
                return
            yield chunk


def test_on_a_terminal_it_is_a_live_view_that_fits(clone: Path, demo_environment: dict[str, str]) -> None:
    environment = demo_environment | {"TERM": "xterm-256color"}
    text = b"".join(screens(clone, environment)).decode(errors="replace")
    assert "\x1b[?1049h" in text  # into the alternate screen …
    assert "\x1b[?1049l" in text  # … and back
    frames = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame) for frame in text.split("\x1b[H")[1:-1]]
    assert frames
    assert any("▲" in frame for frame in frames), "no alarm was seen on any frame"
    for frame in frames:
        shown = frame.split("\r\n")
        assert len(shown) <= 24
        assert max(map(len, shown)) <= 80


async def simulate(daemon: Daemon, *options: str) -> tuple[int | None, str]:
    host, port = daemon.mqtt
    child = await asyncio.create_subprocess_exec(
        ROOT / "scripts" / "simulate", "--url", f"mqtt://{host}:{port}", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(child.communicate(), DEADLINE_S)
    return child.returncode, out.decode()


@pytest.mark.parametrize("form", ["json", "cbor"])
async def test_the_simulated_fleet_is_accepted(tmp_path: Path, form: str) -> None:
    async with serving(write(tmp_path)) as daemon:
        options = ("--things", "30", "--every", "0.5", "--for", "4", "--ill-for", "1", "--rest", "1", "--format", form)
        code, text = await simulate(daemon, *options)
        assert code == 0, text
        assert " goes wrong" in text
        sent = int(re.findall(r"(\d+) reports", text)[-1])
        assert sent > 60
        await daemon.until_metric("detectd_reports_accepted_total", sent)
        assert await daemon.metric("detectd_reports_rejected_total") == 0


async def test_the_simulated_fleet_says_what_is_wrong_with_its_options(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        ROOT / "scripts" / "simulate", "--url", "http://127.0.0.1", stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(child.communicate(), DEADLINE_S)
    assert child.returncode == 2
    assert "mqtt://host:port" in err.decode()
