"""All doormen of the daemon, one for each sensor, and what they share: the file of credentials and the logins."""

from collections.abc import Callable, Mapping
from functools import partial

from actors.events import EMBEDDED
from config.model import Settings
from daemon.clock import Clock
from daemon.devices.credentials import DevicesFile
from daemon.devices.doorman import OTHERS, Doorman, Reason, door_of
from daemon.devices.logins import Logins
from daemon.telemetry import Telemetry


class Doormen:
    """`at` gives the doorman of a sensor; `configure` takes a reload over; `run` follows the file."""

    def __init__(self, settings: Settings, telemetry: Telemetry, clock: Clock) -> None:
        """Raises DamagedDevices: nobody can tell whom to let in."""
        self._settings, self._clock = settings, clock
        self._file = DevicesFile(settings.data_dir)
        self._logins = Logins(clock.monotonic_ns)
        self._doormen: dict[str, Doorman] = {}
        telemetry.watch_devices(self._reads(), {str(reason): partial(self._refused, reason) for reason in Reason})

    def at(self, sensor: str) -> Doorman:
        """The one of the sensor with this name; always the same."""
        if sensor not in self._doormen:
            settings, embedded = self._settings, self._settings.broker.embedded
            door = door_of(embedded) if sensor == EMBEDDED and embedded is not None else OTHERS
            self._doormen[sensor] = Doorman(
                door, settings.broker.devices, settings.rules.clients, self._file, self._logins, self._clock
            )
        return self._doormen[sensor]

    def configure(self, settings: Settings) -> None:
        """Never fails. Connections that may no more what they might are closed by their sensors, within a second."""
        self._settings = settings
        for doorman in self._doormen.values():
            doorman.configure(settings.broker.devices, settings.rules.clients)

    async def run(self) -> None:
        """Until cancelled."""
        await self._file.run(self._clock)

    def _reads(self) -> Mapping[str, Callable[[], float]]:
        file, logins = self._file, self._logins
        return {
            "devices_listed": lambda: len(file.current.devices),
            "devices_file_damaged": lambda: file.is_damaged,
            "logins_waiting": lambda: logins.waiting,
            "logins_forgotten": lambda: logins.forgotten,
            "logins_failures_evicted": lambda: logins.evicted,
        }

    def _refused(self, reason: Reason) -> int:
        return sum(doorman.refusals[reason] for doorman in self._doormen.values())
