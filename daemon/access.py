"""Who may: without access keys everyone on loopback may everything."""

from typing import Any

from daemon.control import audit
from daemon.http.aws.endpoint import Role


class Access:
    def admit(
        self,
        method: str,
        raw_path: str,
        headers: Any,
        body: bytes,
        address: str,
        need: Role,  # noqa: ARG002
    ) -> audit.Actor:
        return audit.Actor("local", address)
