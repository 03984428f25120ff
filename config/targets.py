"""What a profile can be attached to, in its short form: `all/things`, `thinggroup/NAME` … (spec.md §5.3)."""

import re
from typing import Final

ALL: Final = ("all/things", "all/registered-things", "all/unregistered-things")
GROUP: Final = "thinggroup/"

_ARN: Final = re.compile(r"arn:[a-z0-9-]+:iot:[a-z0-9-]*:[0-9]*:(.+)", re.DOTALL)


def short_target(text: str) -> str | None:
    """The short form of a target, given in that or as an ARN of any account and region; None where it is no target."""
    arn = _ARN.fullmatch(text)
    short = arn[1] if arn else text
    return short if short in ALL or (short.startswith(GROUP) and short != GROUP) else None


def group_of(target: str) -> str | None:
    """The group's name of a target in short form; None for those of all things."""
    return target.removeprefix(GROUP) if target.startswith(GROUP) else None
