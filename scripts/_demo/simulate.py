"""The simulated fleet on its own, against any broker: for trying a daemon, a bridge, or one's own receivers."""

import argparse
import asyncio
import contextlib
import ssl
import sys
import time
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import device
from fleet import Broker, Fleet
from story import go_wrong_in_turn, turns
from until import Stop, run_until

EVERY: Final = "a report of each every S seconds; AWS's agents: 300 (default %(default)s)"
ILL_FOR: Final = "how long a device stays wrong; 0: none ever is (default %(default)s)"
REST: Final = "between one device's trouble and the next's (default %(default)s)"


def main() -> int:
    options = _options()
    try:
        return asyncio.run(_run(options))
    except (OSError, ValueError) as problem:
        print(f"simulate: {problem}", file=sys.stderr)
        return 2


async def _run(options: argparse.Namespace) -> int:
    things = [f"{options.name}-{i:0{len(str(options.things))}d}" for i in range(1, options.things + 1)]
    fleet = Fleet(
        _broker(options), device.fleet(things, options.seed), options.every, options.seed, options.format, note=_say
    )
    jobs = {"fleet": fleet.run(), "tell": _tell(fleet)}
    if options.ill_for > 0:
        order = turns(things, options.seed)
        rest_s, ill_s = options.rest, options.ill_for
        jobs["story"] = go_wrong_in_turn(fleet, order, first_s=rest_s, ill_s=ill_s, rest_s=rest_s, note=_say)
    await run_until(Stop(), jobs, getattr(options, "for"))
    _say(_counts(fleet))
    return 0


async def _tell(fleet: Fleet) -> None:
    while True:
        await asyncio.sleep(10)
        _say(_counts(fleet))


def _counts(fleet: Fleet) -> str:
    parts = [f"{fleet.counts[what]} {what}" for what in ("reports", "accepted", "rejected", "disconnects")]
    return f"{len(fleet.connected)} of {len(fleet.devices)} connected, " + ", ".join(parts)


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _broker(options: argparse.Namespace) -> Broker:
    """Raises ValueError: the URL is not one of MQTT's."""
    url = urlsplit(options.url)
    if url.scheme not in {"mqtt", "mqtts"} or not url.hostname:
        raise ValueError(f"{options.url!r} is not of the form mqtt://host:port or mqtts://host:port")
    secure = url.scheme == "mqtts"
    return Broker(
        host=url.hostname,
        port=url.port or (8883 if secure else 1883),
        tls=_tls(options) if secure else None,
        username=options.username or url.username,
        password=_password(options, url),
        prefix=options.prefix,
    )


def _tls(options: argparse.Namespace) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca)
    if options.cert:
        context.load_cert_chain(options.cert, options.key)
    return context


def _password(options: argparse.Namespace, url: SplitResult) -> str | None:
    if options.password_file is None:
        return url.password
    text: str = options.password_file.read_text().strip()
    return text


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    add = parser.add_argument
    add("--url", default="mqtt://127.0.0.1:1883", help="mqtt:// or mqtts:// (default %(default)s)")
    add("--things", type=_positive(int), default=24, metavar="N", help="how many devices (default %(default)s)")
    add("--name", default="sim", help="what their names begin with: sim gives sim-01, sim-02 … (default %(default)s)")
    add("--every", type=_positive(float), default=2.0, metavar="S", help=EVERY)
    add("--format", choices=("json", "cbor"), default="json", help="of the reports (default %(default)s)")
    add("--ill-for", type=float, default=10.0, metavar="S", help=ILL_FOR)
    add("--rest", type=float, default=10.0, metavar="S", help=REST)
    add("--for", type=_positive(float), default=None, metavar="S", help="end after S seconds (default: never)")
    add("--prefix", default="$aws", help="of the topics (default %(default)s)")
    add("--username")
    add("--password-file", type=Path)
    add("--ca", type=Path, help="the authority that signed the broker's certificate")
    add("--cert", type=Path, help="the devices' certificate (all share it)")
    add("--key", type=Path)
    add("--seed", type=int, default=1, help="the same seed, the same fleet (default %(default)s)")
    return parser.parse_args()


def _positive(kind: type[int] | type[float]) -> type:
    def read(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
        return value

    read.__name__ = kind.__name__  # argparse names it in its message
    return read  # type: ignore[return-value]  # argparse takes any callable


if __name__ == "__main__":
    sys.exit(main())
