"""`detectd apply`: make the API of a running daemon have what files say, and nothing else but what its own files do."""

import argparse

from botocore.exceptions import BotoCoreError, ClientError

from daemon.commands._ask import NoKey
from daemon.commands._definitions import daemon_client, say, wanted
from daemon.control.arns import arn_of
from daemon.moving import service
from daemon.moving.plan import Step, plan, without
from daemon.moving.service import Client


def apply(options: argparse.Namespace) -> int:
    """0 done, or nothing to do; 1 there is drift (`--check`), or a step was refused; 3 the daemon can't be reached."""
    is_dry = options.dry_run or options.check
    want = wanted(options.directory)
    notes: list[str] = []
    try:
        iot, settings = daemon_client(options, "read" if is_dry else "admin")
        have = without(service.read(iot, notes.append), settings.rules)
    except NoKey as problem:
        return say(str(problem), 1)
    except (BotoCoreError, ClientError) as problem:
        return say(f"the daemon's API: {problem}", 3)
    steps = plan(
        have, without(want, settings.rules), lambda resource: arn_of(settings.account, resource), delete=options.delete
    )
    for note in notes:
        say(note, 0)
    if not steps:
        return say("nothing to do", 0)
    if is_dry:
        for step in steps:
            print(f"{step.mark} {step.text}")
        return 1 if options.check else 0
    return _carried_out(iot, steps)


def _carried_out(iot: Client, steps: list[Step]) -> int:
    failed = 0
    for step in steps:
        print(f"{step.mark} {step.text}", flush=True)
        if not step.operation:
            failed += 1
            continue
        try:
            getattr(iot, step.operation)(**step.params)
        except ClientError as problem:
            failed += 1
            say(f"  refused: {problem.response['Error']['Message']}", 1)
        except BotoCoreError as problem:
            return say(f"the daemon's API: {problem}", 3)
    return 1 if failed else 0
