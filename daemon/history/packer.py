"""The tail of the history, and its packing into chunks in a task beside the one that writes.

At most two tails are in memory: the newest, and one that is being packed. On disk the rows of both are what they were
committed as, until the chunks are.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from config.kinds import ValueField
from daemon.history import compaction, tables
from daemon.history.tail import Rows, Tail
from daemon.store.database import Readers
from daemon.store.writer import StoreClosed, Writer

BYTES_MAX: Final = 16 * 1024**3
PACK_ROWS: Final = 250_000
PACK_WORDS: Final = 100_000
PACK_WORDS_BYTES: Final = 64 * 1024**2  # a report of 128 KiB may be one set
PACK_AGE_MS: Final = 2 * 3_600_000


class Packer:
    """`fields` gives the series there are.

    `on_dropped` is told of chunks that went before they were too old, to keep to the most bytes; `on_error` what
    packing failed of, and it fails for good.
    """

    def __init__(
        self, writer: Writer, readers: Readers, fields: Callable[[], Mapping[int, ValueField]],
        on_dropped: Callable[[int], None], on_error: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self.bytes_max = BYTES_MAX
        self.tail = Tail()
        self._packing: Tail | None = None
        self._task: asyncio.Task[None] | None = None
        self._writer, self._readers = writer, readers
        self._fields, self._on_dropped, self._on_error = fields, on_dropped, on_error

    def seen(self) -> list[Rows]:
        """The rows that are in no chunk, oldest first. What is being packed comes with what is new."""
        tails = [self._packing, self.tail] if self._packing is not None else [self.tail]
        return [tail.seen() for tail in tails if len(tail)]

    async def keep_up(self) -> None:
        """Begin to pack where it is due; wait where the one before is not done and much has come since."""
        is_long = len(self.tail) > 2 * PACK_ROWS or self.tail.words.bytes > 2 * PACK_WORDS_BYTES
        if is_long and self._task is not None:
            await asyncio.wait([self._task])
        if len(self.tail) and self._is_due(self.tail.last_ms):
            self.pack_soon()

    async def keep_up_at(self, now_ms: int) -> None:
        """Pack a tail that nothing has been added to for long."""
        if len(self.tail) and self._is_due(now_ms):
            self.pack_soon()
            await self.packed()

    def pack_soon(self) -> None:
        """Pack the tail, in a task of our own; one at a time, as readers look into one beside the newest."""
        if not self._is_packed_up() or not len(self.tail):
            return
        self._packing, self.tail = self.tail, Tail()
        self._task = asyncio.get_running_loop().create_task(self._pack(self._packing), name="history-packer")

    async def packed(self) -> None:
        """Wait until what is being packed is."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """What is not packed is on disk as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _is_packed_up(self) -> bool:
        return self._packing is None and (self._task is None or self._task.done())

    def _is_due(self, now_ms: int) -> bool:
        tail = self.tail
        is_large = len(tail) >= PACK_ROWS or len(tail.words) >= PACK_WORDS or tail.words.bytes >= PACK_WORDS_BYTES
        return is_large or now_ms - tail.first_ms >= PACK_AGE_MS

    async def _pack(self, tail: Tail) -> None:
        try:
            await self._pack_tail(tail)
            await self._merge()
            self._on_dropped(await self._writer.submit(lambda con: tables.drop_oldest(con, self.bytes_max)))
        except StoreClosed:
            pass
        except Exception as error:  # noqa: BLE001 - the boundary of the history: nobody waits for this task
            self._on_error(error)

    async def _pack_tail(self, tail: Tail) -> None:
        rows, fields = tail.seen(), self._fields()
        packed = await asyncio.to_thread(compaction.pack_tail, rows, fields)

        def then(_: None) -> None:
            self._packing = None

        await self._writer.submit(lambda con: compaction.put_tail(con, rows, packed), then)

    async def _merge(self) -> None:
        while merges := await self._readers.run(compaction.due_merges):
            for merge in merges:
                packed = await self._readers.run(partial(compaction.pack_merge, merge=merge, fields=self._fields()))
                await self._writer.submit(partial(compaction.put_merge, merge=merge, packed=packed))
