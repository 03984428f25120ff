"""Text to plain values: YAML 1.2 or JSON, every value with its line and column, duplicate keys refused.

JSON is read by the standard library, and only when a place is asked for is it read again with places: a fleet of
100 000 things costs no more than it must. YAML is read from ruamel's events (or, where it is as plain as most is, by
`plain_yaml`) by the core schema of YAML 1.2: `no` is text, `010` is ten, a date is text. Aliases are followed, but
what they expand to is bounded.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from config.plain_yaml import plain_tree
from config.problem import ConfigError, KeyPath, Place, Problem, UnreadableError, problem, shown
from config.tree import DEPTH_MAX, Node, scalar

BYTES_MAX: Final = 64 * 1024**2
EXPANDED_MAX: Final = 1_000_000  # values that aliases may add up to

_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_JSON_TOKEN: Final = re.compile(r'[{}\[\],:]|"(?:[^"\\]|\\.)*"|[^\s{}\[\],:"]+')


@dataclass(frozen=True)
class Document:
    """One file's content as plain values: dict, list, str, int, float, bool, None."""

    file: Path
    data: Any
    locate: Callable[[], Node]

    def place(self, path: KeyPath, *, key: bool = False) -> Place:
        """Where the value at `path` is written, or (`key`) the key that names it; else the nearest that there is."""
        node, at = self._root, (self._root.line, self._root.column)
        for depth, step in enumerate(path):
            found = _below(node, step)
            if found is None:
                break
            named, node = found
            chosen = named if key and depth == len(path) - 1 else node
            at = (chosen.line, chosen.column)
        return Place(self.file, *at, shown(path))

    @cached_property
    def _root(self) -> Node:
        return self.locate()


def read(file: Path) -> Document:
    """The document in a file.

    Raises:
        UnreadableError: it can't be read.
        ConfigError: it is no YAML or JSON, or keys are twice in it.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(BYTES_MAX + 1)
    except OSError as error:
        raise UnreadableError([problem(Place(file), f"cannot be read: {error.strerror or error}")]) from error
    if len(content) > BYTES_MAX:
        raise ConfigError([problem(Place(file), f"is larger than {BYTES_MAX // 1024**2} MiB")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([problem(Place(file, line), "is no UTF-8 text")]) from error
    return parse(text, file)


def parse(text: str, file: Path) -> Document:
    """The document that a text holds: JSON where the file's name ends so, else YAML. Raises ConfigError as `read`."""
    return _json(text, file) if file.suffix == ".json" else _yaml(text, file)


def _below(node: Node, step: str | int) -> tuple[Node, Node] | None:
    if isinstance(step, str):
        return node.members.get(step)
    return (node.items[step], node.items[step]) if step < len(node.items) else None


def _encodable(text: str, data: Any, file: Path) -> None:
    """Refuse half of a surrogate pair, which only an escape can bring in and which no text on the wire can hold."""
    if "\\u" not in text and "\\U" not in text:
        return
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError([problem(Place(file), "an escape stands for half of a surrogate pair")]) from None


# JSON


class _Twice(Exception):
    """A key is twice in an object."""


def _json(text: str, file: Path) -> Document:
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _Twice:
        duplicates: list[Problem] = []
        _json_tree(text, file, duplicates)
        raise ConfigError(duplicates) from None
    except json.JSONDecodeError as error:
        raise ConfigError([problem(Place(file, error.lineno, error.colno), f"no JSON: {error.msg}")]) from None
    except RecursionError:
        raise ConfigError([problem(Place(file), f"is nested deeper than {DEPTH_MAX} levels")]) from None
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise ConfigError([problem(Place(file), f"no JSON: {error}")]) from None
    _encodable(text, data, file)
    return Document(file, data, lambda: _json_tree(text, file, []))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Twice
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _json_tree(text: str, file: Path, duplicates: list[Problem]) -> Node:
    """The places in a text that is well-formed JSON; keys that are twice are added to `duplicates`."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    tokens = _JSON_TOKEN.finditer(text)

    def at(offset: int) -> tuple[int, int]:
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    def tree(token: re.Match[str], depth: int) -> Node:
        node = Node(None, *at(token.start()))
        if depth > DEPTH_MAX:
            raise ConfigError([_too_deep(file, node)])
        if token[0] == "[":
            _json_items(node, depth)
        elif token[0] == "{":
            _json_members(node, depth)
        return node

    def _json_items(node: Node, depth: int) -> None:
        while (token := next(tokens))[0] != "]":
            if token[0] != ",":
                node.items.append(tree(token, depth + 1))

    def _json_members(node: Node, depth: int) -> None:
        while (token := next(tokens))[0] != "}":
            if token[0] == ",":
                continue
            name, key = json.loads(token[0]), Node(None, *at(token.start()))
            next(tokens)  # the colon
            _enter(node, name, key, tree(next(tokens), depth + 1), file, duplicates)

    return tree(next(tokens), 0)


# YAML


def _yaml(text: str, file: Path) -> Document:
    root = plain_tree(text) or full_tree(text, file)
    _encodable(text, root.data, file)
    return Document(file, root.data, lambda: root)


def full_tree(text: str, file: Path) -> Node:
    """The tree of any YAML that a configuration may be written in. Raises ConfigError as `read`."""
    try:
        return _Composer(file, YAML(typ="safe", pure=True).parse(text)).document()
    except YAMLError as error:
        raise no_yaml(error, text, file) from None


def no_yaml(error: YAMLError, text: str, file: Path) -> ConfigError:
    """Where in the text ruamel stumbled, and over what."""
    if not isinstance(error, MarkedYAMLError):
        return ConfigError([problem(_unprintable(text, file), f"no YAML: {getattr(error, 'reason', error)}")])
    mark = error.problem_mark or error.context_mark
    place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
    what = ", ".join(filter(None, (error.context, error.problem)))
    return ConfigError([problem(place, f"no YAML: {what}")])


class _Composer:
    """Makes nodes of one document's events."""

    def __init__(self, file: Path, events: Iterator[Event]) -> None:
        self._file = file
        self._events = events
        self._anchors: dict[str, Node | None] = {}  # None: begun, not ended
        self._expanded = 0
        self._duplicates: list[Problem] = []

    def document(self) -> Node:
        """The only document; an empty text holds null."""
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, StreamEndEvent):
            return Node(None, 1, 1)
        root = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        more = next(self._events)
        if isinstance(more, DocumentStartEvent):
            self._refuse(_node_at(more), "a second document begins: one file holds one")
        if self._duplicates:
            raise ConfigError(self._duplicates)
        return root

    def _node(self, event: Any, depth: int) -> Node:
        node = _node_at(event)
        if depth > DEPTH_MAX:
            raise ConfigError([_too_deep(self._file, node)])
        if isinstance(event, AliasEvent):
            return self._alias(event, node)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        match event:
            case ScalarEvent():
                node.data = self._scalar(event, node)
            case SequenceStartEvent():
                self._only(event, node, "tag:yaml.org,2002:seq")
                self._sequence(node, depth)
            case MappingStartEvent():
                self._only(event, node, "tag:yaml.org,2002:map")
                self._mapping(node, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, node: Node, depth: int) -> None:
        while not isinstance(event := next(self._events), SequenceEndEvent):
            node.items.append(self._node(event, depth + 1))
        node.size += sum(item.size for item in node.items)
        node.data = [item.data for item in node.items]

    def _mapping(self, node: Node, depth: int) -> None:
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = _node_at(event)
            if not isinstance(event, ScalarEvent):
                self._refuse(key, "a key must be plain text")
            # As text whatever it looks like: a group may be called 7, or null.
            value = self._node(begin := next(self._events), depth + 1)
            if isinstance(begin, ScalarEvent) and begin.value == "" and begin.implicit[0]:
                # ruamel has nothing begin where the next thing does: it is better looked for behind its key.
                value.line, value.column = event.end_mark.line + 1, event.end_mark.column + 2
            _enter(node, event.value, key, value, self._file, self._duplicates)
        node.size += sum(value.size for _, value in node.members.values())
        node.data = {name: value.data for name, (_, value) in node.members.items()}

    def _alias(self, event: AliasEvent, node: Node) -> Node:
        target = self._anchors.get(event.anchor)
        if target is None:
            within = event.anchor in self._anchors
            self._refuse(node, f"*{event.anchor} {'is inside of itself' if within else 'is not defined before'}")
        self._expanded += target.size
        if self._expanded > EXPANDED_MAX:
            self._refuse(node, f"aliases expand to more than {EXPANDED_MAX} values")
        return target

    def _scalar(self, event: ScalarEvent, node: Node) -> Any:
        if event.tag == "!" or (event.tag is None and not event.implicit[0]):
            return event.value
        self._only(event, node, "tag:yaml.org,2002:str")
        return event.value if event.tag else scalar(event.value)

    def _only(self, event: Any, node: Node, tag: str) -> None:
        if event.tag not in {None, tag}:
            self._refuse(node, f"the tag {event.tag} is not supported")

    def _refuse(self, node: Node, message: str) -> NoReturn:
        raise ConfigError([problem(Place(self._file, node.line, node.column), message)])


def _node_at(event: Event) -> Node:
    return Node(None, event.start_mark.line + 1, event.start_mark.column + 1)


def _enter(node: Node, name: str, key: Node, value: Node, file: Path, duplicates: list[Problem]) -> None:
    """Add a member, or a problem where the key has been used."""
    if name in node.members:
        first = node.members[name][0]
        message = f'the key "{name}" is here a second time; the first is in line {first.line}'
        duplicates.append(problem(Place(file, key.line, key.column), message))
        return
    node.members[name] = (key, value)


def _unprintable(text: str, file: Path) -> Place:
    """The first character that YAML does not allow."""
    found = _UNPRINTABLE.search(text)
    if found is None:
        return Place(file)
    before = text[: found.start()]
    return Place(file, before.count("\n") + 1, found.start() - before.rfind("\n"))


def _too_deep(file: Path, node: Node) -> Problem:
    return problem(Place(file, node.line, node.column), f"is nested deeper than {DEPTH_MAX} levels")
