"""`detectd import`: definitions from AWS, or from a CloudFormation template, as files."""

import argparse

from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from daemon.commands._definitions import say, write_out
from daemon.moving import cloudformation, service


def from_aws(options: argparse.Namespace) -> int:
    """0 done, 1 something was left out or is in the way, 3 the endpoint can't be reached, or refuses."""
    notes: list[str] = []
    try:
        session = Session(profile=options.profile)
        rules = service.read(service.client(session, options.region, options.endpoint_url), notes.append)
    except (BotoCoreError, ClientError) as problem:
        return say(f"AWS IoT: {problem}", 3)
    return write_out(options, rules, notes)


def from_cloudformation(options: argparse.Namespace) -> int:
    """0 done, 1 it can't be taken over as it stands, 2 it is no template."""
    try:
        text = options.file.read_text("utf-8")
        parameters = dict(pair.split("=", 1) for pair in options.parameter)
        rules, template = cloudformation.read(str(options.file), text, parameters, options.region, options.account)
    except (OSError, UnicodeDecodeError) as problem:
        return say(f"{options.file}: {problem}", 2)
    except cloudformation.Unreadable as problem:
        return say(f"{options.file}: {problem}", 2)
    if template.problems:
        for problem_text in template.problems:
            say(problem_text, 1)
        return say("nothing was written", 1)
    return write_out(options, rules, template.notes)
