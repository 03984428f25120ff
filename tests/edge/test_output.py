"""Output that can't be written is said in a line and by the exit code, whether it is written at once or at the end."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "daemon", "version")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_the_output(unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(full.fileno(), unbuffered)
    assert (done.returncode, done.stderr.splitlines()) == (3, ["detectd: [Errno 28] No space left on device"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_has_seen_enough(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(writer, unbuffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def run(stdout: int, unbuffered: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(
        COMMAND, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )


def test_a_closed_output_is_nobodys_fault() -> None:
    closed = f"exec {shlex.join(COMMAND)} >&-"
    done = subprocess.run(["sh", "-c", closed], cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_ends_a_command_without_a_trace(tmp_path: Path) -> None:
    fifo = tmp_path / "reports"
    os.mkfifo(fifo)  # nobody writes: the command waits
    (tmp_path / "detectd.yaml").write_text("{}")
    command = [*COMMAND[:-1], "replay", "--config", str(tmp_path / "detectd.yaml"), str(fifo)]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    with fifo.open("w"):  # opened by both ends: it is in its work
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        assert (child.wait(60), child.stderr.read()) == (130, "")
    child.stderr.close()
