"""Environments of their own for programs that the tests talk to and that must not mix with ours; made once, kept."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import pytest

ROOT: Final = Path(__file__).parents[1]
INSTALL_S: Final = 180


def cannot(why: str) -> NoReturn:
    """Skipped, loudly; in CI it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def environment(folder: str, wanted: str, *others: str) -> Path:
    """The Python of one that has `wanted` ("NAME==VERSION") and `others`, in `folder` of the checkout."""
    name = "-".join([*wanted.split("=="), f"py{sys.version_info.major}.{sys.version_info.minor}"])
    place = ROOT / folder / name
    python, stamp = place / "bin" / "python", place / "complete"
    if not stamp.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        (place.parent / ".gitignore").write_text("*\n")
        _install(place, python, [wanted, *others])
        stamp.touch()
    return python


def _install(place: Path, python: Path, wanted: Sequence[str]) -> None:
    make = [sys.executable, "-m", "venv", str(place)]
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    try:
        for command in (make, install):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    except (subprocess.SubprocessError, OSError) as problem:
        cannot(f"can't install {wanted[0]}: {getattr(problem, 'stderr', '') or problem}")
