"""moto's own tests of things and groups, unmodified, from its source distribution, against the daemon."""

import asyncio
import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest
from system_tools import serving, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

FOLDER: Final = Path(__file__).parents[2] / ".venv-moto"
FILES: Final = ("tests/test_iot/test_iot_things.py", "tests/test_iot/test_iot_thing_groups.py")
COUNT: Final = 25
DOWNLOAD_S: Final = 180


@pytest.fixture(scope="session")
def moto_source() -> Path:
    """moto's source distribution, of the version that is installed; fetched once."""
    wanted = f"moto-{version('moto')}"
    folder = FOLDER / wanted
    if not (folder / FILES[-1]).exists():
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n")
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        what = ["--no-binary", "moto", "--dest", str(FOLDER), wanted.replace("-", "==")]
        try:
            subprocess.run([*fetch, *what], check=True, capture_output=True, text=True, timeout=DOWNLOAD_S)
        except (subprocess.SubprocessError, OSError) as problem:
            _cannot(f"can't fetch {wanted}: {getattr(problem, 'stderr', '') or problem}")
        with tarfile.open(FOLDER / f"{wanted}.tar.gz") as archive:
            archive.extractall(FOLDER, filter="data")
    return folder


def _cannot(why: str) -> None:
    """Skipped, loudly; in CI it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


async def test_all_of_motos_tests_of_things_and_groups_pass(tmp_path: Path, moto_source: Path) -> None:
    config = write(tmp_path, account={"id": "123456789012", "region": "ap-northeast-1"})
    async with serving(config) as daemon:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", "-p", "empty_registry", "-q", "--color=no", *FILES,
            cwd=moto_source, env=_environment(daemon.url), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await child.communicate()
    text = out.decode()
    passed = re.search(rf"\b{COUNT} passed\b", text.splitlines()[-1])
    assert passed, text[-4000:]
    assert "failed" not in text.splitlines()[-1], text[-4000:]


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
