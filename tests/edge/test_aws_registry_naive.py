"""The registry against a slow, obvious twin: random requests, the same refusals, the same whole at the end."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import randbits
from typing import Any, Final

import pytest
from control_runner import TestedPlane, ask, pages, plane, refused

from daemon.control.refusal import Refusal

pytestmark = pytest.mark.timeout(120)

STEPS: Final = 2500
THINGS: Final = [f"t{n}" for n in range(5)]
GROUPS: Final = [f"g{n}" for n in range(28)]  # more than a thing may be in, and than may be nested
FLEET: Final = {"things": ["t0"], "groups": {"g0": {"things": ["t1"]}, "g1": {"parent": "g0"}}}
INVALID, MISSING, TAKEN, CONFLICT = (
    f"{name}Exception" for name in ("InvalidRequest", "ResourceNotFound", "ResourceAlreadyExists", "VersionConflict")
)


class Refused(Exception):
    """With an error's code."""


@dataclass(slots=True)
class Twin:
    """What the registry should be. `things`: name -> version."""

    things: dict[str, int] = field(default_factory=lambda: {"t0": 0, "t1": 0})
    parents: dict[str, str | None] = field(default_factory=lambda: {"g0": None, "g1": "g0"})
    members: set[tuple[str, str]] = field(default_factory=lambda: {("g0", "t1")})

    def CreateThing(self, thingName: str) -> None:  # noqa: N802, N803  # operations and members are named as AWS does
        self.things.setdefault(thingName, 0)

    def UpdateThing(self, thingName: str, expectedVersion: int) -> None:  # noqa: N802, N803
        _must(thingName in self.things, MISSING)
        _must(self.things[thingName] == expectedVersion, CONFLICT)
        self.things[thingName] += 1

    def DeleteThing(self, thingName: str) -> None:  # noqa: N802, N803
        _must(thingName not in {"t0", "t1"}, INVALID)
        self.things.pop(thingName, None)
        self.members = {(group, thing) for group, thing in self.members if thing != thingName}

    def CreateThingGroup(self, thingGroupName: str, parentGroupName: str | None = None) -> None:  # noqa: N802, N803
        if thingGroupName in self.parents:
            _must(self.parents[thingGroupName] == parentGroupName, TAKEN)
            return
        if parentGroupName is not None:
            _must(parentGroupName in self.parents, INVALID)
            _must(len(list(self.up(parentGroupName))) < 7, INVALID)
        self.parents[thingGroupName] = parentGroupName

    def DeleteThingGroup(self, thingGroupName: str) -> None:  # noqa: N802, N803
        _must(thingGroupName not in {"g0", "g1"} and thingGroupName not in self.parents.values(), INVALID)
        self.parents.pop(thingGroupName, None)
        self.members = {(group, thing) for group, thing in self.members if group != thingGroupName}

    def AddThingToThingGroup(self, thingName: str, thingGroupName: str) -> None:  # noqa: N802, N803
        _must(thingName in self.things and thingGroupName in self.parents, MISSING)
        if (thingGroupName, thingName) in self.members:
            return
        inside = [group for group, thing in self.members if thing == thingName]
        roots = {list(self.up(group))[-1] for group in inside}
        _must(len(inside) < 10 and list(self.up(thingGroupName))[-1] not in roots, INVALID)
        self.members.add((thingGroupName, thingName))

    def RemoveThingFromThingGroup(self, thingName: str, thingGroupName: str) -> None:  # noqa: N802, N803
        _must(thingName in self.things and thingGroupName in self.parents, MISSING)
        _must((thingGroupName, thingName) != ("g0", "t1"), INVALID)
        self.members.discard((thingGroupName, thingName))

    def up(self, group: str | None) -> Iterator[str]:
        """The group, its parent and so on, to the root."""
        while group is not None:
            yield group
            group = self.parents[group]


def _must(is_so: bool, code: str) -> None:
    if not is_so:
        raise Refused(code)


def request(rng: random.Random, twin: Twin) -> tuple[str, dict[str, Any]]:
    """Creations and memberships more often than their ends, so that limits are reached."""
    thing, group = {"thingName": rng.choice(THINGS)}, {"thingGroupName": rng.choice(GROUPS)}
    deepest = max(twin.parents, key=lambda name: len(list(twin.up(name))))
    parent = {"parentGroupName": rng.choice([*GROUPS, *[deepest] * len(GROUPS)])} if rng.random() < 0.5 else {}
    version = {"expectedVersion": twin.things.get(thing["thingName"], 0) + (rng.random() < 0.2)}
    kinds: list[tuple[int, str, dict[str, Any]]] = [
        (4, "CreateThing", thing),
        (6, "UpdateThing", thing | version),
        (1, "DeleteThing", thing),
        (12, "CreateThingGroup", group | parent),
        (3, "DeleteThingGroup", group),
        (40, "AddThingToThingGroup", thing | group),
        (4, "RemoveThingFromThingGroup", thing | group),
    ]
    ((_, operation, params),) = rng.choices(kinds, [weight for weight, _, _ in kinds])
    return operation, params


async def test_random_requests_are_answered_as_a_plain_twin_answers_them(tmp_path: Path) -> None:
    seed = randbits(32)
    rng, twin, codes = random.Random(seed), Twin(), set[str]()
    async with plane(tmp_path) as control:
        await control.files(fleet=FLEET)
        for step in range(STEPS):
            operation, params = request(rng, twin)
            expected = _outcome(twin, operation, params)
            assert await _answer(control, operation, params) == expected, (
                f"seed {seed} step {step} {operation} {params}"
            )
            codes.add(expected)
        await _is_as(control, twin, f"seed {seed}")
    assert codes == {"", INVALID, MISSING, TAKEN, CONFLICT}, f"seed {seed} did not meet every answer"


def _outcome(twin: Twin, operation: str, params: dict[str, Any]) -> str:
    try:
        getattr(twin, operation)(**params)
    except Refused as refused:
        return str(refused)
    return ""


async def _answer(control: TestedPlane, operation: str, params: dict[str, Any]) -> str:
    try:
        await ask(control, operation, **params)
    except Refusal as refusal:
        return refusal.code
    return ""


async def _is_as(control: TestedPlane, twin: Twin, seed: str) -> None:
    """Everything that can be asked, page by page."""
    listed = [each for page in await pages(control, "ListThings", "things", maxResults=2) for each in page]
    assert {each["thingName"]: each["version"] for each in listed} == twin.things, seed
    assert await _names(control, "ListThingGroups") == sorted(twin.parents), seed
    for group in twin.parents:
        below = sorted(each for each in twin.parents if group in list(twin.up(each))[1:])
        assert await _names(control, "ListThingGroups", parentGroup=group) == below, seed
        way = [each["groupName"] for each in await _above(control, group)]
        assert way == list(twin.up(group))[:0:-1], seed
        for recursive, groups in ((False, {group}), (True, {group, *below})):
            inside = await pages(
                control, "ListThingsInThingGroup", "things", thingGroupName=group, recursive=recursive, maxResults=1
            )
            assert [thing for page in inside for thing in page] == sorted(
                {thing for each, thing in twin.members if each in groups}
            ), seed
    for thing in twin.things:
        groups_of = sorted(group for group, each in twin.members if each == thing)
        assert await _names(control, "ListThingGroupsForThing", thingName=thing) == groups_of, seed


async def _names(control: TestedPlane, operation: str, **params: Any) -> list[str]:
    found = await pages(control, operation, "thingGroups", maxResults=3, **params)
    return [group["groupName"] for page in found for group in page]


async def _above(control: TestedPlane, group: str) -> list[dict[str, str]]:
    found = (await ask(control, "DescribeThingGroup", thingGroupName=group))["thingGroupMetadata"]
    return list(found.get("rootToParentThingGroups", []))


async def test_of_many_at_once_that_exclude_each_other_one_is_done(tmp_path: Path) -> None:
    async with plane(tmp_path) as control:
        await ask(control, "CreateThing", thingName="t")
        await ask(control, "CreateThingGroup", thingGroupName="root")
        for n in range(20):
            await ask(control, "CreateThingGroup", thingGroupName=f"g{n}", parentGroupName="root")
        puts = [
            _answer(control, "AddThingToThingGroup", {"thingName": "t", "thingGroupName": f"g{n}"}) for n in range(20)
        ]
        assert sorted(await asyncio.gather(*puts)) == ["", *[INVALID] * 19]
        updates = [_answer(control, "UpdateThing", {"thingName": "t", "expectedVersion": 0}) for _ in range(20)]
        assert sorted(await asyncio.gather(*updates)) == ["", *[CONFLICT] * 19]
        made = await asyncio.gather(*(ask(control, "CreateThing", thingName="same") for _ in range(20)))
        assert len({each["thingId"] for each in made}) == 1


async def test_pages_of_groups_pass_over_nothing_while_groups_come_and_go(tmp_path: Path) -> None:
    async with plane(tmp_path) as control:
        for name in "bdfhj":
            await ask(control, "CreateThingGroup", thingGroupName=name)
        first = await ask(control, "ListThingGroups", maxResults=2)
        await ask(control, "DeleteThingGroup", thingGroupName="d")  # the last of that page
        for name in "ae":
            await ask(control, "CreateThingGroup", thingGroupName=name)
        rest = await ask(control, "ListThingGroups", nextToken=first["nextToken"])
        names = [[group["groupName"] for group in page["thingGroups"]] for page in (first, rest)]
        assert names == [["b", "d"], ["e", "f", "h", "j"]]
        with refused(INVALID, "nextToken"):
            await ask(control, "ListThings", nextToken=first["nextToken"])  # another list's
