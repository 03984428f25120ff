"""What a report says: bytes to Report or Rejected, by the rules of spec.md §2. The reference for `actors.scan`.

JSON and CBOR become the same plain values first, and one walker reads those; long and short keys may be mixed. Where
a key is given twice in one spelling, the last one counts, in both formats.
"""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv6Address
from typing import Any, Final

import cbor2
import msgspec

from actors.cbor import flaw
from actors.messages import Rejected
from actors.numbers import IPV4
from config.kinds import Metric
from config.model import MetricValue

PAYLOAD_BYTES_MAX: Final = 131_072  # spec.md §2.2
DEPTH_MAX: Final = 64  # of values that nobody reads: deeper ones would decode or not as the stack happens to be
PORT_MAX: Final = 65_535
I64_MAX: Final = 2**63 - 1
SHOWN_MAX: Final = 48  # characters of a report's own text in a message

_Object = Mapping[str, Any]

_ABSENT: Final = object()
_VERSION: Final = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")
_WORD: Final = re.compile(r"[A-Za-z0-9:_\-/.]+")  # spec.md §2.3; digits are not mentioned there, and kept
_ENDPOINT: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]]*)):([0-9]{1,5})")
_SINGLE: Final = struct.Struct("<f")

# What is read of each object, (long, short); everything else is ignored.
_ROOT: Final = frozenset({"header", "hed", "metrics", "met", "custom_metrics", "cmet"})
_HEADER: Final = frozenset({"report_id", "rid", "version", "v"})
_BLOCKS: Final = frozenset(
    {"listening_tcp_ports", "tp", "listening_udp_ports", "up", "network_stats", "ns", "tcp_connections", "tc"}
)
_COUNTERS: Final = frozenset({"bytes_in", "bi", "bytes_out", "bo", "packets_in", "pi", "packets_out", "po"})
_LISTENING: Final = frozenset({"ports", "pts", "total", "t"})
_PORT: Final = frozenset({"port", "pt", "interface", "if"})
_TCP: Final = frozenset({"established_connections", "ec"})
_ESTABLISHED: Final = frozenset({"connections", "cs", "total", "t"})
_CONNECTION: Final = frozenset({"remote_addr", "rad", "local_port", "lp", "local_interface", "li"})
_CUSTOM: Final = frozenset({"number", "number_list", "string_list", "ip_list"})


@dataclass(frozen=True, slots=True)
class CustomValue:
    """What a report holds for one custom metric; usually one member, and its definition decides which counts."""

    number: float | None = None
    numbers: tuple[float, ...] | None = None
    strings: tuple[str, ...] | None = None
    cidrs: tuple[str, ...] | None = None  # canonical addresses


@dataclass(frozen=True, slots=True)
class Report:
    """One report that keeps every rule. None = no datapoint; an empty tuple is one (spec.md §1.3).

    Counters and totals fit an int64. `*_total` is the block's total, else the length of its list. Addresses are
    canonical text, in the report's order, port and scope cut off, IPv4-mapped ones as IPv4.
    """

    report_id: int
    version: str
    bytes_in: int | None
    bytes_out: int | None
    packets_in: int | None
    packets_out: int | None
    tcp_ports: tuple[int, ...] | None
    tcp_total: int | None
    udp_ports: tuple[int, ...] | None
    udp_total: int | None
    addresses: tuple[str, ...] | None
    established_total: int | None
    custom: Mapping[str, CustomValue]
    extra: _Object  # blocks of `metrics` that spec.md does not know, as they came
    ignored: int  # custom values that break a rule of spec.md §2.3


class _MalformedError(Exception):
    """A rule is broken; the text says where, and which."""


def decode(
    payload: bytes, cbor: bool, *, lenient: bool = False, payload_bytes_max: int = PAYLOAD_BYTES_MAX
) -> Report | Rejected:
    """The report in `payload`, or why it is none; never raises. `lenient` takes a custom value without its array."""
    if len(payload) > payload_bytes_max:
        message = f"the report has {len(payload)} bytes; at most {payload_bytes_max} are accepted"
        return Rejected("InvalidPayload", message, "too-large")
    report_id = None
    try:
        root = _root(payload, cbor)
        header, path = _object(root, "header", "hed", "", required=True)
        report_id = _report_id(header, path)
        return _report(root, report_id, _version(header, path), lenient)
    except _MalformedError as error:
        return Rejected("InvalidPayload", f"Malformed metrics report: {error}", "malformed", report_id)


def metric_value(report: Report, metric: Metric) -> MetricValue | None:  # noqa: PLR0911 - one for each member
    """The report's datapoint of `metric` as AWS shows it: a set names each element once. None = it has none."""
    value = metric.read(report) if metric.read is not None else None
    if value is None:
        return None
    match metric.value_field:
        case "count":
            return MetricValue(count=value)
        case "number":
            return MetricValue(number=value)
        case "ports":
            return MetricValue(ports=_distinct(value))
        case "cidrs":
            return MetricValue(cidrs=_distinct(value))
        case "numbers":
            return MetricValue(numbers=_distinct(value))
        case "strings":
            return MetricValue(strings=_distinct(value))


def _distinct(elements: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(elements))


def _root(payload: bytes, cbor: bool) -> _Object:
    root = _from_cbor(payload) if cbor else _from_json(payload)
    if not isinstance(root, dict):
        raise _MalformedError("the report is not an object")
    _ignore_others(root, _ROOT, "")
    return root


def _from_json(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except UnicodeDecodeError:
        raise _MalformedError("not JSON: a string is not UTF-8") from None
    except RecursionError:
        raise _MalformedError("values are nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise _MalformedError(f"not JSON: {error}") from None


def _from_cbor(payload: bytes) -> Any:
    problem = flaw(payload, DEPTH_MAX)
    if problem is not None:
        raise _MalformedError(f"not CBOR that a report may use: {problem}")
    try:
        return cbor2.loads(payload)
    except (cbor2.CBORDecodeError, ValueError):
        raise _MalformedError("not CBOR: a string is not UTF-8, or a simple value has no meaning") from None


def _report(root: _Object, report_id: int, version: str, lenient: bool) -> Report:
    metrics, path = _object(root, "metrics", "met", "")
    customs, customs_path = _object(root, "custom_metrics", "cmet", "")
    if not metrics and not customs:
        raise _MalformedError("metrics and custom_metrics: neither holds anything")
    _ignore_others(metrics, _BLOCKS, path)
    counters, at = _object(metrics, "network_stats", "ns", path)
    _ignore_others(counters, _COUNTERS, at)
    tcp_ports, tcp_total = _listening(metrics, "listening_tcp_ports", "tp", path)
    udp_ports, udp_total = _listening(metrics, "listening_udp_ports", "up", path)
    addresses, established_total = _connections(metrics, path)
    custom, ignored = _customs(customs, customs_path, lenient)
    return Report(
        report_id=report_id,
        version=version,
        bytes_in=_count(counters, "bytes_in", "bi", at),
        bytes_out=_count(counters, "bytes_out", "bo", at),
        packets_in=_count(counters, "packets_in", "pi", at),
        packets_out=_count(counters, "packets_out", "po", at),
        tcp_ports=tcp_ports,
        tcp_total=tcp_total,
        udp_ports=udp_ports,
        udp_total=udp_total,
        addresses=addresses,
        established_total=established_total,
        custom=custom,
        extra={key: value for key, value in metrics.items() if key not in _BLOCKS},
        ignored=ignored,
    )


def _report_id(header: _Object, path: str) -> int:
    _ignore_others(header, _HEADER, path)
    value = _member(header, "report_id", "rid", path)
    where = _spelled(header, "report_id", "rid", path)
    if value is _ABSENT:
        raise _MalformedError(f"{where}: missing")
    return _integer(value, where, 1, I64_MAX)


def _version(header: _Object, path: str) -> str:
    value = _member(header, "version", "v", path)
    where = _spelled(header, "version", "v", path)
    if value is _ABSENT:
        raise _MalformedError(f"{where}: missing")
    text = _string(value, where)
    if not _VERSION.fullmatch(text):
        raise _MalformedError(f"{where}: {_shown(text)} is not of the form Major.Minor")
    return text


def _listening(metrics: _Object, long: str, short: str, path: str) -> tuple[tuple[int, ...] | None, int | None]:
    """(ports, total) of a block of listening ports."""
    block, where = _object(metrics, long, short, path)
    _ignore_others(block, _LISTENING, where)
    entries, at = _list(block, "ports", "pts", where)
    ports = None if entries is None else tuple([_port(entry, f"{at}[{i}]") for i, entry in enumerate(entries)])
    total = _count(block, "total", "t", where)
    return ports, len(ports) if total is None and ports is not None else total


def _port(entry: Any, path: str) -> int:
    entry = _is_object(entry, path)
    _ignore_others(entry, _PORT, path)
    _interface(entry, "interface", "if", path)
    value = _member(entry, "port", "pt", path)
    where = _spelled(entry, "port", "pt", path)
    if value is _ABSENT:
        raise _MalformedError(f"{where}: missing")
    return _integer(value, where, 1, PORT_MAX)


def _connections(metrics: _Object, path: str) -> tuple[tuple[str, ...] | None, int | None]:
    """(remote addresses, total) of the established connections."""
    tcp, tcp_path = _object(metrics, "tcp_connections", "tc", path)
    _ignore_others(tcp, _TCP, tcp_path)
    block, where = _object(tcp, "established_connections", "ec", tcp_path)
    _ignore_others(block, _ESTABLISHED, where)
    entries, at = _list(block, "connections", "cs", where)
    addresses = None if entries is None else tuple([_remote(entry, f"{at}[{i}]") for i, entry in enumerate(entries)])
    total = _count(block, "total", "t", where)
    return addresses, len(addresses) if total is None and addresses is not None else total


def _remote(entry: Any, path: str) -> str:
    """The address at the other end of a connection."""
    entry = _is_object(entry, path)
    _ignore_others(entry, _CONNECTION, path)
    _interface(entry, "local_interface", "li", path)
    _count(entry, "local_port", "lp", path)
    value = _member(entry, "remote_addr", "rad", path)
    where = _spelled(entry, "remote_addr", "rad", path)
    if value is _ABSENT:
        raise _MalformedError(f"{where}: missing")
    text = _string(value, where)
    address = _without_port(text)
    if address is None:
        raise _MalformedError(f"{where}: {_shown(text)} is not an address and a port")
    return address


def _without_port(text: str) -> str | None:
    """The canonical address of `ip:port`, `[ipv6]:port` or, as the AWS agent 2.0.0 has it, `ipv6:port`; else None."""
    found = _ENDPOINT.fullmatch(text)
    if found is None or int(found[3]) > PORT_MAX:
        return None
    return _ipv6(found[1]) if found[1] is not None else _canonical(found[2])


def _canonical(text: str) -> str | None:
    return text if IPV4.fullmatch(text) else _ipv6(text)


def _ipv6(text: str) -> str | None:
    """Without its scope; an IPv4-mapped address is the IPv4 address (spec.md §1.4)."""
    try:
        address = IPv6Address(int(IPv6Address(text)))
    except ValueError:
        return None
    return str(address.ipv4_mapped or address)


def _customs(customs: _Object, path: str, lenient: bool) -> tuple[dict[str, CustomValue], int]:
    """(values by metric name, how many were ignored)."""
    values: dict[str, CustomValue] = {}
    ignored = 0
    for name, elements in customs.items():
        value, dropped = _custom(elements, f"{path}.{_shown(name)}", lenient)
        ignored += dropped
        if value != CustomValue():
            values[name] = value
    return values, ignored


def _custom(elements: Any, path: str, lenient: bool) -> tuple[CustomValue, int]:
    if lenient and isinstance(elements, dict):
        elements = [elements]
    if not isinstance(elements, list) or len(elements) != 1:
        raise _MalformedError(f"{path}: not an array with exactly one element")
    where = f"{path}[0]"
    element = _is_object(elements[0], where)
    _ignore_others(element, _CUSTOM, where)
    value = CustomValue(
        number=_number(element["number"], f"{where}.number") if "number" in element else None,
        numbers=_numbers(element, where),
        strings=_strings(element, where),
        cidrs=_addresses(element, where),
    )
    present = (value.number, value.numbers, value.strings, value.cidrs)
    return value, max(len(_CUSTOM & element.keys()), 1) - sum(member is not None for member in present)


def _number(value: Any, where: str) -> float | None:
    """A finite number; None where it has more than 15 significant digits."""
    if type(value) is not int and type(value) is not float:
        raise _MalformedError(f"{where}: not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _MalformedError(f"{where}: not a finite number")
    rounded = f"{number:.15g}"
    exact = Decimal(rounded) == value if type(value) is int else float(rounded) == number or _is_single(number)
    return number if exact else None


def _is_single(number: float) -> bool:
    """Whether CBOR may have carried it in 4 bytes: then it never had more than 9 digits of its own."""
    try:
        return _SINGLE.unpack(_SINGLE.pack(number))[0] == number  # type: ignore[no-any-return]  # struct is untyped
    except OverflowError:
        return False


def _numbers(element: _Object, path: str) -> tuple[float, ...] | None:
    entries, where = _list(element, "number_list", None, path)
    values = [_number(entry, f"{where}[{i}]") for i, entry in enumerate(entries or ())]
    kept = tuple([value for value in values if value is not None])
    return kept if entries is not None and len(kept) == len(values) else None


def _strings(element: _Object, path: str) -> tuple[str, ...] | None:
    entries, where = _list(element, "string_list", None, path)
    if entries is None:
        return None
    words = tuple([_string(entry, f"{where}[{i}]") for i, entry in enumerate(entries)])
    return words if all(map(_WORD.fullmatch, words)) else None


def _addresses(element: _Object, path: str) -> tuple[str, ...] | None:
    entries, where = _list(element, "ip_list", None, path)
    if entries is None:
        return None
    addresses = [_canonical(_string(entry, f"{where}[{i}]")) for i, entry in enumerate(entries)]
    kept = tuple([address for address in addresses if address is not None])
    return kept if len(kept) == len(addresses) else None


def _member(parent: _Object, long: str, short: str | None, path: str) -> Any:
    """The value under either spelling of a key, or _ABSENT."""
    value = parent.get(long, _ABSENT)
    other = parent.get(short, _ABSENT) if short is not None else _ABSENT
    if other is _ABSENT:
        return value
    if value is not _ABSENT:
        raise _MalformedError(f"{_join(path, long)} and {_join(path, short or long)}: two spellings of one key")
    return other


def _object(parent: _Object, long: str, short: str, path: str, *, required: bool = False) -> tuple[_Object, str]:
    """(the object under a key, its path); an empty one where there is none."""
    value = _member(parent, long, short, path)
    where = _spelled(parent, long, short, path)
    if value is not _ABSENT:
        return _is_object(value, where), where
    if required:
        raise _MalformedError(f"{where}: missing")
    return {}, where


def _list(parent: _Object, long: str, short: str | None, path: str) -> tuple[list[Any] | None, str]:
    """(the list under a key, its path); None where there is none."""
    value = _member(parent, long, short, path)
    where = _spelled(parent, long, short, path)
    if value is _ABSENT:
        return None, where
    if not isinstance(value, list):
        raise _MalformedError(f"{where}: not a list")
    return value, where


def _count(parent: _Object, long: str, short: str, path: str) -> int | None:
    value = _member(parent, long, short, path)
    return None if value is _ABSENT else _integer(value, _spelled(parent, long, short, path), 0, I64_MAX)


def _interface(parent: _Object, long: str, short: str, path: str) -> None:
    """Devices write null for an interface without a name (clients.md §3.1); nothing reads it."""
    value = _member(parent, long, short, path)
    if value is not _ABSENT and value is not None and not isinstance(value, str):
        raise _MalformedError(f"{_spelled(parent, long, short, path)}: neither a string nor null")


def _is_object(value: Any, where: str) -> _Object:
    if not isinstance(value, dict):
        raise _MalformedError(f"{where}: not an object")
    return value


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _MalformedError(f"{where}: not a string")
    return value


def _integer(value: Any, where: str, low: int, high: int) -> int:
    if type(value) is int and low <= value <= high:  # a bool is an int to isinstance
        return value
    if type(value) is not int:
        raise _MalformedError(f"{where}: not an integer")
    shown = str(value) if -(10**20) < value < 10**20 else "the number"
    raise _MalformedError(f"{where}: {shown} is not within {low}..{high}")


def _ignore_others(parent: _Object, known: frozenset[str], path: str) -> None:
    """Unknown keys are ignored, unless how deep they go could decide whether the report decodes at all."""
    if parent.keys() <= known:
        return
    for key, value in parent.items():
        if key not in known and _is_deep(value):
            raise _MalformedError(f"{_join(path, _shown(key))}: nested more than {DEPTH_MAX} deep")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_MAX):
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def _spelled(parent: _Object, long: str, short: str | None, path: str) -> str:
    """The path of a key as the report spells it."""
    return _join(path, short if short is not None and short in parent else long)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(text: str) -> str:
    """A report's own text, safe for logs and replies: printable ASCII, and not much of it."""
    short = text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."
    return short if short.isascii() and short.isprintable() else ascii(short)[1:-1]
