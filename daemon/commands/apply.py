"""`detectd apply`: make the API of a running daemon have what files say, and nothing else but what its own files do."""

import argparse

from daemon.commands._ask import NoKey
from daemon.commands._definitions import daemon_api, failed, made_by_api, say, wanted
from daemon.control.arns import arn_of
from daemon.moving import api
from daemon.moving.plan import Step, of_files, plan, things_of, without


def apply(options: argparse.Namespace) -> int:
    """0 done, or nothing to do; 1 there is drift (`--check`), or a step was refused; 3 the daemon can't be reached."""
    is_dry = options.dry_run or options.check
    want = wanted(options.directory)
    try:
        asked, settings = daemon_api(options, "read" if is_dry else "admin")
        have, _ = made_by_api(asked, settings, options)
    except NoKey as problem:
        return say(str(problem), 1)
    except api.ApiError as problem:
        return failed(problem, "the daemon's API")
    for note in of_files(want, settings.rules, settings.origin):
        say(note, 0)
    steps = plan(
        have,
        without(want, settings.rules),
        lambda resource: arn_of(settings.account, resource),
        filed=things_of(settings.rules.fleet),
        delete=options.delete,
    )
    if not steps:
        return say("nothing to do", 0)
    if is_dry:
        for step in steps:
            print(f"{step.mark} {step.text}")
        return 1 if options.check else 0
    return _carried_out(asked, steps)


def _carried_out(asked: api.Api, steps: list[Step]) -> int:
    """Every step that can be done, in their order."""
    refused = 0
    for step in steps:
        print(f"{step.mark} {step.text}", flush=True)
        if not step.operation:
            refused += 1
            continue
        try:
            asked.call(step.operation, **step.params)
        except api.Unreachable as problem:
            return failed(problem, "the daemon's API")
        except api.ApiError as problem:
            refused += 1
            say(f"  refused: {problem}", 1)
    return 1 if refused else 0
