"""`detectd outbox list|resend|drop`."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from daemon.commands._ask import ask
from daemon.http.access import Role

NEEDS: Final[Mapping[str, Role]] = {"resend": "operate", "drop": "admin"}
"""As daemon/http/outbox.py asks for."""


def outbox(options: argparse.Namespace) -> int:
    """As `_ask.ask`."""
    if options.action == "list":
        return ask(options, "outbox", {"state": options.state} if options.state else {}, _row, limit=options.limit)
    return ask(options, "outbox", {"id": str(options.id)}, _row, NEEDS[options.action])


def _row(row: dict[str, Any]) -> str:
    told = f"{row['receiver']}\t{row['thing']}\t{row['event']}"
    return f"{row['id']}\t{row['state']}\t{told}\t{row['attempts']} attempts\t{row['why']}"
