"""The compiled answers to accepted reports against those made one by one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import replies
from actors.entries import frames_of
from actors.messages import BRIDGED, NAME_ENCODED, REPORT_JSON
from daemon.accepted import accepted_all
from daemon.log.wire import publish_all

names = st.sampled_from(["p1", "a:b_c-d", "x" * 128, "p 1~", 'a"b', "a\\b", "größe", "a//b", "a%20b", "\x7f", "p"])
subjects = st.one_of(
    st.builds("$aws.things.{}.defender.metrics.{}".format, names, st.sampled_from(["json", "cbor"])),
    st.builds("detectd.log.report.plant.{}.json".format, names),
    st.just("detectd.log.tick"),
)
edges = st.sampled_from([0, 1, 9, 10, 99, 100, 10**15, 2**63 - 1])
ids = st.one_of(edges, st.sampled_from([-1, -(2**63)]))


@given(st.lists(st.tuples(subjects, ids, edges, st.booleans()), min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_plain_ones_are_answered_together_and_the_others_left(entries):
    frames = frames_of([(i + 1, 5, subject, b"{}", None, 0) for i, (subject, *_) in enumerate(entries)])
    report_ids = np.array([entry[1] for entry in entries], np.int64)
    times_ms = np.array([entry[2] for entry in entries], np.int64)
    reports = np.flatnonzero([entry[3] for entry in entries]).astype(np.int32)
    said, left = accepted_all(frames, reports, report_ids, times_ms)
    alike = [entry for entry in reports.tolist() if entry not in left.tolist()]
    expected = [
        (
            frames.subjects()[entry] + b".accepted",
            replies.accepted(frames.token(entry), int(report_ids[entry]), int(times_ms[entry]), cbor=False),
        )
        for entry in alike
    ]
    assert said == publish_all(expected)
    assert left.tolist() == [
        entry
        for entry in reports.tolist()
        if frames.kind[entry] != REPORT_JSON
        or frames.flags[entry] & (BRIDGED | NAME_ENCODED)
        or report_ids[entry] < 0
        or any(c in b'"\\' or not 32 <= c <= 126 for c in frames.token(entry))
    ]
