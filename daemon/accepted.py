"""Most answers are alike: the report was accepted. One compiled call writes them all, from the reports' own bytes.

Only those of JSON reports to the embedded broker, by things with plain names; the others are left to `actors.replies`,
which says how an answer reads.
"""

from typing import Final

import numpy as np
from numba import njit

from actors.messages import BRIDGED, I4, I8, NAME_ENCODED, REPORT_JSON, U1, Frames
from daemon.byte_kernels import copy, digits_of, put, put_break, put_number, word

HEAD_BYTES: Final = 160  # more than a publish and an answer have beside the subject and the thing's name


def accepted_all(frames: Frames, reports: I4, ids: I8, times_ms: I8) -> tuple[bytes, I4]:
    """Of reports that were accepted: (publishes in protocol bytes, the entries that are left). Ids, times: by entry."""
    size = HEAD_BYTES * len(reports) + int(frames.subject_len.sum()) + int(frames.name_len.sum())
    into, left = np.empty(size, np.uint8), np.empty(len(reports), np.int32)
    end, count = _accepted(
        frames.data, reports, frames.kind, frames.flags, frames.subject_off, frames.subject_len, frames.name_off,
        frames.name_len, ids, times_ms, into, left,
    )  # fmt: skip
    return into[:end].tobytes(), left[:count]


_PUB = word(b"PUB ")
_SUFFIX = word(b".accepted ")
_THING = word(b'{"thingName":"')
_ID = word(b'","reportId":')
_TIME = word(b',"status":"ACCEPTED","timestamp":')
_END = word(b"}")


@njit(nogil=True)
def _is_plain(data: U1, start: int, size: int) -> bool:
    """Whether it stands in JSON as it is."""
    for i in range(start, start + size):
        c = data[i]
        if c < 32 or c > 126 or c in (34, 92):
            return False
    return size > 0


@njit(
    "UniTuple(i8, 2)(u1[::1],i4[::1],u1[::1],u1[::1],i4[::1],i4[::1],i4[::1],i4[::1],i8[::1],i8[::1],u1[::1],i4[::1])",
    nogil=True,
    cache=True,
)
def _accepted(
    data: U1, reports: I4, kind: U1, flags: U1, subject_off: I4, subject_len: I4, name_off: I4, name_len: I4,
    ids: I8, times_ms: I8, into: U1, left: I4,
) -> tuple[int, int]:  # fmt: skip
    """(where the bytes end, entries left)."""
    at = count = 0
    for k in range(len(reports)):
        entry = reports[k]
        name, size = name_off[entry], name_len[entry]
        odd = kind[entry] != REPORT_JSON or flags[entry] & (BRIDGED | NAME_ENCODED) != 0
        if odd or ids[entry] < 0 or times_ms[entry] < 0 or not _is_plain(data, name, size):
            left[count] = entry
            count += 1
            continue
        texts = len(_THING) + len(_ID) + len(_TIME) + len(_END)
        length = texts + size + digits_of(ids[entry]) + digits_of(times_ms[entry])
        at = put(into, at, _PUB)
        at = copy(into, at, data, subject_off[entry], subject_len[entry])
        at = put_break(into, put_number(into, put(into, at, _SUFFIX), length))
        at = copy(into, put(into, at, _THING), data, name, size)
        at = put_number(into, put(into, at, _ID), ids[entry])
        at = put_number(into, put(into, at, _TIME), times_ms[entry])
        at = put_break(into, put(into, at, _END))
    return at, count
