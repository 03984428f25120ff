"""Answers to devices: accepted or rejected, in the format of the request, by the way it came (spec.md §2.5)."""

from collections.abc import Callable, Sequence

from actors import replies
from actors.messages import BRIDGED, REPORT_CBOR
from actors.router import Routed
from daemon.brokers._base import Source


class DeviceAnswers:
    """To the embedded broker's devices by `publish([(subject, payload), …])`, to others through their bridge."""

    def __init__(
        self, publish: Callable[[Sequence[tuple[bytes, bytes]]], None], bridges: Callable[[], dict[str, Source]]
    ) -> None:
        self._publish, self._bridges = publish, bridges

    async def answer(self, routed: Routed) -> None:
        """Say to each device what became of its report; a batch leaves in one write."""
        frames, names, rejected = routed.batch.frames, routed.batch.names, routed.rejected
        subjects, kinds = frames.subjects(), frames.kind.tolist()
        ids, times = routed.batch.columns.report_id.tolist(), (routed.batch.ts // 1_000_000).tolist()
        bridged = (frames.flags & BRIDGED).tolist()
        answers = []
        for entry in routed.reports.tolist():
            why, name, cbor = rejected.get(entry), names[entry], kinds[entry] == REPORT_CBOR
            if why is None:
                payload = replies.accepted(name, ids[entry], times[entry], cbor=cbor)
            else:
                payload = replies.refused(name, why, times[entry], cbor=cbor)
            if bridged[entry]:
                await self._through_bridge(routed, entry, cbor, why is None, payload)
            elif name:
                answers.append((subjects[entry] + (b".accepted" if why is None else b".rejected"), payload))
        self._publish(answers)

    async def _through_bridge(self, routed: Routed, entry: int, cbor: bool, accepted: bool, payload: bytes) -> None:
        bridge = self._bridges().get(routed.batch.frames.subject(entry).split(".")[3])
        if bridge is not None and routed.batch.names[entry]:
            await bridge.reply(routed.batch.names[entry].decode(), "cbor" if cbor else "json", accepted, payload)
