"""From method and path to an operation: a tree of path segments, where a literal one wins over a label."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from daemon.http.aws.members import Fault
from daemon.http.aws.model import Operation


@dataclass(slots=True)
class Node:
    """A place in a path. `label` leads on for any segment."""

    literals: "dict[str, Node]" = field(default_factory=dict)
    label: "Node | None" = None
    operations: dict[str, Operation] = field(default_factory=dict)  # by method


def tree(operations: Iterable[Operation]) -> Node:
    root = Node()
    for operation in operations:
        node = root
        for segment in operation.uri.split("/")[1:]:
            node = _step(node, segment)
        assert operation.method not in node.operations, operation
        node.operations[operation.method] = operation
    return root


def _step(node: Node, segment: str) -> Node:
    if not segment.startswith("{"):
        return node.literals.setdefault(segment, Node())
    if node.label is None:
        node.label = Node()
    return node.label


def find(root: Node, method: str, raw_path: str) -> tuple[Operation, Mapping[str, str]] | None:
    """The operation of a request and the labels of its path, percent-decoded; None: there is none.

    Raises:
        Fault: a label is not UTF-8.
    """
    segments = raw_path.split("/")[1:]
    operation = _find(root, method, segments, 0)
    if operation is None:
        return None
    names = operation.uri.split("/")[1:]
    labels = zip(names, segments, strict=True)
    return operation, {name.strip("{}+"): _decoded(text, name) for name, text in labels if name.startswith("{")}


def _find(node: Node, method: str, segments: list[str], at: int) -> Operation | None:
    if at == len(segments):
        return node.operations.get(method)
    for inner in (node.literals.get(segments[at]), node.label):
        found = _find(inner, method, segments, at + 1) if inner else None
        if found is not None:
            return found
    return None


def _decoded(text: str, name: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Fault(name.strip("{}+"), "is not UTF-8") from None
