"""What only OpenSSL knows of TLS files is said before anything starts, with the setting and the file."""

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from daemon.__main__ import main


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A CA, a certificate with its key, another key, and a file that is neither."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")
    for name in ("own", "other"):
        made = authority.issue_cert("localhost")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.cert")
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    (tmp_path / "text").write_text("no PEM")
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    return {path.name: str(path) for path in tmp_path.iterdir()}


def settings(where: str, tls: dict[str, str]) -> dict[str, Any]:
    match where:
        case "http.tls":
            return {"http": {"tls": tls}}
        case "broker.embedded.tls":
            return {"broker": {"embedded": {"tls": tls}}}
        case _:
            sensor = {"name": "s", "listen": "127.0.0.1:0", "upstream": "mqtt://127.0.0.1:1883", "tls": tls}
            return {"broker": {"sensors": [sensor]}}


@pytest.mark.parametrize("where", ["http.tls", "broker.embedded.tls", "broker.sensors[0].tls"])
@pytest.mark.parametrize(
    ("cert", "key", "ca", "wrong"),
    [
        ("own.cert", "own.key", "ca", ""),
        ("own.cert", "own.key", None, ""),
        ("own.cert", "other.key", None, "other.key"),
        ("text", "own.key", None, "text"),
        ("own.cert", "text", None, "text"),
        ("own.cert", "own.key", "text", "text"),
    ],
)
def test_files_that_do_not_go_together_are_no_good_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], where: str,
    cert: str, key: str, ca: str | None, wrong: str,
) -> None:  # fmt: skip
    tls = {"cert": files[cert], "key": files[key], **({"ca": files[ca]} if ca else {})}
    config = tmp_path / "detectd.yaml"
    config.write_text(json.dumps(settings(where, tls)))
    assert main(["check", str(config)]) == (1 if wrong else 0)
    said = capsys.readouterr().err
    if wrong:
        assert f"{config}:1:1: {where}: " in said
        assert files[wrong] in said
        assert main(["serve", "--config", str(config)]) == 1
