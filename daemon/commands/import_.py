"""`detectd import`: definitions from AWS, or from a CloudFormation template, as files."""

import argparse

from config.load import ConfigError
from config.model import Limits
from daemon.commands._definitions import failed, say, write_drafts
from daemon.moving import account, api, cloudformation
from daemon.moving.template import read_template


def from_aws(options: argparse.Namespace) -> int:
    """0 done, 1 something was left out or is in the way, or refused, 2 no credentials, 3 nobody answers there."""
    from botocore import exceptions  # noqa: PLC0415  # botocore takes a while to load
    from botocore.session import Session  # noqa: PLC0415

    try:
        held = account.holdings(api.api_of(Session(profile=options.profile), options.region, options.endpoint_url))
    except api.ApiError as problem:
        return failed(problem, "AWS IoT")
    except exceptions.BotoCoreError as problem:
        return say(f"AWS IoT: {problem}", 2)
    return write_drafts(options, account.drafts_of(held, Limits(durations=options.durations), filed=True))


def from_cloudformation(options: argparse.Namespace) -> int:
    """0 done, 1 it can't be taken over as it stands, 2 it is no template."""
    given = dict(pair.split("=", 1) for pair in options.parameter)
    limits = Limits(durations=options.durations)
    template = read_template(options.file)
    unknown = cloudformation.unknown_names(template, given)
    if unknown:
        return say(f"{options.file}: nothing in it asks for {', '.join(unknown)}", 2)
    try:
        drafts = cloudformation.drafts_of(template, given, options.region, options.account, limits)
    except ConfigError as problem:
        say(str(problem), 1)
        return say("nothing was written", 1)
    return write_drafts(options, drafts)
