"""Reports off a client's bytes into a parcel for the log, by one compiled call; and the PUBACKs they ask for."""

from typing import Final

import numpy as np
from numba import njit, types

from actors.messages import I4, I8, U1
from daemon.log.parcel import HEAD_BYTES, Parcel, put_publish, write_rows
from daemon.sensor.packets import END, PACKET_ID, READ_ONLY, REPORT, SIZE, START, TEXT, TEXT_LEN

PUBACK: Final = b"\x40\x02"  # and a packet id: MQTT 3.1.1
PUBACK_BYTES: Final = 4

Reports = I8
"""[packet, column of `daemon.sensor.packets`]; packets that are no reports are stepped over."""


def room_for(whole: bytes, packets: Reports) -> int:
    """Bytes that the reports among these packets of `whole` take in a parcel at most."""
    return len(whole) + HEAD_BYTES * len(packets)


def pack(parcel: Parcel, whole: bytes, reports: Reports, answers: U1, said: int) -> tuple[int, int, int]:
    """Add the reports among these packets of `whole` to a parcel that has room for them, in order.

    `answers[said:]` gets their PUBACKs. Gives (where `answers` ends then, reports, bytes of `whole` they were).
    """
    form, sheet, before = parcel.form, parcel.sheet, len(parcel)
    at, last, said, taken = _pack(
        np.frombuffer(whole, np.uint8), reports, form.text, form.headers_len, form.now_ns(), parcel.number + before,
        sheet.data, parcel.end, sheet.longs, sheet.places, sheet.bits, parcel.last, answers, said,
    )  # fmt: skip
    parcel.grown(at, last)
    return said, len(parcel) - before, taken


_FOUR = types.UniTuple(types.int64, 4)  # type: ignore[no-untyped-call]  # numba has no types
_I8, _BYTES = types.int64, types.uint8[::1]
_ROWS, _PLACES, _BITS = types.int64[:, ::1], types.int32[:, ::1], types.uint8[:, ::1]


@njit(
    _FOUR(
        READ_ONLY, _ROWS, READ_ONLY, _I8, _I8, _I8, _BYTES, _I8, _ROWS, _PLACES, _BITS, _I8, _BYTES, _I8
    ),
    nogil=True,
    cache=True,
)  # fmt: skip
def _pack(
    whole: U1, reports: I8, form: U1, headers_len: int, now_ns: int, mark: int,
    into: U1, at: int, longs: I8, places: I4, bits: U1, row: int, answers: U1, said: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """(where the bytes end, where the rows end, where the answers end, bytes of `whole` taken)."""
    start = at
    taken = 0
    for k in range(len(reports)):
        if reports[k, REPORT] == 0:
            continue
        end, size = reports[k, END], reports[k, SIZE]
        topic, topic_len = reports[k, TEXT], reports[k, TEXT_LEN]
        at = put_publish(into, at, whole, topic, topic_len, end - size, size, form, headers_len, mark, now_ns)
        mark += 1
        taken += end - reports[k, START]
        packet_id = reports[k, PACKET_ID]
        if packet_id > 0:
            answers[said] = 0x40
            answers[said + 1] = 2
            answers[said + 2] = packet_id >> 8
            answers[said + 3] = packet_id & 255
            said += PUBACK_BYTES
    return at, write_rows(into, start, at, longs, places, bits, row), said, taken
