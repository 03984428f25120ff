"""A batch is cut where an entry acts on all actors at once, and nowhere else."""

import pytest

from actors.controls import CHANGE, RESUMED, STARTED, TICK, Change, Control, Pause, pieces
from actors.entries import frames_of

REPORT = "$aws.things.p1.defender.metrics.json"


def cut(*entries):
    """(subject, payload)… -> the pieces, a run of frames as its list of positions."""
    frames = frames_of(
        [(seq, seq * 10, subject, body, None, 0) for seq, (subject, body) in enumerate(entries, start=1)]
    )
    return [piece if isinstance(piece, Control) else piece.seq.tolist() for piece in pieces(frames)]


def test_a_batch_without_acting_entries_stays_whole():
    assert cut((REPORT, b"{}"), (TICK, b""), (REPORT, b"{}")) == [[1, 2, 3]]


def test_an_acting_entry_cuts_before_and_after_itself():
    assert cut((REPORT, b"{}"), (CHANGE, b'{"digest": "d", "by": "me"}'), (TICK, b""), (STARTED, b'{"since": 5}')) == [
        [1], Control(2, 20, Change("d", "me")), [3], Control(4, 40, Pause(5)),
    ]  # fmt: skip


def test_a_pause_names_its_source():
    assert cut((RESUMED, b'{"since": 5, "source": "plant"}')) == [Control(1, 10, Pause(5, "plant"))]


@pytest.mark.parametrize("body", [b"", b"{", b'{"digest": 1}', b"{}", b"[]", b"\xff"])
def test_a_change_that_cannot_be_read_lets_time_pass_and_no_more(body):
    assert cut((REPORT, b"{}"), (CHANGE, body), (REPORT, b"{}")) == [[1, 2, 3]]


def test_a_subject_that_nobody_knows_lets_time_pass_and_no_more():
    assert cut(("detectd.log.mark", b"x"), (TICK, b"")) == [[1, 2]]


def test_a_part_shares_the_bytes_and_keeps_the_places():
    frames = frames_of([(1, 10, CHANGE, b'{"digest": "d"}', None, 0), (2, 20, REPORT, b'{"a": 1}', None, 0)])
    _, rest = pieces(frames)
    assert (rest.payload(0), rest.token(0), rest.subject(0)) == (b'{"a": 1}', b"p1", REPORT)
