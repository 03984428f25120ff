"""What every kind of criterion promises, for whatever kinds there are: a new file is tested by being there."""

import inspect

import msgspec
import numpy as np
import pytest
from builders import START, Reading, behavior, profile, rules

from actors.alarm import NO_DATA
from actors.columns import decode_frames, schema_of
from actors.criteria import criteria
from actors.criteria._base import Criterion, Judge, Run, Slot
from actors.entries import frames_of
from actors.metrics import kinds
from actors.plan import plans
from actors.report import Report, decode, metric_value
from config.model import NS, Limits

CUSTOM = {"load": "number", "temps": "number-list", "words": "string-list", "dns": "ip-address-list"}
BEHAVIORS = [
    behavior("aws:all-bytes-out", "less-than", 5, name="sum", duration=300),
    behavior("aws:all-bytes-out", "less-than", 9, name="longer", duration=3600),
    behavior("aws:num-listening-tcp-ports", "less-than", 2, name="snapshot"),
    behavior("load", "greater-than", 0.5, name="number"),
    behavior("aws:all-bytes-out", "less-than-equals", name="median", duration=300, statistic="p50"),
    behavior("load", "less-than", name="highest", duration=600, statistic="p100"),
    behavior("aws:listening-tcp-ports", "in-port-set", [22], name="ports"),
    behavior("aws:destination-ip-addresses", "not-in-cidr-set", ["10.0.0.0/8"], name="addresses"),
    behavior("temps", "in-set", [1.0], name="temps"),
    behavior("words", "not-in-set", ["x"], name="words"),
    behavior("dns", "in-cidr-set", ["::/0"], name="dns"),
]
RULES = rules(profile(*BEHAVIORS), custom=CUSTOM)
SCHEMA = schema_of(RULES, kinds())
[PLAN] = plans(RULES, kinds(), SCHEMA)
KINDS = criteria()
ids = [kind.build.__module__.split(".")[-1] for kind in KINDS]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=ids)


def claimed(kind: Criterion) -> list[tuple[int, Slot]]:
    return [(number, slot) for number, slot in enumerate(PLAN.slots) if kind.claims(slot, SCHEMA)]


def judge_of(kind: Criterion, rows: int = 4) -> Judge:
    judge = kind.build(claimed(kind), SCHEMA, Limits())
    judge.grow(rows)
    return judge


def run(*readings: Reading, rows=None, at_s=0) -> Run:
    """Reading k is of row k, unless `rows` says otherwise."""
    entries = [
        (k + 1, START, "$aws.things.a.defender.metrics.json", reading.payload(k + 1), None, 0)
        for k, reading in enumerate(readings)
    ]
    columns = decode_frames(frames_of(entries), SCHEMA, Limits())
    assert columns.ok.all()
    count, width = len(readings), len(PLAN.slots)
    return Run(
        columns, np.arange(count, dtype=np.int32), np.array(rows or range(count), np.int32),
        np.full(count, START + at_s * NS, np.int64), np.full((count, width), NO_DATA, np.int8),
        np.zeros((count, width), np.int64),
    )  # fmt: skip


FULL = Reading(
    bytes_out=7, tcp=(23, 22, 80), addresses=("10.0.0.1",),
    custom={"load": ("number", 0.25), "temps": ("number-list", (2.0,)), "words": ("string-list", ("x",)),
            "dns": ("ip-address-list", ("1.2.3.4",))},
)  # fmt: skip
EMPTY = Reading(packets_in=1)


def heard(judge: Judge, one: Run) -> list:
    """Everything a judge says about a run, now and when its windows end."""
    judge.judge(one)
    now = int(one.times[-1])
    closed = [
        (end, c.slot, c.rows.tolist(), c.verdicts.tolist(), c.values.tolist())
        for end in sorted(set(judge.ends(now)))
        for c in judge.close(end)
    ]
    return [one.verdicts.tolist(), one.values.tolist(), closed]


def test_every_behavior_of_a_rules_profile_is_claimed_by_exactly_one_kind():
    for slot in PLAN.slots:
        assert sum(kind.claims(slot, SCHEMA) for kind in KINDS) == 1, slot.behavior.name
    assert PLAN.unjudged == ()


@every_kind
def test_a_kind_claims_something_here_and_nothing_that_it_cannot_measure(kind):
    assert claimed(kind), "add a behavior of this kind to BEHAVIORS: nothing tests it yet"
    unknown = msgspec.structs.replace(kinds().metrics["aws:all-bytes-out"], name="aws:unheard-of", column=None)
    for slot in PLAN.slots:
        assert not kind.claims(Slot(slot.profile, slot.behavior, unknown), SCHEMA)


@every_kind
def test_a_judge_has_every_method_with_the_protocols_parameters(kind):
    for name, promised in inspect.getmembers(Judge, inspect.isfunction):
        if not name.startswith("_"):
            assert list(inspect.signature(getattr(judge_of(kind), name)).parameters) == [
                p for p in inspect.signature(promised).parameters if p != "self"
            ]


@every_kind
def test_a_judge_fills_its_own_slots_and_no_others(kind):
    one = run(FULL, FULL)
    judge = judge_of(kind)
    judge.judge(one)
    others = [s for s in range(len(PLAN.slots)) if s not in judge.slots]
    assert (one.verdicts[:, others] == NO_DATA).all()


@every_kind
def test_a_report_without_the_metric_is_no_datapoint(kind):
    verdicts, _, closed = heard(judge_of(kind), run(EMPTY, EMPTY))
    assert np.all(np.array(verdicts) == NO_DATA)
    assert all(rows == [] for _, _, rows, _, _ in closed)


@every_kind
def test_a_full_report_is_a_datapoint_of_every_slot_now_or_at_a_windows_end(kind):
    judge = judge_of(kind)
    verdicts, _, closed = heard(judge, run(FULL, FULL))
    at_once = {s for s in judge.slots if verdicts[0][s] != NO_DATA}
    later = {slot for _, slot, rows, _, _ in closed if rows == [0, 1]}
    assert at_once | later == set(judge.slots)
    assert not at_once & later


@every_kind
def test_cutting_a_run_in_two_changes_nothing(kind):
    whole, cut = judge_of(kind), judge_of(kind)
    both = run(FULL, EMPTY, FULL, rows=[1, 2, 1])
    first, second = run(FULL, EMPTY, rows=[1, 2]), run(FULL, rows=[1])
    cut.judge(first)
    said = heard(cut, second)
    all_verdicts, all_values, closed = heard(whole, both)
    assert all_verdicts == first.verdicts.tolist() + said[0]
    assert all_values == first.values.tolist() + said[1]
    assert closed == said[2]


@every_kind
def test_a_window_that_was_closed_is_empty(kind):
    judge = judge_of(kind)
    heard(judge, run(FULL))
    for end in judge.ends(START):
        assert all(len(closed.rows) == 0 for closed in judge.close(end))


@every_kind
def test_the_ends_are_after_now_and_do_not_change_until_they_are_reached(kind):
    judge = judge_of(kind)
    for end in judge.ends(START):
        assert end > START
        assert end in judge.ends(end - 1)
        assert min(judge.ends(end)) > START


@every_kind
def test_a_dump_that_is_loaded_goes_on_like_the_original(kind):
    judge, again = judge_of(kind), judge_of(kind)
    judge.judge(run(FULL, EMPTY, FULL))
    again.load(judge.dump())
    assert heard(again, run(FULL, FULL, at_s=1)) == heard(judge, run(FULL, FULL, at_s=1))


@every_kind
def test_a_forgotten_row_is_as_new(kind):
    judge = judge_of(kind)
    judge.judge(run(FULL, FULL))
    judge.forget(np.array([0, 1]))
    assert heard(judge, run(FULL, FULL)) == heard(judge_of(kind), run(FULL, FULL))


@every_kind
def test_growing_keeps_what_is_known(kind):
    judge, small = judge_of(kind), judge_of(kind)
    for one in (judge, small):
        one.judge(run(FULL, FULL))
    judge.grow(500)
    assert heard(judge, run(FULL, FULL)) == heard(small, run(FULL, FULL))


@every_kind
def test_an_heir_goes_on_like_the_one_it_inherits_from_in_other_rows(kind):
    judge, heir = judge_of(kind), judge_of(kind)
    judge.judge(run(FULL, EMPTY, FULL))
    heir.begin(START + NS)
    heir.adopt(judge, [(slot, slot) for slot in judge.slots], np.array([0, 2]), np.array([3, 1]))
    ours, theirs = heard(heir, run(FULL, FULL, rows=[1, 3], at_s=1)), heard(judge, run(FULL, FULL, rows=[2, 0], at_s=1))
    assert ours[:2] == theirs[:2]
    assert [(end, slot, values) for end, slot, _, _, values in ours[2]] == [
        (end, slot, values[::-1]) for end, slot, _, _, values in theirs[2]
    ]


@every_kind
def test_an_heir_of_no_behavior_counts_nothing_that_came_before(kind):
    judge, heir = judge_of(kind), judge_of(kind)
    judge.judge(run(FULL, FULL))
    heir.begin(START + 1)
    heir.adopt(judge, [], np.arange(2), np.arange(2))
    fresh = judge_of(kind)
    assert heard(heir, run(FULL, FULL, at_s=1)) == heard(fresh, run(FULL, FULL, at_s=1))


@every_kind
def test_a_reason_can_name_offenders_of_any_value(kind):
    judge = judge_of(kind)
    for number, slot in claimed(kind):
        report = decode(FULL.payload(1), cbor=False)
        assert isinstance(report, Report)
        value = metric_value(report, slot.metric)
        assert value is not None
        assert set(map(type, judge.offenders(number, value))) <= {str}


def test_the_kernels_are_compiled_before_the_first_report():
    for name in ("membership._judge", "percentile._gather", "threshold._judge"):
        module, function = name.split(".")
        kernel = getattr(__import__(f"actors.criteria.{module}", fromlist=[function]), function)
        assert kernel.signatures
        assert not kernel._can_compile
