"""`detectd version`."""

import argparse
from importlib.metadata import version as installed


def version(_options: argparse.Namespace) -> int:
    """Print it."""
    print(f"detectd {installed('detectd')}")
    return 0
