"""moto's own tests of the registry, unmodified, from its source distribution, against the daemon."""

import asyncio
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest
from system_tools import serving, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

FOLDER: Final = Path(__file__).parents[2] / ".venv-moto"
DOWNLOAD_S: Final = 180
RUN_S: Final = 120
TESTS: Final = "tests/test_iot/test_iot_"

THINGS: Final = (f"{TESTS}things.py", f"{TESTS}thing_groups.py")
TYPES: Final = (f"{TESTS}thing_types.py", f"{TESTS}deprecate_thing_type.py", f"{TESTS}billing_groups.py")
NOT_AWS: Final = (
    # The same billing group again: moto refuses it, here it is the same one, as with things, types and thing groups.
    f"--deselect={TESTS}billing_groups.py::test_create_billing_group",
    # A billing group that is not there: moto says so with an error that the service model doesn't have for it.
    f"--deselect={TESTS}billing_groups.py::test_delete_billing_group",
    # A type's name with spaces, which the service model's pattern forbids.
    f"--deselect={TESTS}thing_types.py::test_list_thing_types_with_typename_filter",
)


@pytest.fixture(scope="session")
def moto_source() -> Path:
    """moto's source distribution, of the version that is installed; fetched once."""
    wanted = f"moto-{version('moto')}"
    folder = FOLDER / wanted
    if not folder.exists():
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n")
        _unpack(_downloaded(wanted), folder)
    return folder


def _downloaded(wanted: str) -> Path:
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    what = ["--no-binary", "moto", "--dest", str(FOLDER), wanted.replace("-", "==")]
    try:
        subprocess.run([*fetch, *what], check=True, capture_output=True, text=True, timeout=DOWNLOAD_S)
    except (subprocess.SubprocessError, OSError) as problem:
        _cannot(f"can't fetch {wanted}: {getattr(problem, 'stderr', '') or problem}")
    return FOLDER / f"{wanted}.tar.gz"


def _unpack(archive: Path, folder: Path) -> None:
    """Whole or not at all: a run that was cut off leaves no half of the tests."""
    beside = FOLDER / "unpacking"
    shutil.rmtree(beside, ignore_errors=True)
    with tarfile.open(archive) as source:
        source.extractall(beside, filter="data")
    (beside / folder.name).rename(folder)
    beside.rmdir()


def _cannot(why: str) -> None:
    """Skipped, loudly; in CI it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.mark.parametrize(
    ("count", "files"),
    [pytest.param(25, THINGS, id="things and groups"), pytest.param(18, (*TYPES, *NOT_AWS), id="types and billing")],
)
async def test_motos_tests_pass_every_one(tmp_path: Path, moto_source: Path, count: int, files: Sequence[str]) -> None:
    config = write(tmp_path, account={"id": "123456789012", "region": "ap-northeast-1"})
    report = tmp_path / "report.xml"
    async with serving(config) as daemon:
        out = await _run(moto_source, daemon.url, f"--junit-xml={report}", *files)
    outcome = {name: int(value) for name, value in _suite(report).items()}
    assert outcome == {"tests": count, "failures": 0, "errors": 0, "skipped": 0}, out[-4000:]


async def _run(source: Path, url: str, *arguments: str) -> str:
    """What pytest says in moto's folder."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-p", "empty_registry", "-q", "--color=no", *arguments,
        cwd=source, env=_environment(url), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(RUN_S):
            out, _ = await child.communicate()
    finally:
        with suppress(ProcessLookupError):
            child.kill()
    return out.decode()


def _suite(report: Path) -> dict[str, str]:
    suite = ET.parse(report).find("testsuite")
    assert suite is not None
    return {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")}


def _environment(url: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "TEST_SERVER_MODE": "true",
        "TEST_SERVER_MODE_ENDPOINT": url,
        "MOTO_CALL_RESET_API": "false",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
