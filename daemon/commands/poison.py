"""`detectd poison list|retry|drop`."""

import argparse
from typing import Any

from daemon.commands._ask import ask


def poison(options: argparse.Namespace) -> int:
    """As `_ask.ask`."""
    where = {} if options.action == "list" else {"actor": options.actor, "position": str(options.position)}
    return ask(options, "poison", where, _row)


def _row(row: dict[str, Any]) -> str:
    return f"{row['actor']}\t{row['position']}\t{row['time']}\t{row['subject']}\t{row['bytes']} B\t{row['error']}"
