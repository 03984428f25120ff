"""From method and path to an operation: a tree of path segments, where a literal one wins over a label.

A greedy label (`{arn+}`) ends its path and takes all that is left of it, slashes too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from daemon.http.aws.model import Operation


@dataclass(slots=True)
class Node:
    """A place in a path. `label` leads on for any segment."""

    literals: "dict[str, Node]" = field(default_factory=dict)
    label: "Node | None" = None
    operations: dict[str, Operation] = field(default_factory=dict)  # by method
    greedy: dict[str, Operation] = field(default_factory=dict)  # those with a greedy label from here on


def tree(operations: Iterable[Operation]) -> Node:
    root = Node()
    for operation in operations:
        *segments, last = operation.uri.split("/")[1:]
        is_greedy = last.endswith("+}")
        node = root
        for segment in segments if is_greedy else [*segments, last]:
            node = _step(node, segment)
        place = node.greedy if is_greedy else node.operations
        assert operation.method not in place, operation
        place[operation.method] = operation
    return root


def _step(node: Node, segment: str) -> Node:
    if not segment.startswith("{"):
        return node.literals.setdefault(segment, Node())
    if node.label is None:
        node.label = Node()
    return node.label


def find(root: Node, method: str, raw_path: str) -> tuple[Operation, Mapping[str, str]] | None:
    """The operation of a request and the labels of its path, as they came; None: there is none."""
    segments = raw_path.split("/")[1:]
    operation = _find(root, method, segments, 0)
    return None if operation is None else (operation, _labels(operation.uri, segments))


def _find(node: Node, method: str, segments: list[str], at: int) -> Operation | None:
    if at == len(segments):
        return node.operations.get(method)
    for inner in (node.literals.get(segments[at]), node.label):
        found = _find(inner, method, segments, at + 1) if inner else None
        if found is not None:
            return found
    return node.greedy.get(method)


def _labels(uri: str, segments: list[str]) -> dict[str, str]:
    names = uri.split("/")[1:]
    end = len(names) - 1
    texts = [*segments[:end], "/".join(segments[end:])]
    return {name.strip("{}+"): text for name, text in zip(names, texts, strict=True) if name.startswith("{")}
