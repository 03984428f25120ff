"""Answers to devices: accepted or rejected, in the format of the request, by the way it came (spec.md §2.5)."""

from collections.abc import Callable

from actors import replies
from actors.messages import BRIDGED, REPORT_CBOR
from actors.router import Routed
from daemon.brokers._base import Source


class DeviceAnswers:
    """To the embedded broker's devices by `publish(subject, payload)`, to others through their bridge."""

    def __init__(self, publish: Callable[[str, bytes], None], bridges: Callable[[], dict[str, Source]]) -> None:
        self._publish, self._bridges = publish, bridges

    async def answer(self, routed: Routed) -> None:
        frames, names = routed.batch.frames, routed.batch.names
        ids, times = routed.batch.columns.report_id.tolist(), (routed.batch.ts // 1_000_000).tolist()
        for entry in routed.reports.tolist():
            why = routed.rejected.get(entry)
            cbor = int(frames.kind[entry]) == REPORT_CBOR
            if why is None:
                payload = replies.accepted(names[entry], ids[entry], times[entry], cbor=cbor)
            else:
                payload = replies.refused(names[entry], why, times[entry], cbor=cbor)
            if int(frames.flags[entry]) & BRIDGED:
                await self._through_bridge(routed, entry, cbor, why is None, payload)
            elif names[entry]:
                self._publish(f"{frames.subject(entry)}.{'rejected' if why else 'accepted'}", payload)

    async def _through_bridge(self, routed: Routed, entry: int, cbor: bool, accepted: bool, payload: bytes) -> None:
        bridge = self._bridges().get(routed.batch.frames.subject(entry).split(".")[3])
        if bridge is not None and routed.batch.names[entry]:
            await bridge.reply(routed.batch.names[entry].decode(), "cbor" if cbor else "json", accepted, payload)
