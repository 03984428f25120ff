"""Kinds of criteria, one file each, found by searching this package (spec.md §5.2)."""

import sys
from functools import cache

from actors.criteria._base import Criterion
from config.kinds import discover


@cache
def criteria() -> tuple[Criterion, ...]:
    """Every kind, in the order of its file's name."""
    return tuple(kind for _, kind in sorted(discover(sys.modules[__name__], "CRITERION").items()))
