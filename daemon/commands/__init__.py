"""The commands of `detectd`, one file each: what they print and the exit code they return.

A ConfigError is the caller's to say (`daemon.__main__`).
"""

from pathlib import Path

from actors.metrics import kinds
from config.load import Loaded, load
from config.problem import ConfigError, Place, UnreadableError, problem


def load_whole(path: Path) -> Loaded:
    """The configuration of a daemon that is to run, with what only OpenSSL knows of its files. Raises ConfigError."""
    from daemon import certificates  # noqa: PLC0415  # ssl takes a while to load

    loaded = load(path, kinds())
    found = [problem(Place(path), flaw) for flaw in certificates.flaws(loaded.settings)]
    if found:
        raise ConfigError(found)
    return loaded


def bad(problem: ConfigError) -> int:
    """The exit code for a configuration: 1 it is not valid, 2 it can't be read."""
    return 2 if isinstance(problem, UnreadableError) else 1
