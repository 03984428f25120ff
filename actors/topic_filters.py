"""Which dimensions a topic lies in: all topic filters as one tree, walked level by level (spec.md §6.2).

The walk costs what the topic's levels cost, not what the filters do. `${iot:ClientId}` is put in for the client that is
measured; its wildcards, should its id have any, are ordinary characters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from config.model import Dimension

VARIABLE: Final = "${iot:ClientId}"
CACHE_MAX: Final = 65_536


@dataclass(slots=True)
class _Node:
    """A place in the tree. Bits say whose filters end there, or have their `#` there."""

    ends: int = 0
    rest: int = 0
    literal: dict[str, "_Node"] = field(default_factory=dict)
    any: "_Node | None" = None
    variable: dict[str, "_Node"] = field(default_factory=dict)  # level with the variable in it -> what follows


class TopicFilters:
    """The filters of all dimensions; dimension d, in the order given, is bit d of 64 (AWS allows 10).

    `parent_too`: `a/#` matches `a` as well, as the MQTT standard has it and AWS has not.
    """

    def __init__(self, dimensions: Sequence[Dimension], *, parent_too: bool = False) -> None:
        self.names = tuple(dimension.name for dimension in dimensions)
        self.flushed = 0  # times that the cache was full
        self._parent_too = parent_too
        self._root = _Node()
        self._spanning = [(bit, text) for bit, text in _numbered(dimensions) if VARIABLE in text]
        self._cache: dict[tuple[str, str], int] = {}
        for bit, text in _numbered(dimensions):
            self._add(text, 1 << bit)

    @property
    def depend_on_client(self) -> bool:
        """Whether the same topic may be inside for one client and outside for another."""
        return bool(self._spanning)

    def bits(self, topic: str, client_id: str) -> int:
        """The dimensions of which at least one filter matches."""
        key = (topic, client_id if self._spanning else "")
        known = self._cache.get(key)
        if known is None:
            if len(self._cache) >= CACHE_MAX:
                self._cache.clear()
                self.flushed += 1
            known = self._cache[key] = self._walk(topic.split("/"), client_id)
            if "/" in client_id:  # it fills several levels: the tree has them one by one
                known |= self._spanned(topic, client_id)
        return known

    def _add(self, text: str, bit: int) -> None:
        node = self._root
        for level in text.split("/"):
            if level == "#":
                node.rest |= bit
                return
            node = _child(node, level)
        node.ends |= bit

    def _walk(self, levels: list[str], client_id: str) -> int:
        """All nodes that the levels so far lead to, at most one for each filter."""
        found = 0
        nodes = [self._root]
        for at, level in enumerate(levels):
            wild = at > 0 or not level.startswith("$")  # a leading wildcard leaves `$…` topics alone
            following: list[_Node] = []
            for node in nodes:
                found |= node.rest if wild else 0
                following += _matching(node, level, client_id, wild)
            nodes = following
        for node in nodes:
            found |= node.ends | (node.rest if self._parent_too else 0)
        return found

    def _spanned(self, topic: str, client_id: str) -> int:
        found = 0
        for bit, text in self._spanning:
            if matches(text, topic, client_id, parent_too=self._parent_too):
                found |= 1 << bit
        return found


def matches(topic_filter: str, topic: str, client_id: str, *, parent_too: bool = False) -> bool:
    """One filter against one topic, level by level: the rule itself."""
    filters = [
        (part, level in {"+", "#"})
        for level in topic_filter.split("/")
        for part in ([level] if level in {"+", "#"} else level.replace(VARIABLE, client_id).split("/"))
    ]
    levels = topic.split("/")
    if topic.startswith("$") and filters[0][1]:
        return False
    for at, (part, wild) in enumerate(filters):
        if wild and part == "#":
            return len(levels) > at or (parent_too and len(levels) == at and at > 0)
        if at >= len(levels) or not (wild or part == levels[at]):
            return False
    return len(levels) == len(filters)


def _numbered(dimensions: Sequence[Dimension]) -> Iterable[tuple[int, str]]:
    return ((bit, text) for bit, dimension in enumerate(dimensions) for text in dimension.string_values)


def _child(node: _Node, level: str) -> _Node:
    if level == "+":
        node.any = node.any or _Node()
        return node.any
    return (node.variable if VARIABLE in level else node.literal).setdefault(level, _Node())


def _matching(node: _Node, level: str, client_id: str, wild: bool) -> list[_Node]:
    found = [node.literal[level]] if level in node.literal else []
    if node.any is not None and wild:
        found.append(node.any)
    return found + [below for text, below in node.variable.items() if text.replace(VARIABLE, client_id) == level]
