"""`detectd devices add|list|revoke`: the credentials of devices, whether the daemon runs or not."""

import argparse
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from actors.metrics import kinds
from config.load import load
from config.model import Settings
from config.problem import ConfigError
from config.secret import read_secret
from daemon.devices import passwords
from daemon.devices.credentials import FILE, DamagedDevices, Device, change, fingerprint_of, name_flaw, read

PEM: Final = b"-----BEGIN CERTIFICATE-----"
CERTIFICATE_BYTES_MAX: Final = 1024**2
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

Devices = Mapping[str, Device]


class Wrong(Exception):
    """What was asked for can't be: the message says why."""


class Missing(Exception):
    """There is no such device."""


class OutOfReach(Exception):
    """The data directory can't be read, or written."""


def devices(options: argparse.Namespace) -> int:
    """0 done, 1 the configuration is bad or there is no such device, 2 wrong use or a damaged file, 3 out of reach."""
    settings = load(options.config, kinds()).settings
    action = {"add": _add, "list": _list, "revoke": _revoke}[options.action]
    try:
        action(settings, options)
    except (Wrong, DamagedDevices, ConfigError) as problem:
        print(_said(settings, problem), file=sys.stderr)
        return 2
    except Missing as problem:
        print(problem, file=sys.stderr)
        return 1
    except OutOfReach as problem:
        print(problem, file=sys.stderr)
        return 3
    return 0


@contextmanager
def _in(data_dir: Path) -> Iterator[None]:
    """Raises OutOfReach for what goes wrong with the files there; what goes wrong with our output is another matter."""
    try:
        yield
    except OSError as problem:
        raise OutOfReach(f"{data_dir}: {problem}") from problem


def _said(settings: Settings, problem: Exception) -> str:
    return f"{settings.data_dir / FILE}: {problem}" if isinstance(problem, DamagedDevices) else str(problem)


# ---- add ----


def _add(settings: Settings, options: argparse.Namespace) -> None:
    name = options.name
    flaw = name_flaw(name)
    if flaw:
        raise Wrong(f"{name!r}: {flaw}")
    fingerprint = _fingerprint(options)
    password = passwords.generated() if options.generate else _from_file(options.password_file)
    if password is None and fingerprint is None:
        raise Wrong("give --generate, --password-file, --certificate or --fingerprint: what the device will show")
    text = _hashed(password, is_generated=options.generate)

    def edit(devices: Devices) -> Devices:
        _refuse_twice(devices, name, fingerprint)
        return {**devices, name: _with(devices.get(name), text, fingerprint)}

    with _in(settings.data_dir):
        before = read(settings.data_dir / FILE).devices.get(name)
        change(settings.data_dir, edit)
    if options.generate:
        try:
            print(password, flush=True)
        except OSError:  # nobody has seen it: what the device had before is good again
            change(settings.data_dir, lambda devices: _put_back(devices, name, before))
            raise
    _warn(settings)


def _hashed(password: str | None, *, is_generated: bool) -> str | None:
    if password is None:
        return None
    return passwords.hashed(password.encode(), passwords.GENERATED if is_generated else passwords.CHOSEN).text


def _with(known: Device | None, password: str | None, fingerprint: str | None) -> Device:
    """A further certificate is one more; a further password takes the place of the old one."""
    known = known if known is not None and not known.revoked else Device()
    more = (fingerprint,) if fingerprint is not None and fingerprint not in known.fingerprints else ()
    return Device(
        password=password or known.password, fingerprints=(*known.fingerprints, *more), changed=int(time.time())
    )


def _put_back(devices: Devices, name: str, before: Device | None) -> Devices:
    others = {known: device for known, device in devices.items() if known != name}
    return others if before is None else {**others, name: before}


def _refuse_twice(devices: Devices, name: str, fingerprint: str | None) -> None:
    for other, device in devices.items():
        if other != name and fingerprint is not None and fingerprint in device.fingerprints:
            raise Wrong(f"that is the certificate of {other!r}; revoke it there first")


def _from_file(path: Path | None) -> str | None:
    return None if path is None else read_secret(path).reveal()


def _fingerprint(options: argparse.Namespace) -> str | None:
    if options.certificate is not None:
        return fingerprint_of(_der(options.certificate))
    if options.fingerprint is None:
        return None
    text: str = options.fingerprint.replace(":", "").lower()
    if not _SHA256.fullmatch(text):
        raise Wrong("a fingerprint is the SHA-256 of the certificate: 64 hex digits, colons or not")
    return text


def _der(path: Path) -> bytes:
    """The certificate in a file, PEM or DER; the first where there are more, which is the device's own."""
    try:
        with path.open("rb") as file:
            content = file.read(CERTIFICATE_BYTES_MAX)
        found = x509.load_pem_x509_certificate(content) if PEM in content else x509.load_der_x509_certificate(content)
    except OSError as why:
        raise Wrong(f"{path}: {why.strerror}") from None
    except ValueError:
        raise Wrong(f"{path}: there is no certificate in it") from None
    return found.public_bytes(Encoding.DER)


# ---- list, revoke ----


def _list(settings: Settings, options: argparse.Namespace) -> None:
    with _in(settings.data_dir):
        known = read(settings.data_dir / FILE).devices
    for name, device in sorted(known.items()):
        print(_json(name, device) if options.json else "\t".join((name, _shown(device), _time(device.changed))))


def _json(name: str, device: Device) -> str:
    row = {
        "name": name,
        "revoked": device.revoked,
        "password": device.password is not None,
        "fingerprints": device.fingerprints,
        "changed": device.changed,
    }
    return msgspec.json.encode(row).decode()


def _shown(device: Device) -> str:
    if device.revoked:
        return "revoked"
    return ", ".join(_kinds(device))


def _kinds(device: Device) -> Iterable[str]:
    if device.password is not None:
        yield "password"
    if device.fingerprints:
        yield "certificate" if len(device.fingerprints) == 1 else f"{len(device.fingerprints)} certificates"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _revoke(settings: Settings, options: argparse.Namespace) -> None:
    def edit(devices: Devices) -> Devices:
        if options.name not in devices and not _trusts_an_authority(settings):
            raise Missing(f"there is no device {options.name!r}")
        return {**devices, options.name: Device(revoked=True, changed=int(time.time()))}

    flaw = name_flaw(options.name)
    if flaw:
        raise Wrong(f"{options.name!r}: {flaw}")
    with _in(settings.data_dir):
        change(settings.data_dir, edit)


def _trusts_an_authority(settings: Settings) -> bool:
    """Then a device may come in without being listed, so that any name can be revoked."""
    embedded = settings.broker.embedded
    return embedded is not None and embedded.tls is not None and embedded.tls.ca is not None


def _warn(settings: Settings) -> None:
    embedded = settings.broker.embedded
    if embedded is None or not embedded.sensor:
        print("nothing asks for it: that is what broker.embedded with its sensor does", file=sys.stderr)
