"""The operations, one file per family.

An operation is an async function with its name in snake case (`CreateThingGroup`: `create_thing_group`) that takes a
`Call` and gives the output shape's members as a dict (instants in ns, absent members absent or None); it refuses by
raising a `Refusal`. Adding one is writing one: `handlers` finds it.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any

from botocore import xform_name

from daemon.control.plane import Call

Handler = Callable[[Call], Awaitable[Mapping[str, Any]]]


@cache
def handlers() -> Mapping[str, Handler]:
    """By the snake-case name of the operation: every public async function of this package's modules."""
    found: dict[str, Handler] = {}
    for module_info in pkgutil.iter_modules(__path__):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for name, function in vars(module).items():
            if inspect.iscoroutinefunction(function) and function.__module__ == module.__name__ and name[0] != "_":
                assert name not in found, f"two handlers of {name}"
                found[name] = function
    return found


def handler_of(operation: str) -> Handler | None:
    """The handler of an operation of the service model (`CreateThing`); None: it is not implemented."""
    return handlers().get(xform_name(operation))
