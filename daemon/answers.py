"""Answers to devices: accepted or rejected, in the format of the request, by the way it came (spec.md §2.5)."""

from collections.abc import Callable

import numpy as np

from actors import replies
from actors.messages import BRIDGED, REPORT_CBOR
from actors.router import Routed
from daemon.accepted import accepted_all
from daemon.brokers._base import Source
from daemon.log.wire import publish_all


class DeviceAnswers:
    """To the embedded broker's devices by `say(protocol bytes, how many)`, to others through their bridge."""

    def __init__(self, say: Callable[[bytes, int], object], bridges: Callable[[], dict[str, Source]]) -> None:
        self._say, self._bridges = say, bridges

    async def answer(self, routed: Routed) -> None:
        """Say to each device what became of its report; a batch leaves in one write."""
        reports, rejected = routed.reports, routed.rejected
        if rejected:
            reports = reports[~np.isin(reports, list(rejected))]
        ids, times_ms = routed.batch.columns.report_id, routed.batch.ts // 1_000_000
        alike, left = accepted_all(routed.batch.frames, reports, ids, times_ms)
        if len(reports) > len(left):
            self._say(alike, len(reports) - len(left))
        if len(left) or rejected:
            await self._answer_one_by_one(routed, sorted([*left.tolist(), *rejected]))

    async def _answer_one_by_one(self, routed: Routed, entries: list[int]) -> None:
        frames, names = routed.batch.frames, routed.batch.names
        subjects, answers = frames.subjects(), []
        for entry in entries:
            why, name, cbor = routed.rejected.get(entry), names[entry], frames.kind[entry] == REPORT_CBOR
            time_ms = int(routed.batch.ts[entry]) // 1_000_000
            if why is None:
                payload = replies.accepted(name, int(routed.batch.columns.report_id[entry]), time_ms, cbor=cbor)
            else:
                payload = replies.refused(name, why, time_ms, cbor=cbor)
            if frames.flags[entry] & BRIDGED:
                await self._through_bridge(routed, entry, cbor, why is None, payload)
            elif name:
                answers.append((subjects[entry] + (b".rejected" if why else b".accepted"), payload))
        if answers:
            self._say(publish_all(answers), len(answers))

    async def _through_bridge(self, routed: Routed, entry: int, cbor: bool, accepted: bool, payload: bytes) -> None:
        bridge = self._bridges().get(routed.batch.frames.subject(entry).split(".")[3])
        if bridge is not None and routed.batch.names[entry]:
            await bridge.reply(routed.batch.names[entry].decode(), "cbor" if cbor else "json", accepted, payload)
