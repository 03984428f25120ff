"""The life of an alarm: one rule, as a scalar truth and as the kernel that applies it to a batch.

    alarmed  verdict                      becomes                 emits
    no       complies                     streak 0                -
    no       violates, streak+1 < to_alarm   streak+1             -
    no       violates, streak+1 = to_alarm   alarmed, streak 0    in-alarm
    yes      violates                     streak 0                - (the last violation moves)
    yes      complies, streak+1 < to_clear   streak+1             -
    yes      complies, streak+1 = to_clear   quiet, streak 0      alarm-cleared
    any      no datapoint                 unchanged               -

A verdict that agrees with `alarmed` ends the streak; one that disagrees lengthens it, and at its limit the state
flips (spec.md §3.4). `streak` is the number of consecutive datapoints that argue against the present state.
"""

from typing import Final

import numpy as np
from numba import njit

from actors.messages import I1, I4, I8, U1

NO_DATA: Final = -1
COMPLIES: Final = 0
VIOLATES: Final = 1

RAISED: Final = 0
CLEARED: Final = 1
STILL: Final = 2  # violates again while in alarm; reported for sets only, whose value no array can hold


def step(alarmed: bool, streak: int, verdict: int, to_alarm: int, to_clear: int) -> tuple[bool, int, int | None]:
    """One datapoint: (alarmed, streak) -> (alarmed, streak, RAISED | CLEARED | None). The truth; see `step_all`."""
    if verdict == NO_DATA:
        return alarmed, streak, None
    if alarmed == (verdict == VIOLATES):
        return alarmed, 0, None
    if streak + 1 < (to_clear if alarmed else to_alarm):
        return alarmed, streak + 1, None
    return not alarmed, 0, CLEARED if alarmed else RAISED


@njit(
    "i8(i4[::1],i8[::1],i4[::1],i4[::1],i1[:,::1],i8[:,::1],u1[::1],u1[::1],u1[::1],"
    "u1[:,::1],u1[:,::1],i8[:,::1],i8[:,::1],i8[:,::1],i8[:,::1])",
    nogil=True,
    cache=True,
)
def step_all(
    rows: I4, times: I8, slots: I4, columns: I4, verdicts: I1, values: I8, to_alarm: U1, to_clear: U1, is_set: U1,
    alarmed: U1, streak: U1, heard: I8, last_at: I8, last_value: I8, out: I8,
) -> int:  # fmt: skip
    """Apply the verdicts of datapoints k (thing `rows[k]` at `times[k]`) to `slots`, in order of k, then of slot.

    The verdict on slots[s] is verdicts[k, columns[s]].
    `to_alarm`, `to_clear`, `is_set` are by slot number; `alarmed` … `last_value` are the state, [row, slot].
    Fills `out` (room for k × s rows) and returns how many: which datapoint, which slot, RAISED | CLEARED | STILL, and
    when the last violation was and its value, as they stood then: later datapoints of the batch may move them.
    """
    found = 0
    for k in range(len(rows)):
        row, now = np.uint64(rows[k]), times[k]
        for s in range(len(slots)):
            slot, column = np.uint64(slots[s]), np.uint64(columns[s])
            verdict = verdicts[k, column]
            if verdict == NO_DATA:
                continue
            heard[row, slot] = max(heard[row, slot], now)
            violates = verdict == VIOLATES
            was = alarmed[row, slot] != 0
            kind = -1
            if was == violates:
                if streak[row, slot]:
                    streak[row, slot] = 0
                if not was:
                    continue  # all is well, as nearly always
                if is_set[slot]:
                    kind = STILL
            elif streak[row, slot] + 1 < (to_clear[slot] if was else to_alarm[slot]):
                streak[row, slot] += 1
            else:
                streak[row, slot] = 0
                alarmed[row, slot] = 0 if was else 1
                kind = CLEARED if was else RAISED
            if violates:
                last_at[row, slot] = now
                last_value[row, slot] = values[k, column]
            if kind >= 0:
                out[found, 0], out[found, 1], out[found, 2] = k, slot, kind
                out[found, 3], out[found, 4] = last_at[row, slot], last_value[row, slot]
                found += 1
    return found
