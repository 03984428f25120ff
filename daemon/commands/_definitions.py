"""What the commands share that move definitions: a client of a running daemon, and what was written, in words."""

import argparse
import sys
from pathlib import Path

from botocore.session import Session

from actors.metrics import kinds
from config.load import ConfigError, load
from config.model import Rules, Settings
from config.secret import read_secret
from daemon.access import Role
from daemon.commands._ask import key_for, url_of
from daemon.commands.check import meanings
from daemon.moving import files
from daemon.moving.service import Client, client

UNSIGNED = "nobody"  # where the daemon asks for no key, botocore still wants one to sign with


def daemon_client(options: argparse.Namespace, need: Role) -> tuple[Client, Settings]:
    """A client of the daemon of a configuration, signed with one of its keys.

    Raises:
        ConfigError: the configuration can't be used.
        NoKey: none of its keys has that role.
    """
    settings = load(options.config, kinds()).settings
    key = key_for(settings.http, need, options.key)
    session = Session()
    session.set_credentials(key.id if key else UNSIGNED, read_secret(key.secret_file).reveal() if key else UNSIGNED)
    endpoint = options.endpoint_url or url_of(settings.http)
    return client(session, settings.account.region, endpoint), settings


def write_out(options: argparse.Namespace, rules: Rules, notes: list[str]) -> int:
    """Write definitions to `--out`, say what each behavior means; 0 good, 1 something was left out or is in the way."""
    kept, problems = files.sound(rules, kinds())
    try:
        written = files.write(options.out, kept, force=options.force)
        loaded = load(options.out / files.MAIN, kinds())
    except files.Exists as problem:
        return say(str(problem), 1)
    except OSError as problem:
        return say(f"can't write to {options.out}: {problem}", 3)
    except ConfigError as problem:
        return say(f"what was written is not valid as a whole:\n{problem}", 1)
    for profile, behavior, text in meanings(loaded):
        print(f"{profile}/{behavior}: {text}")
    for line in (*notes, *problems):
        say(line, 0)
    say(f"{len(written)} files written to {options.out}; {options.out / files.MAIN} names them all", 0)
    return 1 if problems else 0


def say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def wanted(folder: Path) -> Rules:
    """What the files of a folder define. Raises `ConfigError`."""
    return load(folder / files.MAIN if folder.is_dir() else folder, kinds()).settings.rules
