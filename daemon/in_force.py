"""What is in force at a position of the log: the latest value, or, up to the entry that changed it, the one before."""

from typing import Generic, TypeVar

T = TypeVar("T")


class InForce(Generic[T]):
    """`follow` it from one value to the next. The first one is taken to have been in force always."""

    def __init__(self) -> None:
        self._since = -1
        self._values: tuple[T, T] | None = None  # before, latest

    @property
    def latest(self) -> T:
        assert self._values is not None
        return self._values[1]

    def follow(self, position: int, value: T) -> None:
        """The entry at `position` put this value into force."""
        self._values = (value if self._values is None else self._values[1], value)
        self._since = position

    def at(self, position: int) -> T:
        """At the entry that changes it the old value still holds: new rules end windows by the old ones first."""
        assert self._values is not None
        before, latest = self._values
        return latest if position > self._since else before
