"""`detectd export`: what the API of a running daemon made, as files."""

import argparse

from daemon.commands._ask import NoKey
from daemon.commands._definitions import daemon_api, failed, made_by_api, say, write_out
from daemon.moving.api import ApiError
from daemon.moving.plan import needed


def export(options: argparse.Namespace) -> int:
    """0 done, 1 something is in the way, or refused, 3 the daemon can't be reached."""
    try:
        asked, settings = daemon_api(options, "read")
        rules, notes = made_by_api(asked, settings, options)
    except NoKey as problem:
        return say(str(problem), 1)
    except ApiError as problem:
        return failed(problem, "the daemon's API")
    for note in notes:
        say(note, 0)
    return write_out(options, needed(rules, settings.rules), settings.account)
