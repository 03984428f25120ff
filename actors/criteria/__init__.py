"""Kinds of criteria, one file each, found by searching this package (spec.md §5.2)."""

import sys
from functools import cache

from actors.criteria._base import Criterion, WindowCriterion
from config.kinds import discover


@cache
def criteria() -> tuple[Criterion, ...]:
    """Every kind that judges reports, in the order of its file's name."""
    return tuple(kind for kind in _found() if isinstance(kind, Criterion))


@cache
def window_criteria() -> tuple[WindowCriterion, ...]:
    """Every kind that judges what the brokers tell, likewise."""
    return tuple(kind for kind in _found() if isinstance(kind, WindowCriterion))


def _found() -> list[Criterion | WindowCriterion]:
    return [kind for _, kind in sorted(discover(sys.modules[__name__], "CRITERION").items())]
