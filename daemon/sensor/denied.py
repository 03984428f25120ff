"""What the embedded nats-server refuses devices by its own rules, though it acknowledges the publish (design.md §2)."""

from collections.abc import Callable, Sequence
from typing import Final

OwnRefusals = Callable[[str], bool]


def own_refusals(subjects: Sequence[str]) -> OwnRefusals:
    """Whether a topic falls under one of these subjects: `.` there is `/` here, `*` one level, `>` one or more."""
    by_first: dict[str, list[list[str]]] = {}
    for subject in subjects:
        tokens = subject.split(".")
        by_first.setdefault(tokens[0], []).append(tokens)
    assert not {"*", ">"} & by_first.keys(), "a rule that begins with a wildcard would have to be tried for every topic"

    def refuses(topic: str) -> bool:
        rules = by_first.get(topic.partition("/")[0])
        return rules is not None and _matches_any(rules, topic.split("/"))

    return refuses


def nothing_refused(topic: str) -> bool:  # noqa: ARG001 - the broker tells of its refusals itself
    return False


def _matches_any(rules: list[list[str]], levels: list[str]) -> bool:
    return any(_matches(tokens, levels) for tokens in rules)


def _matches(tokens: list[str], levels: list[str]) -> bool:
    if tokens[-1] == REST:
        tokens = tokens[:-1]
        if len(levels) <= len(tokens):
            return False
    elif len(levels) != len(tokens):
        return False
    return all(token in ("*", level) for token, level in zip(tokens, levels, strict=False))


REST: Final = ">"
