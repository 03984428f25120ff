"""How much memory waiting batches hold: many of them lie in one sheet, which stays as long as any of them does."""

from actors.messages import U1


class Held:
    """Buffers that somebody holds, and their bytes: each counted once, however many hold it."""

    def __init__(self) -> None:
        self.size = 0
        self._holders: dict[int, int] = {}  # id of a buffer -> how many hold it; it lives as long as they do

    def take(self, buffer: U1) -> None:
        holders = self._holders.get(id(buffer), 0)
        self._holders[id(buffer)] = holders + 1
        if not holders:
            self.size += len(buffer)

    def give(self, buffer: U1) -> None:
        """Somebody who took it lets it go."""
        holders = self._holders.pop(id(buffer)) - 1
        if holders:
            self._holders[id(buffer)] = holders
        else:
            self.size -= len(buffer)
