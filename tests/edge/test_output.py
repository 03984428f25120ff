"""Output that can't be written is said in a line and by the exit code, whether it is written at once or at the end."""

import os
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
