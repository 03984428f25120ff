"""`detectd poison list|retry|drop`."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from daemon.commands._ask import ask
from daemon.http.access import Role

NEEDS: Final[Mapping[str, Role]] = {"list": "read", "retry": "operate", "drop": "admin"}
"""As daemon/http/poison.py asks for."""


def poison(options: argparse.Namespace) -> int:
    """As `_ask.ask`."""
    where = {} if options.action == "list" else {"actor": options.actor, "position": str(options.position)}
    return ask(options, "poison", where, _row, NEEDS[options.action])


def _row(row: dict[str, Any]) -> str:
    return f"{row['actor']}\t{row['position']}\t{row['time']}\t{row['subject']}\t{row['bytes']} B\t{row['error']}"
