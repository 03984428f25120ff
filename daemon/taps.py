"""Several listeners of the pipeline as one."""

from actors.router import Routed
from actors.world import World
from daemon.pipeline import Tap


class Taps:
    """Tells each in turn."""

    def __init__(self, *taps: Tap) -> None:
        self._taps = taps

    def begin(self, position: int, world: World) -> None:
        for tap in self._taps:
            tap.begin(position, world)

    def follow(self, position: int, world: World) -> None:
        for tap in self._taps:
            tap.follow(position, world)

    def take(self, routed: Routed) -> None:
        for tap in self._taps:
            tap.take(routed)

    def passed(self, position: int) -> None:
        for tap in self._taps:
            tap.passed(position)

    async def room(self) -> None:
        for tap in self._taps:
            await tap.room()
