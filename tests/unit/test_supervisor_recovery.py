"""Rebuilding one actor from checkpoint and log: only it speaks, only it is to blame."""

import msgspec
import pytest
from builders import START, Reading, behavior, profile, rules

from actors.controls import CHANGE, Retry
from actors.criteria import threshold
from actors.entries import frames_of
from actors.metrics import kinds
from actors.topics import subject_of_topic
from config.diff import rules_digest
from config.model import NS, Rules
from daemon import checkpoint
from daemon.recovery import ROUTER, Manifest, Recovery
from daemon.supervisor import Broke

OVER = behavior("aws:all-bytes-out", "less-than", 100, duration=300)
G, H = "thinggroup/g", "thinggroup/h"
RULES = rules(
    profile(OVER, name="p", targets=[G]), profile(OVER, name="q", targets=[H]),
    groups={"g": ["a"], "h": ["a"]}, report_interval_s=0,
)  # fmt: skip
POISON = 13


@pytest.fixture(autouse=True)
def raising_kernel(monkeypatch):
    real = threshold._judge

    def judge(at, entries, rows, times, scalars, *rest):
        if POISON in scalars[entries].tolist()[0]:
            raise ZeroDivisionError("kernel")
        return real(at, entries, rows, times, scalars, *rest)

    monkeypatch.setattr(threshold, "_judge", judge)


class Shelved(list):
    """Manifests, newest first, as the store keeps them."""

    async def put_checkpoint(self, position, manifest, keep):
        self[:] = [manifest, *self][:keep]

    async def checkpoints(self):
        return self


def entry(position, value):
    subject = subject_of_topic("$aws/things/a/defender/metrics/json")
    body = Reading(bytes_out=value).payload(position)
    return position, START + position * 600 * NS, subject, body, None, 0


def recovery(tmp_path, *log, poison=None, manifests=(), known=(RULES,), log_last=0):
    """Of a log in memory, read in batches of one."""

    async def read_range(first, last):
        for one in log:
            if first <= one[0] <= last:
                yield frames_of([one])

    async def definition(digest):
        return {rules_digest(one): one for one in known}[digest]

    shelf = Shelved(msgspec.json.encode(one).decode() for one in manifests)
    return Recovery(
        folder=tmp_path, kinds=kinds(), identity="log", shelf=shelf, definition=definition, read_range=read_range,
        poison=lambda: poison or {}, rules_before=RULES, log_last=log_last,
    )  # fmt: skip


async def test_only_the_rebuilt_actor_speaks(tmp_path):
    actor, effects = await recovery(tmp_path, entry(1, 200), entry(2, 1), entry(3, 200)).rebuild(G, 2, set())
    assert [(t.profile, t.event_type, t.position) for t in effects] == [("p", "in-alarm", 1), ("p", "alarm-cleared", 2)]
    assert (actor.key, actor.position) == (G, 2)


async def test_entries_that_break_it_are_named(tmp_path):
    with pytest.raises(Broke) as broke:
        await recovery(tmp_path, entry(1, 200), entry(2, POISON)).rebuild(G, 2, set())
    assert (broke.value.first, broke.value.last) == (2, 2)
    assert isinstance(broke.value.__cause__, ZeroDivisionError)


async def test_poison_of_its_own_is_left_out_and_that_of_another_actor_is_not_its_business(tmp_path):
    """The other actor breaks on it too, and nothing is known of that yet."""
    log = entry(1, POISON), entry(2, 200)
    _, effects = await recovery(tmp_path, *log).rebuild(G, 2, {1})
    assert [t.position for t in effects] == [2]
    _, effects = await recovery(tmp_path, *log, poison={H: {1}, G: {1}}).rebuild(H, 2, set())
    assert [t.position for t in effects] == [2]


async def test_a_retried_report_that_breaks_it_again_is_named_by_its_new_place(tmp_path):
    what = Retry(G, 1, "$aws.things.a.defender.metrics.json", Reading(bytes_out=POISON).payload(1))
    again = (2, START + 1200 * NS, "detectd.log.retry", msgspec.json.encode(what), None, 0)
    with pytest.raises(Broke) as broke:
        await recovery(tmp_path, entry(1, POISON), again, poison={G: {1}}).rebuild(G, 2, set())
    assert (broke.value.first, broke.value.last) == (2, 2)


async def test_a_rebuild_crosses_a_change_with_what_other_actors_hand_over(tmp_path):
    moved = rules(
        profile(OVER, name="p", targets=[H]), profile(OVER, name="q", targets=[H]), groups={"g": ["a"], "h": ["a"]},
        report_interval_s=0,
    )  # fmt: skip
    change = (2, START + 700 * NS, CHANGE, msgspec.json.encode({"digest": rules_digest(moved)}), None, 0)
    of = recovery(tmp_path, entry(1, 200), change, entry(3, 1), known=(RULES, moved))
    _, effects = await of.rebuild(H, 3, set())
    assert [(t.profile, t.event_type) for t in effects] == [
        ("q", "in-alarm"), ("p", "alarm-cleared"), ("q", "alarm-cleared"),
    ]  # fmt: skip


async def checkpointed(tmp_path, position, *log, of: Rules = RULES) -> Manifest:
    """A checkpoint of the world after `position`."""
    world, _ = await recovery(tmp_path, *log).world()
    for one in log:
        if one[0] <= position:
            world.handle(frames_of([one]))
    files = {}
    for part, state in {ROUTER: world.router.dump(), **{k: a.dump() for k, a in world.actors.items()}}.items():
        name = f"{position}-{part.replace('/', '-')}"
        files[part] = name, checkpoint.write(tmp_path, name, checkpoint.frozen(state))
    return Manifest("log", position, rules_digest(of), files)


async def test_a_rebuild_starts_from_the_newest_checkpoint_that_is_not_beyond_its_goal(tmp_path):
    """Also one that was written since the daemon started, and never one that saw what must be left out."""
    log = entry(1, 200), entry(2, 1), entry(3, 200)
    known = [await checkpointed(tmp_path, position, *log) for position in (3, 1)]
    of = recovery(tmp_path, *log, manifests=known, log_last=0)
    assert (await of.rebuild(G, 3, set()))[1] == []
    actor, effects = await of.rebuild(G, 2, set())
    assert [t.position for t in effects] == [2]
    assert actor.position == 2


async def test_a_checkpoint_that_is_damaged_gives_way_to_the_one_before(tmp_path):
    log = entry(1, 200), entry(2, 1)
    known = [await checkpointed(tmp_path, position, *log) for position in (2, 1)]
    (tmp_path / known[0].files[G][0]).write_bytes(b"")
    world, position = await recovery(tmp_path, *log, manifests=known, log_last=2).world()
    assert position == 1
    assert len(world.actors[G].alarms.active()) == 1


async def test_at_the_start_a_checkpoint_beyond_the_log_s_end_is_refused(tmp_path):
    log = entry(1, 200), entry(2, 1)
    known = [await checkpointed(tmp_path, 2, *log)]
    _, position = await recovery(tmp_path, *log, manifests=known, log_last=1).world()
    assert position == 0
