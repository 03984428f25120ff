"""Kinds of metrics, one file each, found by searching this package: a new metric is a new file that exports METRIC."""

import sys
from functools import cache

from actors.metrics._custom import CUSTOM
from config.kinds import Kinds, Metric, discover


@cache
def kinds() -> Kinds:
    """What this build can measure: the built-in metrics by name, and the makers of custom ones by type."""
    found: dict[str, Metric] = discover(sys.modules[__name__], "METRIC")
    return Kinds({metric.name: metric for metric in found.values()}, CUSTOM)
