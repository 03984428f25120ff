"""Which drafts detectd accepts: each piece that its checks refuse is taken out, with the reason, and the rest stays.

A piece is the smallest thing that can go without changing what the rest means: a behavior, a target, a tag; else the
whole object. A dimension loses no filter, since that would change what its users count.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from config.canonical import canonical
from config.kinds import Kinds
from config.model import Rules
from config.objects import CUSTOM_METRICS_MAX, DIMENSIONS_MAX, check_rules
from config.problem import Finding, KeyPath, shown
from config.shape import shaped
from daemon.moving.drafts import COLLECTIONS, NAMES, Draft, Drafts

_LISTS: Final = {"behaviors", "targets", "additionalMetricsToRetain", "additionalMetricsToRetainV2", "tags"}
_MOST: Final = {"custom_metrics": CUSTOM_METRICS_MAX, "dimensions": DIMENSIONS_MAX}
_ESSENTIAL: Final = {*NAMES.values(), "behaviors", "metricType", "type", "stringValues"}
_SINGULAR: Final = {"behaviors": "behavior", "targets": "target", "tags": "tag"}


@dataclass(frozen=True, slots=True)
class Sifted:
    """Rules that pass every check, and a line for each piece that does not."""

    rules: Rules
    refused: tuple[str, ...]


def sift(drafts: Drafts, kinds: Kinds) -> Sifted:
    """Take out of the drafts what is refused. `drafts` itself is used up."""
    refused: list[str] = []
    findings = list(drafts.findings())
    while True:
        if findings:
            pieces = {piece for finding in findings for piece in _pieces(finding, drafts)}
            refused += [_said(finding, drafts) for finding in findings]
            for piece in sorted(pieces, reverse=True):  # from behind, so that the numbers before stay right
                _take_out(drafts, piece)
        rules, findings = _checked(drafts, kinds)
        if rules is not None and not findings:
            return Sifted(canonical(rules), tuple(refused))


def _checked(drafts: Drafts, kinds: Kinds) -> tuple[Rules | None, list[Finding]]:
    rules, faults = shaped(drafts.body(), Rules, Path)
    if rules is None:
        return None, faults
    rules = msgspec.structs.replace(rules, limits=drafts.limits)
    return rules, [finding for finding in check_rules(rules, kinds) if not finding.is_warning]


def _pieces(finding: Finding, drafts: Drafts) -> Iterable[KeyPath]:
    """The paths to be taken out; what is of no known kind takes the whole collection with it."""
    match finding.path:
        case ("custom_metrics" | "dimensions" as collection,):
            most = _MOST[collection]
            return [(collection, at) for at in range(most, len(drafts.of(collection)))]
        case (str(collection), int(), *rest) if collection in COLLECTIONS:
            return [(*finding.path[:2], *_piece_inside(tuple(rest)))]
        case ("fleet", "groups", _, "parent", *_):
            return [finding.path[:4]]
        case ("fleet", "groups", _, "things", int(), *_):
            return [finding.path[:5]]
        case ("fleet", "groups", _, *_) | ("fleet", "things", int(), *_):
            return [finding.path[:3]]
    raise AssertionError(finding)  # we made the outer shape ourselves


def _piece_inside(rest: KeyPath) -> KeyPath:
    """Of an object: () is all of it."""
    match rest:
        case (str(member), int(at), *_) if member in _LISTS:
            return member, at
        case ("alertTargets", str(key), *_):
            return "alertTargets", key
        case (str(member), *_) if member not in _ESSENTIAL:
            return (member,)
    return ()


def _take_out(drafts: Drafts, piece: KeyPath) -> None:
    match piece:
        case (str(collection), int(at)) if collection in COLLECTIONS:
            del drafts.of(collection)[at]
        case (str(collection), int(at), *inside) if collection in COLLECTIONS:
            draft = drafts.of(collection)[at]
            drafts.of(collection)[at] = Draft(_without(draft.body, tuple(inside)), _moved(draft, tuple(inside)))
        case ("fleet", "things", int(at)):
            del drafts.things[at]
        case ("fleet", "groups", str(name), *inside):
            if inside:
                drafts.groups[name] = _without(drafts.groups[name], tuple(inside))
            else:
                del drafts.groups[name]


def _without(body: Any, path: KeyPath) -> Any:
    """A copy without the value at `path`."""
    step, *rest = path
    copy = body.copy()
    if rest:
        copy[step] = _without(body[step], tuple(rest))
    else:
        copy.pop(step)  # of a list too
    return copy


def _moved(draft: Draft, piece: KeyPath) -> Any:
    """Where members are written, after one of a list went: those behind it have moved up."""
    if len(piece) < 2 or not isinstance(piece[1], int):
        return draft.place
    member, gone = piece[0], piece[1]

    def place(path: KeyPath) -> str:
        match path:
            case (str(first), int(at), *rest) if first == member and at >= gone:
                return draft.place((first, at + 1, *rest))
        return draft.place(path)

    return place


def _said(finding: Finding, drafts: Drafts) -> str:
    """`place: what: why (left out: which piece)`."""
    match finding.path:
        case (str(collection), int(at), *rest) if collection in COLLECTIONS:
            draft, inside = drafts.of(collection)[at], tuple(rest)
            what = f"{COLLECTIONS[collection]} {draft.body.get(NAMES[collection], '')}".strip()
            names_itself = finding.message.startswith("Behavior ") or not inside
            where = "" if names_itself else f"{shown(inside)}: "
            place = draft.place(inside)
            return f"{place}{': ' if place else ''}{what}: {where}{finding.message}{_left_out(inside)}"
        case path:
            place = drafts.fleet_place(path)
            return f"{place}{': ' if place else ''}{shown(path)}: {finding.message} (left out)"


def _left_out(inside: KeyPath) -> str:
    piece = _piece_inside(inside)
    if not piece:
        return " (left out)"
    member = str(piece[0])
    return f" (left out: the {_SINGULAR.get(member, 'entry')})" if len(piece) > 1 else f" (left out: {member})"
