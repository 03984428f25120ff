"""The plain part of YAML, read fast: what most configurations are written in, and nothing else.

Block mappings and lists, scalars and flow collections that end on their own line, comments. Whatever is not surely of
that kind, wrong texts included, is left to the full parser, which takes twenty times as long: 10 000 behaviors would
keep a reload, and whoever shares its processor, busy for seconds. Both make the same tree; a test compares them.
"""

import re
from typing import Final, NamedTuple

from config.tree import DEPTH_MAX, Node, scalar

_LINE: Final = re.compile(r"(?P<indent> *)(?P<dash>-(?: +|$))?(?:(?P<key>[A-Za-z_][\w-]*):(?: +|$))?(?P<rest>.*)")
_COMMENTED: Final = re.compile(r"((?:[^'\"#\\]|'[^']*'|\"[^\"\\]*\")*?)(?:(?:^| +)#.*)")
_COMMENTED_MAX: Final = 1000  # a longer line with a # is not looked at
_OTHER: Final = re.compile("[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")  # tabs, other breaks …
_WORD: Final = r"(?:[\w./$@*+=()%-]|:(?=[\w/.:]))"
_PLAIN: Final = re.compile(rf"(?:[\w./$]|-(?=[\w.])){_WORD}*(?: +[\w./$(]{_WORD}*)*")
_FLOW_WORD: Final = r"(?:[\w./$@*+=()-]|:(?=[\w/.:]))"
_FLOW_PLAIN: Final = re.compile(rf"(?:[\w./$]|-(?=[\w.])){_FLOW_WORD}*(?: +[\w./$(]{_FLOW_WORD}*)*")
_QUOTED: Final = re.compile(r"'([^'\n]*)'(?!')|\"([^\"\\\n]*)\"")
_FLOW_KEY: Final = re.compile(r"([A-Za-z_][\w-]*): +")
_SPACES: Final = re.compile(r" *")


class Entry(NamedTuple):
    """A key, or a dash, with what follows it on its line."""

    indent: int
    key: str | None  # None: a dash
    text: str  # "": what follows is below
    line: int
    column: int  # of the text; where there is none, of the end of the key or the dash


class _Other(Exception):
    """The text is not of the plain kind."""


def plain_tree(text: str) -> Node | None:
    """The text's tree; None where it is not surely plain."""
    if _OTHER.search(text):
        return None
    try:
        reader = _Reader(_entries(text))
        return reader.whole()
    except _Other:
        return None


def _entries(text: str) -> list[Entry]:
    entries: list[Entry] = []
    for line, content in enumerate(text.split("\n"), start=1):
        match = _LINE.fullmatch(content)
        assert match is not None
        rest = _without_comment(match["rest"])
        if match["dash"] is None and match["key"] is None:
            if rest:
                raise _Other
            continue
        _enter_line(entries, match, rest, line)
    return entries


def _without_comment(rest: str) -> str:
    """The text of a line without comment and spaces at its end."""
    if "#" not in rest:
        return rest.rstrip(" ")
    commented = _COMMENTED.fullmatch(rest) if len(rest) <= _COMMENTED_MAX else None
    if commented is None:
        raise _Other
    return commented[1]


def _enter_line(entries: list[Entry], match: re.Match[str], rest: str, line: int) -> None:
    """One entry for a dash, one for a key; of both on a line, the key's is inside of the dash's."""
    indent = len(match["indent"])
    begin = match.start("rest") + 1
    if match["dash"] is not None:
        alone = match["key"] is None
        column = begin if alone and rest else indent + 2
        entries.append(Entry(indent, None, rest if alone else "", line, column))
    if match["key"] is not None:
        column = begin if rest else match.end("key") + 2
        entries.append(Entry(match.start("key"), match["key"], rest, line, column))


class _Reader:
    """Makes the tree of entries by their indentation."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries
        self._at = 0

    def whole(self) -> Node:
        if not self._entries:
            raise _Other
        root = self._block(self._entries[0].indent, 0)
        if self._at < len(self._entries):
            raise _Other
        return root

    def _block(self, indent: int, depth: int) -> Node:
        first = self._entries[self._at]
        if depth > DEPTH_MAX:
            raise _Other
        node = Node(None, first.line, indent + 1)
        if first.key is None:
            self._items(node, indent, depth)
        else:
            self._members(node, indent, depth)
        return node

    def _items(self, node: Node, indent: int, depth: int) -> None:
        while (entry := self._next(indent)) is not None and entry.key is None:
            self._at += 1
            node.items.append(self._value(entry, depth, same_indent=False))
        node.data = [item.data for item in node.items]

    def _members(self, node: Node, indent: int, depth: int) -> None:
        members = node.members
        while (entry := self._next(indent)) is not None and entry.key is not None:
            self._at += 1
            if entry.key in members:
                raise _Other
            members[entry.key] = (Node(None, entry.line, indent + 1), self._value(entry, depth, same_indent=True))
        node.data = {key: value.data for key, (_, value) in members.items()}

    def _next(self, indent: int) -> Entry | None:
        """The entry that is next, where it is of this block."""
        if self._at == len(self._entries) or self._entries[self._at].indent < indent:
            return None
        entry = self._entries[self._at]
        if entry.indent > indent:  # the next line of a scalar, or a mistake
            raise _Other
        return entry

    def _value(self, entry: Entry, depth: int, *, same_indent: bool) -> Node:
        """What belongs to a key or dash. A list may have the indentation of its key."""
        if entry.text:
            return _inline(entry, depth + 1)
        if self._at < len(self._entries):
            below = self._entries[self._at]
            if below.indent > entry.indent or (same_indent and below.indent == entry.indent and below.key is None):
                return self._block(below.indent, depth + 1)
        return Node(None, entry.line, entry.column)


def _inline(entry: Entry, depth: int) -> Node:
    """A scalar or a flow collection that is all of its text."""
    if entry.text[0] in "[{":
        node, end = _flow(entry, 0, depth)
    else:
        node, end = _scalar(entry, 0, _PLAIN)
    if end != len(entry.text):
        raise _Other
    return node


def _scalar(entry: Entry, at: int, plain: re.Pattern[str]) -> tuple[Node, int]:
    quoted = _QUOTED.match(entry.text, at)
    if quoted is not None:
        return Node(quoted[quoted.lastindex or 1], entry.line, entry.column + at), quoted.end()
    found = plain.match(entry.text, at)
    if found is None:
        raise _Other
    return Node(scalar(found[0]), entry.line, entry.column + at), found.end()


def _flow(entry: Entry, at: int, depth: int) -> tuple[Node, int]:
    """The value that begins at `at` inside of a flow collection, and where it ends."""
    if depth > DEPTH_MAX:
        raise _Other
    if entry.text[at] not in "[{":
        return _scalar(entry, at, _FLOW_PLAIN)
    node, opened = Node(None, entry.line, entry.column + at), entry.text[at]
    closing = "]" if opened == "[" else "}"
    at = _spaces(entry, at + 1)
    while entry.text[at] != closing:
        at = _flow_item(entry, at, node, depth) if opened == "[" else _flow_member(entry, at, node, depth)
        at = _spaces(entry, at)
        if entry.text[at] == "," and entry.text[at + 1 : at + 2] == " ":
            at = _spaces(entry, at + 1)
            if entry.text[at] == closing:
                raise _Other
        elif entry.text[at] != closing:
            raise _Other
    node.data = (
        [item.data for item in node.items] if opened == "[" else {k: v.data for k, (_, v) in node.members.items()}
    )
    return node, at + 1


def _flow_item(entry: Entry, at: int, node: Node, depth: int) -> int:
    item, end = _flow(entry, at, depth + 1)
    node.items.append(item)
    return end


def _flow_member(entry: Entry, at: int, node: Node, depth: int) -> int:
    key = _FLOW_KEY.match(entry.text, at)
    if key is None or key[1] in node.members or key.end() == len(entry.text):
        raise _Other
    value, end = _flow(entry, key.end(), depth + 1)
    node.members[key[1]] = (Node(None, entry.line, entry.column + at), value)
    return end


def _spaces(entry: Entry, at: int) -> int:
    """Where the spaces end; the text goes on there."""
    match = _SPACES.match(entry.text, at)
    assert match is not None
    if match.end() == len(entry.text):
        raise _Other
    return match.end()
