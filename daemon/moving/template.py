"""Reads a CloudFormation template, YAML or JSON: plain values, each with its line, short tags as what they stand for.

`!Ref X` becomes `{"Ref": "X"}`, `!Sub "…"` becomes `{"Fn::Sub": "…"}`, `!GetAtt a.b` `{"Fn::GetAtt": ["a", "b"]}`.
"""

from pathlib import Path
from typing import Any, Final, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from config.document import EXPANDED_MAX, Document, no_yaml, parse
from config.problem import ConfigError, Place, UnreadableError, problem
from config.tree import DEPTH_MAX, Node, scalar

BYTES_MAX: Final = 16 * 1024**2
"""AWS's own limit is 1 MB."""
_PLAIN: Final = "tag:yaml.org,2002:"
_NOT_FN: Final = {"!Ref": "Ref", "!Condition": "Condition"}


def read_template(file: Path) -> Document:
    """The template in a file.

    Raises:
        UnreadableError: it can't be read, or is no YAML or JSON; at the line where that shows.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(BYTES_MAX + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UnreadableError([problem(Place(file), f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError:
        raise UnreadableError([problem(Place(file), "is no UTF-8 text")]) from None
    if len(content) > BYTES_MAX:
        raise UnreadableError([problem(Place(file), f"is larger than {BYTES_MAX // 1024**2} MiB")])
    try:
        return parse_template(text, file)
    except ConfigError as error:
        raise UnreadableError(error.problems) from None


def parse_template(text: str, file: Path) -> Document:
    """The template that a text holds. Raises ConfigError where it is no YAML or JSON, or has no resources."""
    document = _json(text, file) if text.lstrip().startswith("{") else _yaml(text, file)
    resources = document.data.get("Resources") if isinstance(document.data, dict) else None
    if not isinstance(resources, dict):
        raise ConfigError([problem(Place(file), "is no template: expected a mapping with Resources")])
    # Of a macro's there is more to say (cloudformation.py).
    strange = [name for name, each in resources.items() if not isinstance(each, dict) and not name.startswith("Fn::")]
    if strange:
        places = (document.place(("Resources", name), key=True) for name in strange)
        raise ConfigError([problem(place, "expected a mapping with Type and Properties") for place in places])
    return document


def _json(text: str, file: Path) -> Document:
    """Templates that are JSON are called .template as often as .json."""
    try:
        read = parse(text, file.with_name(file.name + ".json"))
    except ConfigError as error:
        places = (problem(Place(file, each.line, each.column), each.message) for each in error.problems)
        raise ConfigError(places) from None
    return Document(file, read.data, read.locate)


def _yaml(text: str, file: Path) -> Document:
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        tree = Node(None, 1, 1) if root is None else _Converter(file).node(root, 0)
    except YAMLError as error:
        raise no_yaml(error, text, file) from None
    except RecursionError:
        raise ConfigError([problem(Place(file), f"is nested deeper than {DEPTH_MAX} levels")]) from None
    return Document(file, tree.data, lambda: tree)


class _Converter:
    """Makes our nodes of ruamel's. Aliases are the same node again, and what they add up to is bounded."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[int, Node | None] = {}  # None: begun, not ended
        self._values = 0

    def node(self, source: Any, depth: int) -> Node:
        at = Node(None, source.start_mark.line + 1, source.start_mark.column + 1)
        if depth > DEPTH_MAX:
            self._refuse(at, f"is nested deeper than {DEPTH_MAX} levels")
        if id(source) in self._known:
            return self._again(self._known[id(source)], at)
        self._known[id(source)] = None
        made = self._tagged(self._plain(source, at, depth), str(source.tag or ""))
        self._known[id(source)] = made
        return made

    def _again(self, known: Node | None, at: Node) -> Node:
        if known is None:
            self._refuse(at, "an alias is inside of what it stands for")
        self._values += known.size
        if self._values > EXPANDED_MAX:
            self._refuse(at, f"aliases expand to more than {EXPANDED_MAX} values")
        return known

    def _plain(self, source: Any, at: Node, depth: int) -> Node:
        match source:
            case ScalarNode():
                is_text = source.style is not None or source.tag == f"{_PLAIN}str"  # the latter also by `!!str`
                at.data = source.value if is_text else scalar(source.value)
            case SequenceNode():
                at.items = [self.node(each, depth + 1) for each in source.value]
                at.data = [item.data for item in at.items]
                at.size += sum(item.size for item in at.items)
            case MappingNode():
                for key, value in source.value:
                    self._member(at, key, self.node(value, depth + 1))
                at.data = {name: value.data for name, (_, value) in at.members.items()}
                at.size += sum(value.size for _, value in at.members.values())
        return at

    def _member(self, at: Node, key: Any, value: Node) -> None:
        named = Node(None, key.start_mark.line + 1, key.start_mark.column + 1)
        if not isinstance(key, ScalarNode):
            self._refuse(named, "a key must be plain text")
        if key.value in at.members:
            self._refuse(named, f'the key "{key.value}" is here a second time')
        at.members[key.value] = (named, value)

    def _tagged(self, node: Node, tag: str) -> Node:
        if not tag.startswith("!") or tag == "!":
            if tag and tag != "!" and not tag.startswith(_PLAIN):
                self._refuse(node, f"the tag {tag} is not supported")
            return node
        name = _NOT_FN.get(tag, f"Fn::{tag[1:]}")
        if name == "Fn::GetAtt" and isinstance(node.data, str):
            node.data = node.data.split(".", 1)
        return Node({name: node.data}, node.line, node.column, members={name: (node, node)}, size=node.size + 1)

    def _refuse(self, node: Node, message: str) -> NoReturn:
        raise ConfigError([problem(Place(self._file, node.line, node.column), message)])
