"""Fixtures of several files: moto's server and credentials for it, AWS's agent."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from aws_agent import AGENT, VERSION
from environments import environment
from moto_server import CREDENTIALS, moto


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What botocore's chain finds, in the daemon too."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS["aws_secret_access_key"])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture(scope="session")
def agent_python() -> Path:
    """The Python of an environment that has AWS's agent."""
    return environment(".venv-agent", f"{AGENT}=={VERSION}")
