"""Whether a user name and a password are good: few checks at a time, successes remembered, failures slowed down.

A check is slow on purpose (passwords.py), so strangers must not be able to order many. Devices that come back
by the thousand must not wait for it either: who was right lately is known by a digest, keyed anew at each start.
"""

import asyncio
import hashlib
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from daemon.devices import passwords
from daemon.devices.passwords import Hash
from daemon.http.access import Failures, network

AT_ONCE: Final = 2
WAITING_MAX: Final = 1024
WAITING_PER_NETWORK_MAX: Final = 256
REMEMBERED_MAX: Final = 65_536
FAILURES_PER_USER: Final = 5  # of one name from one address, and one more every 5 s
FAILURES_PER_NETWORK: Final = 50  # of all names from one address, and two more a second: a NAT has many devices
ADDRESSES_MAX: Final = 16_384


class Login(Enum):
    """What became of one."""

    GOOD = auto()
    WRONG = auto()
    THROTTLED = auto()  # too many failures: not looked at
    BUSY = auto()  # too many wait: not looked at


class Logins:
    """One per daemon. `clock`: monotonic ns. `evicted`, `forgotten`, `busy` are plain numbers for telemetry."""

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        is_right: Callable[[bytes, Hash], bool] = passwords.is_right,
        remembered_max: int = REMEMBERED_MAX,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self.forgotten = 0  # successes, because REMEMBERED_MAX others came later
        self.busy = 0
        self._clock = clock
        self._is_right = is_right
        self._remembered_max, self._waiting_max = remembered_max, waiting_max
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._of_users = Failures(FAILURES_PER_USER, 0.2, ADDRESSES_MAX)
        self._of_networks = Failures(FAILURES_PER_NETWORK, 2.0, ADDRESSES_MAX)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting: Counter[str] = Counter()  # by network
        self._checks: set[asyncio.Task[Login]] = set()

    def __repr__(self) -> str:
        return f"<Logins {len(self._remembered)} remembered, {len(self._checks)} waiting>"

    @property
    def evicted(self) -> int:
        """Addresses whose failures were forgotten early, because ADDRESSES_MAX others had some."""
        return self._of_users.evicted + self._of_networks.evicted

    @property
    def waiting(self) -> int:
        return len(self._checks)

    async def judge(self, user: str, password: bytes, kept: Hash, ip: str) -> Login:
        """`kept`: the user's own, or `passwords.decoy` for a user that has none.

        A check that has begun is finished and counted even when the caller is cancelled: who hangs up before the
        answer would otherwise have as many guesses as it likes.
        """
        digest = self._digest_of(user, password, kept)
        if self._knows(digest):
            return Login.GOOD
        if self._is_spent(user, ip):
            return Login.THROTTLED
        if len(self._checks) >= self._waiting_max or self._waiting[network(ip)] >= WAITING_PER_NETWORK_MAX:
            self.busy += 1
            return Login.BUSY
        check = asyncio.get_running_loop().create_task(self._check(user, password, kept, ip, digest), name="login")
        self._begun(check, network(ip))
        return await asyncio.shield(check)

    def _begun(self, check: "asyncio.Task[Login]", where: str) -> None:
        self._checks.add(check)
        self._waiting[where] += 1

        def ended(check: "asyncio.Task[Login]") -> None:
            self._checks.discard(check)
            self._waiting[where] -= 1
            if not self._waiting[where]:
                del self._waiting[where]

        check.add_done_callback(ended)

    async def _check(self, user: str, password: bytes, kept: Hash, ip: str, digest: bytes) -> Login:
        async with self._slots:
            # Again: those before it in the queue may have been its own.
            if self._knows(digest):
                return Login.GOOD
            if self._is_spent(user, ip):
                return Login.THROTTLED
            is_right = await asyncio.to_thread(self._is_right, password, kept)
        return self._succeeded(digest) if is_right else self._failed(user, ip)

    def _succeeded(self, digest: bytes) -> Login:
        self._remembered[digest] = None
        if len(self._remembered) > self._remembered_max:
            self._remembered.popitem(last=False)
            self.forgotten += 1
        return Login.GOOD

    def _failed(self, user: str, ip: str) -> Login:
        now_ns = self._clock()
        self._of_users.add(_one(user, ip), now_ns)
        self._of_networks.add(ip, now_ns)
        return Login.WRONG

    def _knows(self, digest: bytes) -> bool:
        if digest not in self._remembered:
            return False
        self._remembered.move_to_end(digest)
        return True

    def _is_spent(self, user: str, ip: str) -> bool:
        """One device with a stale password uses up its own tries, and leaves its neighbours behind a NAT theirs."""
        now_ns = self._clock()
        return self._of_users.are_spent(_one(user, ip), now_ns) or self._of_networks.are_spent(ip, now_ns)

    def _digest_of(self, user: str, password: bytes, kept: Hash) -> bytes:
        """Of all that made it right: with another hash kept for the user it is no longer known."""
        made = hashlib.blake2b(key=self._key, digest_size=16)
        for part in (user.encode(errors="surrogatepass"), kept.salt, kept.digest, password):
            made.update(len(part).to_bytes(4, "big") + part)
        return made.digest()


def _one(user: str, ip: str) -> str:
    """A user at an address, as a name of bounded length for `Failures`."""
    text = f"{network(ip)}\0{user}".encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()
