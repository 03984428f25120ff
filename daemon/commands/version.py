"""`detectd version`."""

import argparse
from importlib.metadata import version as installed


def version(_options: argparse.Namespace) -> int:
    """Print it."""
    print(f"detectd {installed('detectd')}")  # noqa: T201  # the answer
    return 0
