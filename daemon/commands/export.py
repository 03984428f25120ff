"""`detectd export`: what the API of a running daemon made, as files."""

import argparse

from botocore.exceptions import BotoCoreError, ClientError

from daemon.commands._ask import NoKey
from daemon.commands._definitions import daemon_client, say, write_out
from daemon.moving import service
from daemon.moving.plan import without


def export(options: argparse.Namespace) -> int:
    """0 done, 1 something is in the way, 3 the daemon can't be reached."""
    notes: list[str] = []
    try:
        iot, settings = daemon_client(options, "read")
        rules = without(service.read(iot, notes.append), settings.rules)
    except NoKey as problem:
        return say(str(problem), 1)
    except (BotoCoreError, ClientError) as problem:
        return say(f"the daemon's API: {problem}", 3)
    return write_out(options, rules, notes)
