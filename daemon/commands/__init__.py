"""The commands of `detectd`, one file each: what they print and the exit code they return.

A ConfigError is the caller's to say (`daemon.__main__`).
"""

from config.problem import ConfigError, UnreadableError


def bad(problem: ConfigError) -> int:
    """The exit code for a configuration: 1 it is not valid, 2 it can't be read."""
    return 2 if isinstance(problem, UnreadableError) else 1
