"""What the commands share that move definitions: the API of a running daemon, and what was written, in words."""

import argparse
import sys
from pathlib import Path

import msgspec

from actors.metrics import kinds
from config.canonical import canonical
from config.load import ConfigError, load
from config.model import Account, Limits, Rules, Settings
from config.secret import read_secret
from config.shape import shaped
from daemon.commands._ask import key_for, trusted, url_of
from daemon.commands.check import meanings
from daemon.http.access import Role
from daemon.moving import account, api, files
from daemon.moving.drafts import Drafts
from daemon.moving.plan import without
from daemon.moving.sift import sift

UNSIGNED = "nobody"  # where the daemon asks for no key, botocore still wants one to sign with


def daemon_api(options: argparse.Namespace, need: Role) -> tuple[api.Api, Settings]:
    """The API of the daemon of a configuration, signed with one of its keys.

    Raises:
        ConfigError: the configuration can't be used.
        NoKey: none of its keys has that role.
        api.Misused: the endpoint is none.
    """
    from botocore.session import Session  # noqa: PLC0415  # botocore takes a while to load

    settings = load(options.config, kinds()).settings
    key = key_for(settings.http, need, options.key)
    session = Session()
    session.set_credentials(key.id if key else UNSIGNED, read_secret(key.secret_file).reveal() if key else UNSIGNED)
    endpoint = options.endpoint_url or url_of(settings.http)
    own = trusted(settings.http.tls) if settings.http.tls and not options.endpoint_url else None
    return api.api_of(session, settings.account.region, endpoint, own), settings


def made_by_api(asked: api.Api, settings: Settings, options: argparse.Namespace) -> tuple[Rules, list[str]]:
    """What the API of a detectd made, and notes on what files have no place for.

    Raises:
        api.ApiError: it can't be read, or not as a whole; or the daemon's files are not those of the configuration.
    """
    held = account.holdings(asked)
    if held.missing:  # taking it for empty would make or delete things
        raise api.Refused("; ".join(held.notes))
    if not options.endpoint_url and (other := account.filed(held) ^ account.filed_by(settings.rules)):
        what = ", ".join(sorted(other)[:5])
        raise api.Refused(f"the daemon does not run what {options.config} says ({what}): reload it first")
    drafts = account.drafts_of(held, settings.rules.limits, filed=False)
    rules, faults = shaped(drafts.body(), Rules, Path)
    if rules is None:
        raise api.Refused(f"what it has is not as detectd has it: {faults[0].message}")
    limits = Limits(durations=settings.rules.limits.durations)
    rules = msgspec.structs.replace(rules, limits=limits)
    return without(canonical(rules), settings.rules), drafts.notes


def write_drafts(options: argparse.Namespace, drafts: Drafts) -> int:
    """Write what detectd accepts of definitions; 0 all of it, 1 something was left out, or is in the way."""
    sifted = sift(drafts, kinds())
    for line in (*drafts.notes, *sifted.refused):
        say(line, 0)
    if sifted.refused and options.strict:
        return say("nothing was written", 1)
    code = write_out(options, sifted.rules, drafts.account)
    return max(code, 1 if sifted.refused else 0)


def write_out(options: argparse.Namespace, rules: Rules, whose: Account | None = None) -> int:
    """Write valid definitions to `--out` and say what each behavior means; 0 good, 1 in the way, 3 can't write."""
    laid_out = files.laid_out(rules, whose)
    try:
        written = files.write(options.out, laid_out, force=options.force)
        loaded = load(options.out / files.MAIN, kinds())
    except files.Exists as problem:
        return say(str(problem), 1)
    except OSError as problem:
        return say(f"can't write to {options.out}: {problem}", 3)
    except ConfigError as problem:  # by files that were there before
        return say(f"with what is in {options.out} besides, it is not valid:\n{problem}", 1)
    for profile, behavior, text in meanings(loaded):
        print(f"{profile}/{behavior}: {text}")
    for path in files.others(options.out, laid_out):
        say(f"{path} was there before, and counts too", 0)
    say(f"{len(written)} files written to {options.out}; {options.out / files.MAIN} names them all", 0)
    return 0


def say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def failed(problem: api.ApiError, who: str) -> int:
    """Say why an endpoint could not be asked; 1 its answer is no, 2 wrong use, 3 nobody answers."""
    code = 3 if isinstance(problem, api.Unreachable) else 2 if isinstance(problem, api.Misused) else 1
    return say(f"{who}: {problem}", code)


def wanted(folder: Path) -> Rules:
    """What the files of a folder define. Raises `ConfigError`."""
    return load(folder / files.MAIN if folder.is_dir() else folder, kinds()).settings.rules
