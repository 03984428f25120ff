"""Access keys for tests, and requests signed by botocore, which knows how AWS does it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from unittest.mock import patch
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from config.model import NS, AccessKey, Account, Http, Settings
from daemon.http.access import Access

NOW_S: Final = 1_790_000_000
SECRETS: Final = {"READER": "r-secret", "OPERATOR": "o-secret", "ADMIN": "a-secret"}
ROLES: Final = {"READER": "read", "OPERATOR": "operate", "ADMIN": "admin"}


def open_access() -> Access:
    """Nobody needs a key."""
    return Access(Settings(), lambda: NOW_S * NS)


def settings(folder: Path, region: str = "eu-west-1", **http: object) -> Settings:
    """Three keys, one for each role."""
    for name, secret in SECRETS.items():
        (folder / name).write_text(secret)
        (folder / name).chmod(0o600)
    keys = tuple(AccessKey(id=name, secret_file=folder / name, role=ROLES[name]) for name in SECRETS)
    return Settings(account=Account(region=region), http=Http(access_keys=keys, **http))


def signed(
    method: str,
    url: str,
    key: str = "ADMIN",
    body: bytes = b"",
    *,
    secret: str | None = None,
    region: str = "eu-west-1",
    service: str = "iot",
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    now_s: float = NOW_S,
) -> dict[str, str]:
    """The headers of a request as botocore signs it, Host among them."""
    request = AWSRequest(method, url, headers=dict(headers or {}), data=body)
    moment = datetime.fromtimestamp(now_s, UTC).replace(tzinfo=None)
    with patch("botocore.auth.get_current_datetime", lambda: moment):
        signer = SigV4Auth(
            Credentials(key, SECRETS.get(key, "?") if secret is None else secret, token), service, region
        )
        signer.add_auth(request)
    return {"Host": urlsplit(url).netloc, **dict(request.headers.items())}
