"""Definitions on their way into files: as their source has them, with the place of each, and what can't come along."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from config.model import Account, Limits
from config.problem import Finding, KeyPath
from config.targets import group_of

COLLECTIONS: Final = {"profiles": "security profile", "custom_metrics": "custom metric", "dimensions": "dimension"}
"""What a draft can be of, and what people call one of them."""
NAMES: Final = {"profiles": "securityProfileName", "custom_metrics": "metricName", "dimensions": "name"}

PlaceOf = Callable[[KeyPath], str]


def nowhere(_: KeyPath) -> str:
    """For what an API said: its name has to do."""
    return ""


@dataclass(frozen=True, slots=True)
class Draft:
    """One object, with the members of AWS's API (a profile also with `targets`), of any shape.

    `place` gives `file:line:column` of a member where the source has such; `findings` is what its reader refuses,
    with paths that begin inside it.
    """

    body: dict[str, Any]
    place: PlaceOf = nowhere
    findings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class Drafts:
    """All that a source defines. `groups` is name -> {parent, things}; `notes` says what has no place in a file."""

    profiles: list[Draft] = field(default_factory=list)
    custom_metrics: list[Draft] = field(default_factory=list)
    dimensions: list[Draft] = field(default_factory=list)
    things: list[str] = field(default_factory=list)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    fleet_place: PlaceOf = nowhere
    limits: Limits = field(default_factory=Limits)
    account: Account | None = None
    notes: list[str] = field(default_factory=list)

    def of(self, collection: str) -> list[Draft]:
        drafts: list[Draft] = getattr(self, collection)
        return drafts

    def body(self) -> dict[str, Any]:
        """As a file of rules would have it."""
        drafted = {collection: [draft.body for draft in self.of(collection)] for collection in COLLECTIONS}
        return {**drafted, "fleet": {"things": self.things, "groups": self.groups}}

    def name_groups_of_targets(self) -> None:
        """Groups that only targets or children name become groups without things, since files must name them."""
        for draft in self.profiles:
            targets = draft.body.get("targets")
            for at, target in enumerate(targets if isinstance(targets, list) else ()):
                group = group_of(target) if isinstance(target, str) else None
                if group is not None:
                    self._name_group(group, draft.place(("targets", at)))
        for parent in [body.get("parent") for body in self.groups.values()]:
            if isinstance(parent, str):
                self._name_group(parent, self.fleet_place(("fleet", "groups")))

    def _name_group(self, group: str, place: str) -> None:
        if group not in self.groups:
            self.groups[group] = {}
            text = f"thing group {group} is not among what is read: the fleet file has it, without things"
            self.notes.append(f"{place}: {text}" if place else text)

    def findings(self) -> Iterator[Finding]:
        """What the reader of the source refuses."""
        for collection in COLLECTIONS:
            for at, draft in enumerate(self.of(collection)):
                yield from (finding.below(collection, at) for finding in draft.findings)
