"""What this build can be configured with: the kinds of metrics, found by searching a package.

`config` may not import `actors`, yet must know which metrics exist: the kinds are handed in.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Literal

import msgspec

NUMERIC = frozenset({"less-than", "less-than-equals", "greater-than", "greater-than-equals"})
CIDR = frozenset({"in-cidr-set", "not-in-cidr-set"})
PORT = frozenset({"in-port-set", "not-in-port-set"})
SET = frozenset({"in-set", "not-in-set"})

ValueField = Literal["count", "cidrs", "ports", "number", "numbers", "strings"]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One measured quantity (spec.md §1.1, Appendix A).

    `read` takes a decoded report (`actors.report.Report`) and gives the natural value: an int or float for a
    scalar, a tuple of ports, address strings, numbers or strings for a set, None where the report has no
    datapoint. `column` names the column that the compiled scanner fills for it, where there is one; a metric
    without one works all the same, by way of the reference decoder. `read` is None for cloud-side metrics: those
    are made of the broker's `events` of these kinds (`actors.events.Kind`) in a window (spec.md §1.2).
    """

    name: str
    side: Literal["cloud", "device", "custom"]
    value_field: ValueField
    kind: Literal["counter", "delta", "snapshot", "set", "permessage", "gauge"]
    operators: frozenset[str]
    duration: Literal["required", "optional", "none", "forbidden"]
    statistical: bool = False
    ml: bool = False
    dimension: bool = False
    unit: str = ""
    read: Callable[[Any], Any] | None = None
    column: str | None = None
    events: frozenset[str] = frozenset()

    @property
    def is_set(self) -> bool:
        return self.kind == "set"


class Kinds(msgspec.Struct, frozen=True):
    """The built-in metrics by name, and what a custom metric of each type is."""

    metrics: Mapping[str, Metric]
    custom: Mapping[str, Callable[[str], Metric]]
    """metricType -> a function from the metric's name to its `Metric`."""


def discover(package: ModuleType, constant: str) -> dict[str, Any]:
    """{module name: its constant} for every module of `package` whose name does not start with `_`."""
    found: dict[str, Any] = {}
    for info in iter_modules(package.__path__):
        if not info.name.startswith("_"):
            found[info.name] = getattr(import_module(f"{package.__name__}.{info.name}"), constant)
    return found
