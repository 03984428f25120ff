"""Whether we say at the broker that we are there, and have it say when we are gone; some brokers will have neither.

The status is a retained message on a topic of our own: online after each connection, offline at a clean stop, and
offline by the broker, as our will, where we end otherwise. A refusal is learnt like that of a reply (`_selftest.py`).
"""

from typing import Final

from daemon.brokers._wire import Will

ONLINE: Final = b'{"state":"online"}'
OFFLINE: Final = b'{"state":"offline"}'
TIMES_MAX: Final = 2  # connections in a row that show the same before it is taken for what the broker does


class Birth:
    """What was learnt over all connections of one bridge."""

    def __init__(self, client_id: str) -> None:
        self.topic = f"detectd/{client_id}/status"
        self.is_out = False  # "online" stands at the broker, from this connection
        self._refusals = 0  # attempts in a row that the broker turned down
        self._without = 0  # connections in a row that came about without a will, after attempts with it had not
        self._kicks = 0  # connections in a row that were lost while "online" was under way
        self._is_unwanted = False
        self.is_under_way = False  # our "online" is out and not answered
        self._has_will = True

    def will(self) -> Will | None:
        """For the next attempt. In turns of two, because the version of MQTT is tried in turns of one."""
        self._has_will = self._without < TIMES_MAX and self._refusals // 2 % 2 == 0
        return Will(self.topic, OFFLINE) if self._has_will else None

    def refused(self) -> None:
        """The broker turned an attempt down: perhaps for the will."""
        self._refusals += 1

    def opened(self) -> None:
        self._without = 0 if self._has_will else self._without + 1
        self._refusals = 0

    def begin(self) -> bool:
        """Say "online" now? Not where nobody would take it back."""
        self.is_under_way = self._has_will and not self._is_unwanted
        return self.is_under_way

    def took(self, *, well: bool) -> None:
        """The broker answered to "online"."""
        self.is_under_way, self._kicks = False, 0
        self.is_out, self._is_unwanted = well, not well

    def cut_off(self, *, is_suspect: bool = True) -> None:
        """The connection is lost."""
        if self.is_under_way and is_suspect:
            self._kicks += 1
            self._is_unwanted = self._kicks >= TIMES_MAX
        self.is_out = self.is_under_way = False
