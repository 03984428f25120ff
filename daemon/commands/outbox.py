"""`detectd outbox list|resend|drop`."""

import argparse
from typing import Any

from daemon.commands._ask import ask


def outbox(options: argparse.Namespace) -> int:
    """As `_ask.ask`."""
    if options.action == "list":
        return ask(options, "outbox", {"state": options.state} if options.state else {}, _row)
    return ask(options, "outbox", {"id": str(options.id)}, _row)


def _row(row: dict[str, Any]) -> str:
    told = f"{row['receiver']}\t{row['thing']}\t{row['event']}"
    return f"{row['id']}\t{row['state']}\t{told}\t{row['attempts']} attempts\t{row['why']}"
