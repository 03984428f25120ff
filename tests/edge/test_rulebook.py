"""Files' definitions in the tables of the control plane, and how they and the API's become the rules in force."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.controls import CHANGE, Change
from actors.metrics import kinds
from config.diff import rules_digest, rules_from_bytes
from config.load import load
from config.model import NS, CustomMetric, Rules, SecurityProfile, Settings
from daemon.control import memberships
from daemon.control.announce import Announcer
from daemon.control.definitions import metric_body, profile_body
from daemon.control.rulebook import Rulebook, RulesConflict
from daemon.log.window import NotStored
from daemon.store.store import Store

START_NS = 1_767_323_100 * NS
PORTS = {
    "name": "ports",
    "metric": "aws:listening-tcp-ports",
    "criteria": {"comparisonOperator": "in-port-set", "value": {"ports": [443]}},
}
LOAD = {
    "name": "load",
    "metric": "load",
    "criteria": {"comparisonOperator": "less-than", "value": {"number": 9}},
}


class Rig:
    """A store with a rulebook; the log is a list."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self.log: list[tuple[str, bytes]] = []
        self.rulebook = Rulebook(store, kinds(), folder / "detectd.json", lambda: START_NS)
        self.announcer = Announcer(Rules(), store, self.append, self.reached, SleepyClock())
        self.rulebook.announcer = self.announcer

    async def append(self, subject: str, payload: bytes) -> int:
        self.log.append((subject, payload))
        return len(self.log)

    async def reached(self, position: int) -> None:
        assert position <= len(self.log)

    def files(self, **settings: Any) -> Settings:
        path = self.folder / "detectd.json"
        path.write_text(json.dumps(settings))
        return load(path, kinds()).settings

    async def rows(self, sql: str) -> list[Any]:
        return await self.store.read(lambda con: con.execute(sql).fetchall())

    async def api(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        for sql, values in statements:
            await self.store.write(lambda con, sql=sql, values=values: con.execute(sql, values).rowcount)

    async def in_force(self) -> Rules:
        subject, payload = self.log[-1]
        assert subject == CHANGE
        digest = msgspec.json.decode(payload, type=Change).digest
        body = await self.store.definition(digest)
        assert body is not None
        rules = rules_from_bytes(body)
        assert rules_digest(rules) == digest
        return rules


class SleepyClock:
    """Time passes as fast as it is waited for."""

    def __init__(self) -> None:
        self.at_ns = 0

    def now_ns(self) -> int:
        return START_NS + self.at_ns

    def monotonic_ns(self) -> int:
        return self.at_ns

    async def sleep_until(self, at_ns: int) -> None:
        self.at_ns = max(self.at_ns, at_ns)
        await asyncio.sleep(0)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    store = await Store.open(tmp_path / "store.db", clock=lambda: START_NS)
    yield Rig(tmp_path, store)
    await store.close()


def profile(name: str, *behaviors: dict[str, Any], targets: tuple[str, ...] = ("all/things",)) -> dict[str, Any]:
    return {"securityProfileName": name, "behaviors": list(behaviors), "targets": list(targets)}


def api_profile(name: str, *behaviors: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    made = msgspec.convert({"securityProfileName": name, "behaviors": behaviors}, SecurityProfile)
    return "INSERT INTO profiles VALUES (?, ?, 1, 0, 0, NULL)", (name, profile_body(made))


def api_metric(name: str) -> tuple[str, tuple[Any, ...]]:
    body = metric_body(CustomMetric(metric_name=name, metric_type="number"))
    return "INSERT INTO custom_metrics VALUES (?, ?, 'token', 0, 0, NULL)", (name, body)


async def test_what_files_define_is_in_the_tables_with_its_file(rig: Rig) -> None:
    settings = rig.files(
        profiles=[profile("P", PORTS, targets=("thinggroup/pumps",)) | {"tags": [{"Key": "team", "Value": "x"}]}],
        custom_metrics=[{"metricName": "load", "metricType": "number"}],
        dimensions=[{"name": "D", "stringValues": ["a/#"]}],
        fleet={"things": ["t0"], "groups": {"site": {}, "pumps": {"parent": "site", "things": ["t1"]}}},
    )
    await rig.rulebook.take_over(settings)
    file = str(rig.folder / "detectd.json")
    assert await rig.rows("SELECT name, version, file FROM profiles") == [("P", 1, file)]
    assert await rig.rows("SELECT profile, target FROM targets") == [("P", "thinggroup/pumps")]
    assert await rig.rows("SELECT name, file FROM custom_metrics") == [("load", file)]
    assert await rig.rows("SELECT name, file FROM dimensions") == [("D", file)]
    assert await rig.rows("SELECT * FROM tags") == [("securityprofile/P", "team", "x")]
    assert await rig.rows("SELECT name, by_api, file FROM things") == [("t0", 0, file), ("t1", 0, file)]
    assert await rig.rows("SELECT name, parent, file FROM thing_groups") == [
        ("pumps", "site", file),
        ("site", None, file),
    ]
    assert await rig.rows("SELECT thing_group, thing FROM members") == [("pumps", "t1")]


async def test_the_version_of_a_profile_counts_the_changes_of_its_file(rig: Rig) -> None:
    for behaviors, version in (((PORTS,), 1), ((PORTS,), 1), ((), 2), ((PORTS,), 3)):
        await rig.rulebook.take_over(rig.files(profiles=[profile("P", *behaviors)]))
        assert await rig.rows("SELECT version FROM profiles") == [(version,)]


async def test_what_a_file_no_longer_defines_goes_with_all_that_belonged_to_it(rig: Rig) -> None:
    fleet = {"groups": {"pumps": {"things": ["t1", "t2"]}}}
    await rig.rulebook.take_over(rig.files(profiles=[profile("P", PORTS) | {"tags": [{"Key": "a"}]}], fleet=fleet))
    await rig.rulebook.take_over(rig.files())
    for table in ("profiles", "targets", "tags", "things", "thing_groups", "members"):
        assert await rig.rows(f"SELECT * FROM {table}") == [], table


async def test_things_and_groups_that_the_api_made_too_outlive_the_file(rig: Rig) -> None:
    await rig.rulebook.take_over(rig.files(fleet={"groups": {"pumps": {"things": ["t1", "t2"]}}}))
    await rig.api(
        ("UPDATE thing_groups SET by_api = 1", ()),
        ("UPDATE things SET by_api = 1 WHERE name = 't1'", ()),
        ("UPDATE members SET by_api = 1 WHERE thing = 't1'", ()),
    )
    await rig.rulebook.take_over(rig.files())
    assert await rig.rows("SELECT name, file FROM things") == [("t1", None)]
    assert await rig.rows("SELECT thing_group, thing, file FROM members") == [("pumps", "t1", None)]
    assert await rig.rows("SELECT name, file FROM thing_groups") == [("pumps", None)]


async def test_a_thing_of_a_file_that_the_api_has_put_into_a_group_stays_there_without_the_file(rig: Rig) -> None:
    files = rig.files(fleet={"things": ["t1", "t2"]})
    made = "INSERT INTO thing_groups (name, id, created_ns, by_api) VALUES ('api', '1', 0, 1)"
    await rig.api((made, ()))
    await rig.rulebook.take_over(files)
    await rig.store.write(lambda con: memberships.add(con, "t1", "api"))
    for again in (rig.files(), files):
        await rig.rulebook.take_over(again)
        assert await rig.rows("SELECT thing_group, thing FROM members") == [("api", "t1")]


async def test_a_file_takes_over_what_the_api_made_and_the_trail_keeps_what_it_was(rig: Rig) -> None:
    await rig.api(
        api_profile("P"),
        ("INSERT INTO targets VALUES ('P', 'all/things')", ()),
        ("INSERT INTO tags VALUES ('securityprofile/P', 'team', 'x')", ()),
    )
    await rig.rulebook.take_over(rig.files(profiles=[profile("P", PORTS)]))
    assert await rig.rows("SELECT version, file IS NULL FROM profiles") == [(2, 0)]
    ((action, resource, detail),) = await rig.rows("SELECT action, resource, detail FROM audit")
    assert (action, resource) == ("TakenOverByFile", "securityprofile/P")
    before = json.loads(detail)
    assert "securityProfileName" in before["before"]
    assert (before["targets"], before["tags"]) == (["all/things"], {"team": "x"})


async def test_a_group_of_the_api_that_a_file_puts_elsewhere_is_in_the_trail_with_where_it_was(rig: Rig) -> None:
    made = "INSERT INTO thing_groups (name, id, parent, created_ns, by_api) VALUES (?, ?, ?, 0, 1)"
    await rig.api((made, ("site", "1", None)), (made, ("pumps", "2", "site")), (made, ("hall", "3", "site")))
    for _ in range(2):
        await rig.rulebook.take_over(rig.files(fleet={"groups": {"pumps": {}, "hall": {"parent": "site"}, "site": {}}}))
    ((action, resource, detail),) = await rig.rows("SELECT action, resource, detail FROM audit")
    assert (action, resource) == ("TakenOverByFile", "thinggroup/pumps")
    assert json.loads(detail)["before"] == {"parent": "site"}


async def test_a_definition_that_is_made_again_was_gone_in_between(rig: Rig) -> None:
    await rig.api(api_metric("load"))
    await rig.announcer.announce("api")
    await rig.api(("DELETE FROM custom_metrics", ()))
    rig.announcer.taken("custommetric/load")
    await rig.announcer.settle("custommetric/other")
    assert len(rig.log) == 1
    for _ in range(2):  # once is enough
        await rig.announcer.settle("custommetric/load")
        assert (len(rig.log), (await rig.in_force()).custom_metrics) == (2, ())


async def test_without_a_log_a_definition_can_be_made_again_all_the_same(rig: Rig) -> None:
    async def fail(*_: object) -> int:
        raise NotStored("the log is away")

    await rig.api(api_metric("load"))
    rig.announcer._append = fail
    rig.announcer.taken("custommetric/load")
    await rig.announcer.settle("custommetric/load")


async def test_files_that_lack_what_the_api_needs_are_refused_and_change_nothing(rig: Rig) -> None:
    await rig.rulebook.take_over(rig.files(custom_metrics=[{"metricName": "load", "metricType": "number"}]))
    await rig.api(api_profile("P", LOAD))
    with pytest.raises(RulesConflict, match=r"security profile P: behaviors\[0\]"):
        await rig.rulebook.begin(rig.files(profiles=[profile("Q", PORTS)]))
    assert await rig.rows("SELECT name FROM custom_metrics") == [("load",)]
    assert await rig.rows("SELECT name FROM profiles") == [("P",)]


async def test_both_origins_are_announced_as_one_and_only_when_something_changed(rig: Rig) -> None:
    await rig.rulebook.put_in_force(rig.files(profiles=[profile("F", PORTS)]))
    await rig.api(api_metric("load"), api_profile("A", LOAD), ("INSERT INTO targets VALUES ('A', 'all/things')", ()))
    await rig.announcer.announce("api")
    rules = await rig.in_force()
    assert [(each.security_profile_name, each.targets) for each in rules.profiles] == [
        ("A", ("all/things",)),
        ("F", ("all/things",)),
    ]
    assert [each.metric_name for each in rules.custom_metrics] == ["load"]
    await rig.announcer.announce("api")
    assert len(rig.log) == 2


async def test_changes_that_come_together_are_one_entry(rig: Rig) -> None:
    running = asyncio.create_task(rig.announcer.run())
    for n in range(20):
        await rig.api(("INSERT INTO things (name, id, created_ns, by_api) VALUES (?, ?, 0, 1)", (f"t{n}", f"{n}")))
        rig.announcer.changed()
    async with asyncio.timeout(10):
        while not rig.log or len((await rig.in_force()).fleet.things) < 20:
            await asyncio.sleep(0)
    assert len(rig.log) <= 20
    running.cancel()


async def test_a_log_that_is_away_is_asked_again(rig: Rig) -> None:
    failures = iter([NotStored("away"), NotStored("still away")])
    append = rig.append

    async def failing(subject: str, payload: bytes) -> int:
        for problem in failures:
            raise problem
        return await append(subject, payload)

    announcer = Announcer(Rules(), rig.store, failing, rig.reached, SleepyClock())
    running = asyncio.create_task(announcer.run())
    await rig.api(api_profile("A", PORTS))
    announcer.changed()
    async with asyncio.timeout(10):
        while not rig.log:
            await asyncio.sleep(0)
    assert [each.security_profile_name for each in (await rig.in_force()).profiles] == ["A"]
    running.cancel()


async def test_memberships_through_the_api_join_those_of_files(rig: Rig) -> None:
    settings = rig.files(fleet={"groups": {"pumps": {"things": ["t1"]}}})
    await rig.rulebook.put_in_force(settings)
    await rig.api(
        ("INSERT INTO things (name, id, created_ns, by_api) VALUES ('t2', 'x', 0, 1)", ()),
        ("INSERT INTO members VALUES ('pumps', 't2', 1, NULL)", ()),
    )
    await rig.announcer.announce("api")
    fleet = (await rig.in_force()).fleet
    assert (fleet.groups["pumps"].things, fleet.things) == (("t1", "t2"), ("t2",))
